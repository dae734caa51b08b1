"""A changed strength without a reload: the merged weights of a loaded model, rewritten where they are.

ComfyUI answers a changed patch with a new `patches_uuid`: the whole model leaves the GPU and is patched
anew. Here the patches stay what they are, ComfyUI's own list on the patcher, so that saving, merging and
low-VRAM loading see them as ever; but all strengths of one LoHa share one uuid, and whenever ComfyUI is
about to use the model (an injection runs at every load), the weights whose patches differ from what they
were merged with are merged again from their originals.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import LowVramPatch, ModelPatcher, get_key_weight
from comfy.patcher_extension import CallbacksMP, PatcherInjection
from torch import Tensor

from ..loha.kernels import Group
from .adapter import LohaAdapter
from .comfyui import merge_dtype

KEEP_VARIABLE = "SHINYMAS_LOHA_KEEP_ORIGINALS"
_KEY = "shinymas-loha"
_SPARE = 1 << 30  # VRAM left to sampling when originals are kept


class _Same:
    """Equal to another of the same object: patches hold tensors, which must not be compared."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held


# What a weight is merged with: strength, patch, strength of the model and offset of each patch in turn.
Merge = tuple[tuple[float, _Same, float, Any], ...]


@dataclass
class _Merged:
    """What the weights of one shared model hold at present.

    Args:
        merges: weight → what it was merged with, and the parameter that holds the result.
        originals: unpatched weights kept on the GPU, from the first changed strength on.
        groups: layer of patches and its weights → a `Group`, and the parameters and factors it was made over.

    Parameters are held weakly: ComfyUI frees VRAM by replacing them, often without a word to us.
    """

    merges: dict[str, tuple[Merge, ref]] = field(default_factory=dict)
    originals: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[str, ...]], tuple[list[ref[Tensor]], Group]] = field(default_factory=dict)

    def forget(self) -> None:
        for kept in (self.merges, self.originals, self.groups):
            kept.clear()

    def record(self, weight: str, merge: Merge, parameter: Tensor) -> None:
        """Note what a parameter holds; once the parameter is gone, nothing in VRAM is kept for its sake."""
        state = ref(self)

        def release(_: ref) -> None:
            merged = state()
            if merged is not None:
                merged.originals.pop(weight, None)
                merged.groups = {key: made for key, made in merged.groups.items() if weight not in key[1]}

        self.merges[weight] = (merge, ref(parameter, release))


# Clones share one model, and with it one state of its weights. The patchers hold it (as an attachment), so that
# kept originals leave VRAM with the last of them.
_models: WeakKeyDictionary[torch.nn.Module, ref[_Merged]] = WeakKeyDictionary()


def keep_resident(patcher: ModelPatcher, parent: uuid.UUID, identity: str) -> None:
    """Let `patcher`, which carries a LoHa's patches, exchange them without a reload.

    Args:
        parent: `patches_uuid` of the patcher that the LoHa was put on.
        identity: of the LoHa; all patchers with one parent and one identity differ in strengths only.
    """
    if not is_resident(patcher):
        return
    patcher.patches_uuid = uuid.uuid5(parent, identity)
    _state(patcher)
    patcher.set_injections(_KEY, [PatcherInjection(inject=_bring_up_to_date, eject=lambda patcher: None)])
    for event, callback in ((CallbacksMP.ON_LOAD, _loaded), (CallbacksMP.ON_DETACH, _detached)):
        patcher.remove_callbacks_with_key(event, _KEY)
        patcher.add_callback_with_key(event, _KEY, callback)


def is_resident(patcher: ModelPatcher) -> bool:
    """Whether the weights stay in place: newer cores may stream them instead, and merge at every forward."""
    return not getattr(patcher, "is_dynamic", lambda: False)()


def _state(patcher: ModelPatcher) -> _Merged:
    """The state of this patcher's model, a new one if nothing is known of it: a clone for another GPU has another."""
    held = _models.get(patcher.model)
    merged = held() if held else None
    if merged is None:
        merged = _Merged()
        _models[patcher.model] = ref(merged)
    patcher.set_attachments(_KEY, merged)
    return merged


def _loaded(patcher: ModelPatcher, *_: Any) -> None:
    """ComfyUI has merged what it loaded just now; what was in place before keeps the merge it had."""
    if patcher.model.model_lowvram:
        _redirect_streamed(patcher)
    merged = _state(patcher)
    before = dict(merged.merges)
    merged.forget()  # parameters are others now, and ComfyUI may have unloaded the model without a word to us
    for weight, merge in _wanted(patcher).items():
        parameter = comfy.utils.get_attr(patcher.model, weight)
        old = before.get(weight)
        merged.record(weight, old[0] if old and old[1]() is parameter else merge, parameter)


def _detached(patcher: ModelPatcher, unpatch_all: bool) -> None:
    if unpatch_all:
        _state(patcher).forget()


def _bring_up_to_date(patcher: ModelPatcher) -> None:
    """Merge anew every weight of the loaded model that holds another merge than `patcher` wants.

    An error or a cancel on the way leaves the model unpatched, as it was before any LoHa.
    """
    model = patcher.model
    if model.current_weight_patches_uuid != patcher.patches_uuid:
        return  # not loaded, or with other patches: ComfyUI's load will merge
    merged = _state(patcher)
    wanted = _wanted(patcher)
    # What is backed up holds a merge, perhaps one of a patcher that is gone with its record.
    changed = [weight for weight in wanted.keys() | patcher.backup.keys()
               if merged.merges.get(weight, (None, None))[0] != wanted.get(weight, ())]
    if not changed:
        return
    streamed = _redirect_streamed(patcher) if model.model_lowvram else set()
    changed = [weight for weight in changed if weight not in streamed]
    try:
        together = _merge_grouped(patcher, merged, changed)
        for weight in changed:
            if weight not in together:
                _merge_one(patcher, weight)
    except BaseException:
        patcher.detach()
        raise
    merged.merges = {}
    for weight in wanted.keys() | patcher.backup.keys():
        merged.record(weight, wanted.get(weight, ()), comfy.utils.get_attr(model, weight))


def _wanted(patcher: ModelPatcher) -> dict[str, Merge]:
    return {weight: tuple((patch[0], _identity(patch[1]), *patch[2:4]) for patch in patches)
            for weight, patches in patcher.patches.items()}


def _identity(patch: Any) -> _Same:
    """The same for every adapter of one module: Apply LoHa makes adapters anew, over the same factors."""
    return _Same(patch.weights[0] if isinstance(patch, LohaAdapter) else patch)


def _merge_grouped(patcher: ModelPatcher, merged: _Merged, changed: list[str]) -> set[str]:
    """Merge what consists of plain LoHa patches in a few launches, from originals kept on the GPU.

    Returns the weights that are done. Left to `_merge_one` are those that ComfyUI's own load would round
    otherwise (a stack of patches it rounds once, float8 at random, what is quantised it unpacks), and all of
    them where the originals do not fit into VRAM or a person has turned this off.
    """
    device = patcher.load_device
    if os.environ.get(KEEP_VARIABLE) == "0":
        return set()
    here = {}
    for weight in changed:
        parameter = comfy.utils.get_attr(patcher.model, weight)
        backup = patcher.backup.get(weight)
        patches = patcher.patches.get(weight, [])
        if (backup is not None and parameter.device == device and parameter.dtype == backup.weight.dtype
                and parameter.dtype.itemsize > 1 and type(parameter.data) is Tensor
                and (len(patches) < 2 or parameter.dtype == merge_dtype(device))
                and parameter.data_ptr() != backup.weight.data_ptr() and all(map(_is_plain, patches))):
            here[weight] = (parameter, patches)
    if not here or not _keep_originals(patcher, merged, here):
        return set()
    with torch.inference_mode():  # parameters made under it take no writes outside
        for weight, (parameter, patches) in here.items():
            if not patches:
                parameter.data.copy_(merged.originals[weight])
    for layer in range(max(len(patches) for _, patches in here.values())):
        weights = tuple(weight for weight, (_, patches) in here.items() if len(patches) > layer)
        adapters = [here[weight][1][layer][1] for weight in weights]
        parameters = [here[weight][0] for weight in weights]
        parts = [*parameters, *(adapter.weights[0] for adapter in adapters)]
        made_of, group = merged.groups.get((layer, weights), ([], None))
        if len(made_of) != len(parts) or any(old() is not new for old, new in zip(made_of, parts, strict=True)):
            bases = [merged.originals[weight] for weight in weights] if layer == 0 else None
            outs = [parameter.data for parameter in parameters]
            group = Group(outs, [adapter.factors for adapter in adapters], bases)
            merged.groups[layer, weights] = ([ref(part) for part in parts], group)
        group.merge([adapter.scale * here[weight][1][layer][0]
                     for weight, adapter in zip(weights, adapters, strict=True)])
    return set(here)


def _is_plain(patch: tuple) -> bool:
    _, adapter, strength_model, offset, function = patch
    return (isinstance(adapter, LohaAdapter) and adapter.is_additive and strength_model == 1.0
            and offset is None and function is None)


def _keep_originals(patcher: ModelPatcher, merged: _Merged, weights: Iterable[str]) -> bool:
    """Bring the originals of these weights onto the GPU, if they are not there and there is room."""
    device = patcher.load_device
    missing = [weight for weight in weights if weight not in merged.originals]
    if device.type != "cpu":
        size = sum(patcher.backup[weight].weight.nbytes for weight in missing)
        if size and comfy.model_management.get_free_memory(device) < size + _SPARE:
            return False
    for weight in missing:
        # Does not wait where ComfyUI has pinned the original.
        merged.originals[weight] = patcher.backup[weight].weight.to(device, non_blocking=True)
    return True


def _merge_one(patcher: ModelPatcher, weight: str) -> None:
    """By ComfyUI's own way from the original, whatever the patches and the weight's format; it stays where it was."""
    place = comfy.utils.get_attr(patcher.model, weight).device
    backup = patcher.backup.get(weight)
    if backup is not None:
        comfy.utils.set_attr_param(patcher.model, weight, backup.weight)
    if weight in patcher.patches:
        patcher.patch_weight_to_device(weight, device_to=patcher.load_device)
    parameter = comfy.utils.get_attr(patcher.model, weight)
    parameter.data = parameter.data.to(place)


def _redirect_streamed(patcher: ModelPatcher) -> set[str]:
    """Point the merges that run at every forward at this patcher's patches; returns their weights.

    A weight that had no patch until now gets such a merge: ComfyUI's load passes over what it streams already.
    """
    redirected = set()
    for name, module in patcher.model.named_modules():
        streamed = hasattr(module, "prev_comfy_cast_weights") and not getattr(module, "comfy_patched_weights", False)
        for kind in ("weight", "bias"):
            key, functions = f"{name}.{kind}", getattr(module, f"{kind}_function", [])
            merges = [function for function in functions if isinstance(function, LowVramPatch)]
            if streamed and not merges and key in patcher.patches and key not in patcher.backup:
                _, set_func, convert_func = get_key_weight(patcher.model, key)
                merges = [LowVramPatch(key, patcher.patches, convert_func, set_func)]
                functions.insert(0, merges[0])
            for function in merges:
                function.patches = patcher.patches if key in patcher.patches else {key: []}
                redirected.add(key)
    return redirected
