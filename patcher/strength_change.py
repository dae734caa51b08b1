"""A changed strength without a reload: the merged weights of a loaded model, rewritten where they are.

ComfyUI answers a changed patch with a new `patches_uuid`: the whole model leaves the GPU and is patched
anew. Here the patches stay what they are, ComfyUI's own list on the patcher, so that saving, merging and
low-VRAM loading see them as ever; but all strengths of one LoHa share one uuid, and whenever ComfyUI is
about to use the model, the weights whose patches differ from what they were merged with are merged again
from their originals. That happens in states that the fence (`comfyui`) knows completely, and in no others:
there ComfyUI reloads, as it would have without us.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..loha.kernels import Group
from . import comfyui
from .adapter import LohaAdapter
from .comfyui import Patch
from .model_weights import parameters

KEEP_VARIABLE = "SHINYMAS_LOHA_KEEP_ORIGINALS"
KEY = "shinymas-loha"
_SPARE = 1 << 30  # VRAM left to sampling when originals are kept, where more is not known to be needed


class _Same:
    """Equal to another of the same object: patches hold tensors, which must not be compared."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held


# What a weight is merged with: strength, patch, strength of the model, offset and function of each patch in turn.
Merge = tuple[tuple[float, _Same, float, Any, _Same], ...]


@dataclass
class _Merged:
    """What the weights of one shared model hold at present.

    Args:
        follows: weight → merge, of the patcher whose patches the whole model holds; None where nobody knows.
        parameters: those that hold a merge, or did and have their original kept. Held weakly: ComfyUI frees VRAM
            by replacing them, often without a word to us.
        originals: unpatched weights kept on the GPU, from the first changed strength on.
        groups: layer of patches and its weights → a `Group`, and the parameters and factors it was made over.
        needs: bytes that the last sampling was expected to take.
    """

    follows: dict[str, Merge] | None = None
    parameters: dict[str, ref[Tensor]] = field(default_factory=dict)
    originals: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[str, ...]], tuple[list[ref[Tensor]], Group]] = field(default_factory=dict)
    needs: float = 0.0

    def forget(self) -> None:
        self.follows = None
        self.parameters.clear()
        self.release()

    def release(self) -> None:
        """Give back what is kept in VRAM."""
        self.originals.clear()
        self.groups.clear()

    def record(self, follows: dict[str, Merge], written: dict[str, Tensor]) -> None:
        """Note what the model holds, and in which parameters where they may be others than before.

        Once a parameter is gone, nothing in VRAM is kept for its sake.
        """
        state = ref(self)

        def release_of(weight: str):
            def release(gone: ref) -> None:
                merged = state()
                if merged is not None and merged.parameters.get(weight) is gone:
                    merged.originals.pop(weight, None)
                    merged.groups = {key: made for key, made in merged.groups.items() if weight not in key[1]}
            return release

        self.follows = follows
        watched = follows.keys() | self.originals.keys()
        self.parameters = {weight: held for weight, held in self.parameters.items() if weight in watched}
        for weight, held in written.items():
            known = self.parameters.get(weight)
            if weight in watched and (known is None or known() is not held):
                self.parameters[weight] = ref(held, release_of(weight))


# Of the whole process, because clones share one model, and with it one state of its weights. It must outlive
# them: ComfyUI forgets the patcher of an old strength before it makes that of the new one. The model itself is
# ComfyUI's, so nothing of ours is put on it.
_models: WeakKeyDictionary[torch.nn.Module, _Merged] = WeakKeyDictionary()


def share_identity(patcher: ModelPatcher, parent: ModelPatcher, identity: str) -> None:
    """Let `patcher`, which carries a LoHa's patches, exchange them without a reload, where that is safe.

    Args:
        parent: the patcher that the LoHa was put on.
        identity: of the LoHa; all patchers with one parent and one identity differ in strengths only.
    """
    comfyui.drop_hook_caches(patcher)
    if comfyui.obstacle_to_sharing(parent, KEY):
        return
    patcher.patches_uuid = uuid.uuid5(parent.patches_uuid, identity)
    comfyui.watch(patcher, KEY, injected=_bring_up_to_date, loaded=_loaded, detached=_detached, sampling=_sampling)


def _state(patcher: ModelPatcher) -> _Merged:
    """The state of this patcher's model, a new one if nothing is known of it: a clone for another GPU has another."""
    return _models.setdefault(patcher.model, _Merged())


def _loaded(patcher: ModelPatcher, *_: Any) -> None:
    """ComfyUI has merged what it loaded just now; what was in place before keeps the merge it had."""
    merged, wanted = _state(patcher), _wanted(patcher)
    before = merged.follows
    if before is not None and before != wanted and not _was_unloaded(patcher, merged):
        merged.forget()  # part of the model may hold other strengths: `_bring_up_to_date` reloads
        return
    merged.forget()  # parameters are others now, and ComfyUI may have unloaded the model without a word to us
    merged.record(wanted, parameters(patcher, wanted))


def _was_unloaded(patcher: ModelPatcher, merged: _Merged) -> bool:
    """Whether no parameter that held a merge is in place any more; false where there was none to tell by."""
    held = {weight: merged.parameters[weight] for weight in merged.parameters.keys() & merged.follows.keys()}
    now = parameters(patcher, held)
    gone = [one() is None or one() is not now[weight] for weight, one in held.items()]
    return bool(gone) and all(gone)


def _detached(patcher: ModelPatcher, unpatch_all: bool) -> None:
    if unpatch_all:
        _state(patcher).forget()


def _bring_up_to_date(patcher: ModelPatcher) -> None:
    """Merge anew every weight of the loaded model that holds another merge than `patcher` wants.

    An error or a cancel on the way leaves the model unpatched, as it was before any LoHa.
    """
    if not comfyui.is_loaded(patcher):
        return  # not loaded, or with other patches: ComfyUI's load will merge
    merged = _state(patcher)
    wanted, before = _wanted(patcher), merged.follows
    if before == wanted:
        return
    changed = [] if before is None else [
        weight for weight in wanted.keys() | before.keys() if before.get(weight, ()) != wanted.get(weight, ())]
    if before is None or comfyui.obstacle_to_rewriting(patcher, changed, KEY):
        merged.forget()
        comfyui.reload(patcher)
        return
    try:
        written = _rewrite(patcher, merged, changed)
    except comfy.model_management.OOM_EXCEPTION:
        merged.forget()
        comfyui.reload(patcher)
        return
    except BaseException:
        comfyui.give_up(patcher)
        raise
    merged.record(wanted, written)


def _sampling(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A whole sampling. Where it runs out of memory beside kept originals, they go, and it runs again without them."""
    patcher = executor.class_obj.model_patcher
    merged = _state(patcher)
    merged.needs = comfyui.sampling_memory(patcher, noise.shape)
    try:
        return executor(noise, *args, **kwargs)
    except comfy.model_management.OOM_EXCEPTION:
        if not merged.originals:
            raise
        merged.release()
        comfy.model_management.soft_empty_cache()
    return executor(noise, *args, **kwargs)


def _wanted(patcher: ModelPatcher) -> dict[str, Merge]:
    return {weight: tuple((patch.strength, _identity(patch.adapter), patch.strength_model, patch.offset,
                           _Same(patch.function)) for patch in patches)
            for weight, patches in comfyui.patches_of(patcher).items()}


def _identity(adapter: Any) -> _Same:
    """The same for every adapter of one module: Apply LoHa makes adapters anew, over the same factors."""
    return _Same(adapter.weights[0] if isinstance(adapter, LohaAdapter) else adapter)


def _rewrite(patcher: ModelPatcher, merged: _Merged, changed: list[str]) -> dict[str, Tensor]:
    """Merge these weights anew, and return the parameters that hold them now."""
    together = _merge_grouped(patcher, merged, changed)
    rest = [weight for weight in changed if weight not in together]
    for weight in rest:
        comfyui.merge_anew(patcher, weight)
    return together | parameters(patcher, rest)


def _merge_grouped(patcher: ModelPatcher, merged: _Merged, changed: list[str]) -> dict[str, Tensor]:
    """Merge what consists of plain LoHa patches in a few launches, from originals kept on the GPU.

    Returns the parameters that are done. Left over are those that ComfyUI's own load would round otherwise (a stack
    of patches it rounds once, float8 at random, what is quantised it unpacks), and all of them where the originals
    do not fit into VRAM or a person has turned this off.
    """
    device, dtype = patcher.load_device, comfyui.merge_dtype(patcher.load_device)
    if os.environ.get(KEEP_VARIABLE) == "0":
        return {}
    here: dict[str, tuple[Tensor, tuple[Patch, ...]]] = {}
    kept, patches = comfyui.originals(patcher), comfyui.patches_of(patcher)
    for weight, held in parameters(patcher, changed).items():
        original, mine = kept.get(weight), patches.get(weight, ())
        if (original is not None and held.device == device and held.dtype == original.dtype
                and held.shape == original.shape and held.dtype.itemsize > 1 and type(held.data) is Tensor
                and (held.dtype == dtype or (len(mine) < 2 and holds(dtype, held.dtype)))
                and held.data_ptr() != original.data_ptr() and all(map(_is_plain, mine))):
            here[weight] = (held, mine)
    if not here or not _keep_originals(merged, {weight: kept[weight] for weight in here}, device):
        return {}
    with torch.inference_mode():  # parameters made under it take no writes outside
        for weight, (held, mine) in here.items():
            if not mine:
                held.data.copy_(merged.originals[weight])
    for layer in range(max(len(mine) for _, mine in here.values())):
        weights = tuple(weight for weight, (_, mine) in here.items() if len(mine) > layer)
        mine = [here[weight][1][layer] for weight in weights]
        written = [here[weight][0] for weight in weights]
        parts = [*written, *(patch.adapter.weights[0] for patch in mine)]
        made_of, group = merged.groups.get((layer, weights), ([], None))
        if len(made_of) != len(parts) or any(old() is not new for old, new in zip(made_of, parts, strict=True)):
            bases = [merged.originals[weight] for weight in weights] if layer == 0 else None
            group = Group([held.data for held in written], [patch.adapter.factors for patch in mine], bases)
            merged.groups[layer, weights] = ([ref(part) for part in parts], group)
        group.merge([patch.adapter.scale * patch.strength for patch in mine])
    return {weight: held for weight, (held, _) in here.items()}


def holds(wide: torch.dtype, dtype: torch.dtype) -> bool:
    """Whether every number of `dtype` is one of `wide`, so that a merge there is rounded once, at its end."""
    return torch.promote_types(wide, dtype) == wide


def _is_plain(patch: Patch) -> bool:
    return (isinstance(patch.adapter, LohaAdapter) and patch.adapter.is_additive and patch.strength_model == 1.0
            and patch.offset is None and patch.function is None)


def _keep_originals(merged: _Merged, wanted: dict[str, Tensor], device: torch.device) -> bool:
    """Bring these originals onto the GPU, if they are not there and there is room beside what sampling takes."""
    missing: Iterable[str] = [weight for weight in wanted if weight not in merged.originals]
    if device.type != "cpu":
        size = sum(wanted[weight].nbytes for weight in missing)
        if size and comfy.model_management.get_free_memory(device) < size + max(_SPARE, merged.needs):
            return False
    for weight in missing:
        # Does not wait where ComfyUI has pinned the original.
        merged.originals[weight] = wanted[weight].to(device, non_blocking=True)
    return True
