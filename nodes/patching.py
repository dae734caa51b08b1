"""From a LoHa to patched clones of MODEL and CLIP, and the report of what was applied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import comfy.lora
from comfy.model_patcher import ModelPatcher

from ..loha import Loha
from ..loha.binding import Binding, Target, bind
from .adapter import LohaAdapter

_NO_CLIP = "a text encoder's module, but no CLIP is connected"


@dataclass(frozen=True)
class Strengths:
    """Strength of the U-Net and of the text encoder, and weights by block (None: 1 everywhere)."""

    model: float
    clip: float
    blocks: dict[str, float] | None = None

    def of(self, target: Target) -> float:
        return (self.model if target.is_unet else self.clip) * (self.blocks[target.block] if self.blocks else 1.0)


def bind_to(loha: Loha, model: ModelPatcher, clip, strengths: Strengths) -> Binding:
    """Bind to the weights of both models; ComfyUI's own name map serves architectures other than SD's."""
    targets = [*_targets(model, "diffusion_model."), *(_targets(clip.patcher) if clip is not None else ())]
    absent = {part: _NO_CLIP for part in ("te1", "te2", "te3")} if clip is None else {}
    binding = bind(loha, targets, strengths.of, absent=absent)
    if binding.unknown:
        binding = bind(loha, targets, strengths.of, absent=absent, names=_core_names(model, clip))
    return binding


def patch(binding: Binding, model: ModelPatcher, clip) -> tuple[ModelPatcher, object, Binding]:
    """Return clones that carry the patches, the very same objects where nothing applies, and the binding
    less what ComfyUI has no adapter for."""
    foreign, failed = _foreign_patches(binding)
    binding = binding.without(failed)
    patches = {bound.target.weight: LohaAdapter.of(bound.module) for bound in binding.modules.values()}
    bounds = [*binding.modules.values(), *binding.others.values()]
    for wanted, target in ((True, model), (False, clip)):
        by_strength = defaultdict(dict)
        for bound in bounds:
            if bound.target.is_unet == wanted:
                weight = bound.target.weight
                by_strength[bound.strength] |= {weight: patches[weight]} if weight in patches else foreign[weight]
        if by_strength:
            target = target.clone()
            for strength, group in by_strength.items():
                target.add_patches(group, strength)
        if wanted:
            model = target
        else:
            clip = target
    return model, clip, binding


def _targets(patcher: ModelPatcher, prefix: str | None = None) -> Iterator[Target]:
    for weight, tensor in patcher.model_state_dict(prefix).items():
        yield Target(weight, tuple(tensor.shape), tensor.dtype)


def _core_names(model: ModelPatcher, clip) -> dict[str, str]:
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    return {name: weight for name, weight in names.items() if isinstance(weight, str)}


def _foreign_patches(binding: Binding) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    """ComfyUI's adapters for modules of other kinds: weight → its patches; and name → why there is none.

    A module's patches are its weight's and perhaps its bias's, under the weight's name here.
    """
    found, failed = {}, {}
    for name, bound in binding.others.items():
        tensors = {f"{name}.{suffix}": tensor for suffix, tensor in bound.module.items()}
        patches = comfy.lora.load_lora(tensors, {name: bound.target.weight}, log_missing=False)
        if patches:
            found[bound.target.weight] = patches
        else:
            failed[name] = f"ComfyUI has no adapter for its tensors: {', '.join(sorted(bound.module))}"
    return found, failed
