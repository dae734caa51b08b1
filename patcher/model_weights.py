"""A model's weights and their patches by name, as cheaply as can be: what a new strength costs is this host's time.

A part of the fence (`comfyui`): it knows how ComfyUI's patchers keep weights and patches.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..loha.targets import Target
from . import comfyui

# The patches of a weight, each (strength, adapter, strength of the model, offset, function) as `add_patches` has it.
Merge = tuple[tuple, ...]
# All that `add_patches` touches in the cores that are known.
_ADDING = frozenset((
    "use_ejected", "set", "model", "state_dict", "isinstance", "str", "len", "add", "patches", "get", "append", "uuid",
    "uuid4", "patches_uuid", "list",
))
# What a model is built of, without a reference to any part of it: two that are equal make the same state dict.
_Build = tuple[list[type], list[str | int], list[type], list[torch.dtype], list[torch.Size]]
# Model → what it was built of, and its targets then, by the prefix asked for.
_known: WeakKeyDictionary[torch.nn.Module, tuple[_Build, dict[str | None, tuple[Target, ...]]]] = WeakKeyDictionary()


def targets(patcher: ModelPatcher, prefix: str | None = None) -> tuple[Target, ...]:
    """The weights whose names start with `prefix`; the very same tuple as long as the model is built as it is."""
    if not comfyui.is_bare(patcher):
        return _targets(patcher, prefix)
    build = _build(patcher.model)
    before, found = _known.get(patcher.model, (None, {}))
    if before != build:
        found = {}
        _known[patcher.model] = (build, found)
    if prefix not in found:
        found[prefix] = _targets(patcher, prefix)
    return found[prefix]


def parameters(patcher: ModelPatcher, weights: Iterable[str]) -> dict[str, Tensor]:
    """The model's parameters of these names as they are now; each module on the way is asked once."""
    modules: dict[str, Any] = {"": patcher.model}

    def module(path: str) -> Any:
        whole = modules.get(path)
        if whole is None:
            parent, _, name = path.rpartition(".")
            whole = modules[path] = _part(module(parent), "_modules", name)
        return whole

    found = {}
    for weight in weights:
        path, _, name = weight.rpartition(".")
        found[weight] = _part(module(path), "_parameters", name)
    return found


def _part(whole: Any, kind: str, name: str) -> Any:
    """`getattr`, which asks a module's own dicts last and slowly."""
    part = whole.__dict__.get(kind, {}).get(name)
    return getattr(whole, name) if part is None else part


def add_patches(patcher: ModelPatcher, patches: Mapping[Any, Any], strength: float) -> None:
    """`patcher.add_patches` of weights that the model is known to have.

    ComfyUI's makes a state dict of the whole model to look their names up. Where that is the only other thing it does,
    the lists are written here as it writes them.
    """
    add = type(patcher).add_patches
    if (patcher.is_injected or add.__module__ != "comfy.model_patcher" or hasattr(add, "__wrapped__")
            or "add_patches" in vars(patcher) or not set(add.__code__.co_names) <= _ADDING):
        patcher.add_patches(patches, strength)
        return
    for key, patch in patches.items():
        weight, offset, function = (key, None, None) if isinstance(key, str) else (*key, None)[:3]
        patcher.patches.setdefault(weight, []).append((strength, patch, 1.0, offset, function))
    patcher.patches_uuid = uuid.uuid4()


def patches_of(patcher: ModelPatcher) -> dict[str, Merge]:
    """The patches of every weight: ComfyUI's own entries, which nobody can change in place."""
    return {weight: tuple(map(tuple, patches)) for weight, patches in patcher.patches.items()}


def changed(patcher: ModelPatcher, before: Mapping[str, Merge]) -> list[str]:
    """Weights whose patches merge otherwise than these did, always in the same order."""
    patches = patcher.patches
    return [weight for weight in {**patches, **before} if not _alike(before.get(weight, ()), patches.get(weight, ()))]


def _alike(one: Sequence[Sequence], other: Sequence[Sequence]) -> bool:
    """Whether both merge the same. Adapters are told by what they are: their numbers must not be compared."""
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        if a is not b and not (len(a) == len(b) == 5 and a[0] == b[0] and a[1] is b[1] and a[2:4] == b[2:4]
                               and a[4] is b[4]):
            return False
    return True


def _targets(patcher: ModelPatcher, prefix: str | None) -> tuple[Target, ...]:
    return tuple(Target(weight, tuple(tensor.shape), tensor.dtype, is_packed=comfyui.is_packed(tensor))
                 for weight, tensor in patcher.model_state_dict(prefix).items())


def _build(model: torch.nn.Module) -> _Build:
    modules, names, held = [model], [], []
    for module in modules:  # grows on the way; no path is put together, for the order tells it
        own = module.__dict__
        if parts := own["_parameters"]:
            names += parts
            held += parts.values()
        if parts := own["_buffers"]:
            names.append(0)
            names += parts
            held += parts.values()
        names.append(1)
        if parts := own["_modules"]:
            names += parts
            modules += [child for child in parts.values() if child is not None]
        names.append(2)
    tensors = [tensor for tensor in held if tensor is not None]
    return (list(map(type, modules)), names, list(map(type, held)), list(map(attrgetter("dtype"), tensors)),
            list(map(attrgetter("shape"), tensors)))
