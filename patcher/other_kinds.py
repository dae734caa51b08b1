"""Modules of other kinds (LoRA, LoKr, diff …) as patches, by ComfyUI's own adapters."""

from __future__ import annotations

from math import prod

import comfy.lora
import torch
from torch import Tensor

from ..loha import files
from ..loha.binding import Binding, Bound, Skip, Target
from ..loha.fitting import LOWER
from ..loha.targets import listed

# Kinds whose tensors alone do not tell what weight they fit; ComfyUI only logs it when they do not.
_UNTOLD = ("oft", "boft", "glora")


def core_patches(binding: Binding) -> tuple[dict[str, dict[str, object]], dict[str, Skip]]:
    """ComfyUI's adapters for `binding.others`: module → weight or bias → patch; module → why there is none."""
    found, failed = {}, {}
    for name, bound in binding.others.items():
        tensors = {files.tensor_name(name, suffix): tensor for suffix, tensor in bound.module.items()}
        # Core names the patch of a bias after the weight beside it; parts of weights it mixes up there.
        weight = bound.target.weight.removesuffix("bias").removesuffix("weight") + "weight"
        patches = comfy.lora.load_lora(tensors, {name.removesuffix("_lora"): weight}, log_missing=False)
        if not patches:
            failed[name] = Skip(f"ComfyUI has no adapter for its tensors: {', '.join(sorted(bound.module))}",
                                remedy="Update ComfyUI, or get a file of another kind.")
        elif not all(_changes(patch, bound.target) for patch in patches.values()):
            failed[name] = Skip(f"ComfyUI's adapter cannot put it on {listed(bound.target.shape)}")
        elif not all(_is_finite(key, patch, bound) for key, patch in patches.items()):
            failed[name] = Skip(f"what it adds is not finite in the weight's dtype, {bound.target.dtype_name}",
                                remedy=LOWER)
        else:
            found[name] = {_key(key, bound.target): patch for key, patch in patches.items()}
    return found, failed


def _key(key: str, target: Target) -> str | tuple:
    """ComfyUI's key of a patch on `key`, the weight itself or its bias, where the target is a part of a weight."""
    span = target.span
    if key != target.weight and span is not None and span[0] != 0:
        span = None  # a bias has rows alone
    if span is None and target.reorder is None:
        return key
    return (key, span) if target.reorder is None else (key, span, target.reorder)


def _changes(adapter: object, target: Target) -> bool:
    """Whether an adapter of those kinds does something to a weight of this shape."""
    if getattr(adapter, "name", None) not in _UNTOLD:
        return True
    weight = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    changed = adapter.calculate_weight(weight.clone(), target.weight, 1.0, 1.0, None, lambda delta: delta)
    return changed is not None and changed.shape == weight.shape and not torch.equal(changed, weight)


def _is_finite(key: str, patch: object, bound: Bound) -> bool:
    """Whether what a patch adds to its weight or bias is finite there; computed only where numbers are large."""
    largest = torch.finfo(bound.target.compute_dtype).max
    ceiling = prod(_ceiling(tensor) for tensor in bound.module.values()) * max(1.0, abs(bound.strength))
    if ceiling < largest:
        return True
    shape = bound.target.shape if key == bound.target.weight else patch[1][0].shape
    added = comfy.lora.calculate_weight([(bound.strength, patch, 1.0, None, None)], torch.zeros(shape), key)
    return float(added.abs().max()) <= largest


def _ceiling(tensor: Tensor) -> float:
    """The largest number, at least 1, as often as sums over any of the tensor's dimensions can take it."""
    return max(1.0, float(tensor.double().abs().max()) * max(tensor.shape, default=1))
