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
from collections.abc import Callable, Iterable
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
from .model_weights import Merge, changed, parameters, patches_of

KEEP_VARIABLE = "SHINYMAS_LOHA_KEEP_ORIGINALS"
KEY = "shinymas-loha"
_PLAIN = (1.0, None, None)  # the model's own strength, no offset, no function
_KNOWN_PLANS = 4  # of one model: each holds tables on the GPU
_SPARE = 1 << 30  # VRAM left to sampling when originals are kept, where more is not known to be needed


@dataclass(frozen=True)
class _Plan:
    """How weights are merged together at any strengths: right as long as all that it was made of is where it was.

    Args:
        made_of: each weight's parameter and ComfyUI's original, then the adapters. Held weakly.
        weights: those that are merged so.
        places: where their numbers lie.
        layers: of each weight's first patch, its second one …: the group, and weights with their scale at strength 1.
    """

    made_of: list[Callable[[], Any]]
    weights: list[str]
    places: list[int]
    layers: list[tuple[Group, list[tuple[str, float]]]]

    def is_of(self, parts: list[Any], held: dict[str, Tensor]) -> bool:
        return (all(old() is new for old, new in zip(self.made_of, parts, strict=True))
                and [held[weight].data_ptr() for weight in self.weights] == self.places)


@dataclass
class _Merged:
    """What the weights of one shared model hold at present.

    Args:
        follows: weight → merge, of the patcher whose patches the whole model holds; None where nobody knows.
        parameters: those that hold a merge, or did and have their original kept. Held weakly: ComfyUI frees VRAM
            by replacing them, often without a word to us.
        originals: unpatched weights kept on the GPU, from the first changed strength on.
        plans: how weights were merged together: by device, dtype, weights and how many patches each has.
        needs: bytes that the last sampling was expected to take.
    """

    follows: dict[str, Merge] | None = None
    parameters: dict[str, ref[Tensor]] = field(default_factory=dict)
    originals: dict[str, Tensor] = field(default_factory=dict)
    plans: dict[tuple, _Plan] = field(default_factory=dict)
    needs: float = 0.0

    def forget(self) -> None:
        self.follows = None
        self.parameters.clear()
        self.release()

    def release(self) -> None:
        """Give back what is kept in VRAM."""
        self.originals.clear()
        self.plans.clear()

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
                    merged.plans = {key: plan for key, plan in merged.plans.items() if weight not in plan.weights}
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
    merged, wanted = _state(patcher), patches_of(patcher)
    before = merged.follows
    if before is not None and changed(patcher, before) and not _was_unloaded(patcher, merged):
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
    before = merged.follows
    others = [] if before is None else changed(patcher, before)
    if before is not None and not others:
        return
    if before is None or comfyui.obstacle_to_rewriting(patcher, others, KEY):
        merged.forget()
        comfyui.reload(patcher)
        return
    wanted = patches_of(patcher)
    try:
        written = _rewrite(patcher, merged, others, wanted)
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


def _rewrite(patcher: ModelPatcher, merged: _Merged, weights: list[str], wanted: dict[str, Merge]) -> dict[str, Tensor]:
    """Merge these weights anew, and return the parameters that hold them now."""
    together = _merge_together(patcher, merged, weights, wanted)
    rest = [weight for weight in weights if weight not in together]
    for weight in rest:
        comfyui.merge_anew(patcher, weight)
    return together | parameters(patcher, rest)


def _merge_together(patcher: ModelPatcher, merged: _Merged, weights: list[str],
                    wanted: dict[str, Merge]) -> dict[str, Tensor]:
    """Merge what consists of plain LoHa patches in a few launches, from originals kept on the GPU.

    Returns the parameters that are done. Left over are those that ComfyUI's own load would round otherwise (a stack
    of patches it rounds once, float8 at random, what is quantised it unpacks), and all of them where the originals
    do not fit into VRAM or a person has turned this off.
    """
    if os.environ.get(KEEP_VARIABLE) == "0":
        return {}
    device, dtype = patcher.load_device, comfyui.merge_dtype(patcher.load_device)
    held, originals = parameters(patcher, weights), comfyui.originals(patcher, weights)
    patches = [wanted.get(weight, ()) for weight in weights]
    key = (device, dtype, *weights, *map(len, patches))
    parts = [*held.values(), *originals, *(_plain_adapter(patch) for mine in patches for patch in mine)]
    plan = merged.plans.get(key)
    if plan is None or not plan.is_of(parts, held):
        kept = dict(zip(weights, originals, strict=True))
        chosen = [weight for weight in weights if _goes_together(held[weight], kept[weight], wanted.get(weight, ()),
                                                                 device, dtype)]
        if not _keep_originals(merged, {weight: kept[weight] for weight in chosen}, device):
            return {}
        plan = merged.plans[key] = _plan(merged, parts, {weight: held[weight] for weight in chosen}, wanted)
        if len(merged.plans) > _KNOWN_PLANS:
            del merged.plans[next(iter(merged.plans))]
    with torch.inference_mode():  # parameters made under it take no writes outside
        for weight in plan.weights:
            if not wanted.get(weight):
                held[weight].data.copy_(merged.originals[weight])
    for layer, (group, scales) in enumerate(plan.layers):
        group.merge([scale * wanted[weight][layer][0] for weight, scale in scales])
    return {weight: held[weight] for weight in plan.weights}


def _goes_together(held: Tensor, original: Tensor | None, patches: Merge, device: torch.device,
                   dtype: torch.dtype) -> bool:
    return (original is not None and held.device == device and held.dtype == original.dtype
            and held.shape == original.shape and held.dtype.itemsize > 1 and type(held.data) is Tensor
            and (held.dtype == dtype or (len(patches) < 2 and holds(dtype, held.dtype)))
            and held.data_ptr() != original.data_ptr() and all(map(_plain_adapter, patches)))


def _plan(merged: _Merged, parts: list[Any], held: dict[str, Tensor], wanted: dict[str, Merge]) -> _Plan:
    """The plan for these parameters, whose originals are kept."""
    layers = []
    for layer in range(max((len(wanted.get(weight, ())) for weight in held), default=0)):
        adapters = {weight: wanted[weight][layer][1] for weight in held if len(wanted.get(weight, ())) > layer}
        bases = [merged.originals[weight] for weight in adapters] if layer == 0 else None
        group = Group([held[weight].data for weight in adapters],
                      [adapter.factors for adapter in adapters.values()], bases)
        layers.append((group, [(weight, adapter.scale) for weight, adapter in adapters.items()]))
    return _Plan([_nothing if part is None else ref(part) for part in parts], list(held),
                 [parameter.data_ptr() for parameter in held.values()], layers)


def _nothing() -> None:
    """In place of a reference to what is not there."""


def _plain_adapter(patch: tuple) -> LohaAdapter | None:
    """The adapter of a patch that only adds a LoHa to a whole weight."""
    if patch[2:] != _PLAIN or not isinstance(patch[1], LohaAdapter) or not patch[1].is_additive:
        return None
    return patch[1]


def holds(wide: torch.dtype, dtype: torch.dtype) -> bool:
    """Whether every number of `dtype` is one of `wide`, so that a merge there is rounded once, at its end."""
    return torch.promote_types(wide, dtype) == wide


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
