"""One weight's merge, by whichever path is fastest here."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .. import product
from . import cpu, grouped_torch
from .choose import CPU_BLOCKED, FUSED_TRITON, GROUPED_TORCH, attempt, choose
from .factors import Factors


@torch.inference_mode()
def merge_(weight: Tensor, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, scale: float) -> str:
    """`weight += scale · (w1_a·w1_b) ∘ (w2_a·w2_b)`, in place, one rounding; returns the route's name.

    Args:
        weight: (out, in, *kernel), any device, floating dtype and strides.
        w1_a, w2_a: (out, rank); the two ranks may differ.
        w1_b, w2_b: (rank, in·kernel).
        scale: alpha / rank · strength.

    The work happens on the weight's device, in its current stream, without a host sync; factors on
    the CPU go there in one pinned copy. Temporaries: none with Triton, else at most 32 MB.

    Raises:
        ValueError: factors that fit neither one another nor the weight.
        SettingsError: SHINYMAS_LOHA_ROUTE names no route.
    """
    factors = Factors(w1_a, w1_b, w2_a, w2_b)
    check(weight, factors)
    ranks = (factors.rank1, factors.rank2)
    route = choose(weight, ranks)
    if is_empty(weight, factors):
        return route.name
    while not attempt(route, partial(run, route.name, weight, weight, factors, scale)):
        route = choose(weight, ranks)
    return route.name


def run(route: str, out: Tensor, base: Tensor, factors: Factors, scale: float) -> None:
    """`out = base + scale·ΔW` by this route; `base` may be `out`, of one shape, dtype and device with it."""
    factors = factors.to(out.device)
    if route == FUSED_TRITON:
        from . import triton_merge

        triton_merge.merge_one(out, base, factors.for_triton(), scale)
        return
    if base is not out:
        out.copy_(base)
    if route == GROUPED_TORCH:
        grouped_torch.merge_stack_([out], [factors], [scale])
    elif route == CPU_BLOCKED:
        cpu.merge_(out, factors, scale)
    else:
        product.merge_(out, *factors, scale)


def check(weight: Tensor, factors: Factors) -> None:
    """Raise ValueError unless the factors fit one another and the weight."""
    factors.check()
    matrix = (weight.shape[0], weight.shape[1:].numel()) if weight.dim() > 1 else tuple(weight.shape)
    if matrix != factors.shape:
        raise ValueError(f"ΔW of shape {factors.shape} does not fit a weight of shape {tuple(weight.shape)}")


def is_empty(weight: Tensor, factors: Factors) -> bool:
    """Whether there is nothing to add: no element, or a product of rank 0."""
    return weight.numel() == 0 or 0 in (factors.rank1, factors.rank2)
