"""Whether a module can go on a target: its shape, then its numbers. Nothing is multiplied before the shape fits."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from . import foreign_kinds, product
from .module import LohaModule
from .targets import Skip, Target, listed

LOWER = "Choose a lower strength or block weight."
_UNPACKED = "Load a checkpoint that is not quantised, or is in float8."
_RANGE = "Load the model in a dtype of a wider range, such as bfloat16, or get the file anew: it may be damaged."


def misfit(module: LohaModule | Mapping[str, Tensor], target: Target, bias: tuple[int, ...] | None) -> Skip | None:
    """Why a module's shape cannot go on a target whose layer has this bias; None when it can."""
    if target.is_packed:
        packed = f"packed as {target.dtype_name} {listed(target.shape)},"
        return Skip(f"a LoHa cannot be added to quantised numbers, {packed}", target.where, remedy=_UNPACKED)
    if not isinstance(module, LohaModule):
        return foreign_kinds.misfit(module, target.shape, bias)
    if not module.fits(target.shape):
        kind = "a Tucker module of" if module.is_tucker else "a product of"
        return Skip(f"{kind} {listed(module.delta_shape)} does not fit {target.described}", target.where)
    if module.dora_scale is not None and product.dora_axis(module.dora_scale.shape, target.shape) is None:
        return Skip(f"dora_scale {listed(module.dora_scale.shape)} fits neither axis of {target.described}",
                    target.where, remedy=foreign_kinds.DAMAGED)
    return None


def stays_finite(module: LohaModule | Mapping[str, Tensor], target: Target, strength: float) -> bool:
    """Whether bounds alone show that a module that fits overflows nothing, at this strength and at any weaker one.

    Of other kinds only the strength is judged here.
    """
    limit, work = _limits(module, target)
    if not abs(strength) <= torch.finfo(target.compute_dtype).max:
        return False
    if not isinstance(module, LohaModule):
        return True
    reach = max(1.0, abs(strength))
    if module.dora_scale is not None and (_grows(module, target) or not _most(module) * reach < limit):
        return False
    steps = module.step_ceiling * max(1.0, abs(module.scale) * reach)
    return module.ceiling * reach < limit and steps < torch.finfo(work).max


def overflow(module: LohaModule | Mapping[str, Tensor], target: Target, strength: float, said: str) -> Skip | None:
    """Why a module that fits would leave numbers in a weight that are not finite; None when it would not.

    Args:
        said: the strength as the person has put it together.
    """
    if stays_finite(module, target, strength):
        return None
    limit, work = _limits(module, target)
    what = f"not finite in the weight's dtype, {target.dtype_name}"
    if not abs(strength) <= torch.finfo(target.compute_dtype).max:
        return Skip(f"its {said} is {what}", remedy=LOWER)
    reach = max(1.0, abs(strength))
    if module.dora_scale is not None:
        if _grows(module, target):
            return Skip(f"its dora_scale holds means, by which numbers grow beyond {target.dtype_name}", remedy=_RANGE)
        most = _most(module)
        if not most * reach < limit:
            return Skip(f"its dora_scale, {most:g} at most, is {what}" + (f" at {said}" if most < limit else ""),
                        remedy=LOWER if most < limit else _RANGE)
    if not product.largest(module, 1.0, work) <= limit:
        return Skip(f"the product is {what}", remedy=_RANGE)
    if not product.largest(module, reach, work) <= limit:
        return Skip(f"at {said} the product is {what}", remedy=LOWER)
    return None


def _limits(module: LohaModule | Mapping[str, Tensor], target: Target) -> tuple[float, torch.dtype]:
    """The largest number that may come of a module, and the dtype that it is multiplied in."""
    limit, work = torch.finfo(target.compute_dtype).max, product.accumulation_dtype(target.compute_dtype)
    if isinstance(module, LohaModule) and module.dora_scale is not None:
        # It divides by norms, whose squares must not overflow, and which may be as small as epsilon.
        limit = min(limit, (torch.finfo(work).max / prod(target.shape)) ** 0.5)
    return limit, work


def _grows(module: LohaModule, target: Target) -> bool:
    return target.dtype.itemsize == 1 and product.dora_by_mean(module.dora_scale)


def _most(module: LohaModule) -> float:
    return float(module.dora_scale.double().abs().max())
