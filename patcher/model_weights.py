"""A model's weights by name, without a state dict of it each time: most of what a new strength costs on a slow host.

A part of the fence (`comfyui`): it knows how ComfyUI's patchers keep weights and patches.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..loha.targets import Target
from . import comfyui

# All that `add_patches` touches in the cores that are known.
_ADDING = frozenset((
    "use_ejected", "set", "model", "state_dict", "isinstance", "str", "len", "add", "patches", "get", "append", "uuid",
    "uuid4", "patches_uuid", "list",
))
# What a model is built of, without a reference to any part of it: two that are equal make the same state dict.
_Build = tuple[list[type], list[str], list[type], list[torch.dtype], list[torch.Size]]
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
        parent, _, name = path.rpartition(".")
        found = modules[path] = _part(modules.get(parent) or module(parent), "_modules", name)
        return found

    found = {}
    for weight in weights:
        path, _, name = weight.rpartition(".")
        found[weight] = _part(modules.get(path) or module(path), "_parameters", name)
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


def _targets(patcher: ModelPatcher, prefix: str | None) -> tuple[Target, ...]:
    return tuple(Target(weight, tuple(tensor.shape), tensor.dtype, is_packed=comfyui.is_packed(tensor))
                 for weight, tensor in patcher.model_state_dict(prefix).items())


def _build(model: torch.nn.Module) -> _Build:
    kinds: list[type] = []
    names: list[str] = []
    tensors: list[Tensor] = []

    def walk(module: torch.nn.Module, path: str) -> None:
        kinds.append(type(module))
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    names.append(path + name)
                    tensors.append(tensor)
        for name, child in module._modules.items():
            if child is not None:
                walk(child, f"{path}{name}.")

    walk(model, "")
    return (kinds, names, list(map(type, tensors)), list(map(attrgetter("dtype"), tensors)),
            list(map(attrgetter("shape"), tensors)))
