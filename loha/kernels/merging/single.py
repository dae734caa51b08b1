"""One weight's merge, by whichever path is fastest here."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ... import product
from ...factors import Factors
from ..packing import for_triton, on_device
from ..route import CPU_BLOCKED, FUSED_TRITON, GROUPED_TORCH, attempt, choose
from . import cpu, stacked
from .workspace import Workspace


def merge_(weight: Tensor, factors: Factors, scale: float, workspace: Workspace | None = None) -> str:
    """`weight += scale · (w1_a·w1_b) ∘ (w2_a·w2_b)`, in place; the rest as in `merge`."""
    return merge(weight, weight, factors, scale, workspace)


@torch.inference_mode()
def merge(out: Tensor, base: Tensor, factors: Factors, scale: float, workspace: Workspace | None = None) -> str:
    """`out = base + scale · (w1_a·w1_b) ∘ (w2_a·w2_b)`, one rounding; returns the route's name.

    Args:
        out: (out, in, *kernel), any device, floating dtype and strides.
        base: of `out`'s shape, dtype and device; it may be `out`, but not overlap it otherwise.
        factors: `*_a` (out, rank), `*_b` (rank, in·kernel); the two ranks may differ.
        scale: alpha / rank · strength.
        workspace: of all merges that follow one another, for those on a CPU.

    The work happens on the weight's device, in its current stream, without a host sync; factors on
    the CPU go there in one pinned copy. Temporaries on CUDA: none with Triton, else the two products in
    float32, at most 128 MB of them, and the factors in float32.

    Raises:
        ValueError: factors that fit neither one another nor the weight, or a base unlike `out`.
        SettingsError: SHINYMAS_LOHA_ROUTE names no route.
    """
    check(out, base, factors)
    ranks = (factors.rank1, factors.rank2)
    route = choose(out, ranks, base=base)
    if is_empty(out, factors):
        if out is not base:
            out.copy_(base)
        return route.name
    while not attempt(route, partial(run, route.name, out, base, factors, scale, workspace)):
        route = choose(out, ranks, base=base)
    return route.name


def run(route: str, out: Tensor, base: Tensor, factors: Factors, scale: float,
        workspace: Workspace | None = None) -> None:
    """`out = base + scale·ΔW` by this route; arguments as `check` wants them."""
    factors = on_device(factors, out.device)
    if route == FUSED_TRITON:
        from . import triton

        triton.merge_one(out, base, for_triton(factors), scale)
    elif route == CPU_BLOCKED:
        cpu.merge(out, base, factors, scale, workspace)
    elif route == GROUPED_TORCH:
        stacked.Stack([out], [base], [factors]).merge([out], [base], [scale])
    else:
        if out is not base:
            out.copy_(base)
        product.merge_(out, factors, scale)


def check(out: Tensor, base: Tensor, factors: Factors) -> None:
    """Raise ValueError unless the factors fit one another and the weight, and the base is like the weight."""
    factors.check()
    matrix = (out.shape[0], out.shape[1:].numel()) if out.dim() > 1 else tuple(out.shape)
    if matrix != factors.shape:
        raise ValueError(f"ΔW of shape {factors.shape} does not fit a weight of shape {tuple(out.shape)}")
    if (out.shape, out.dtype, out.device) != (base.shape, base.dtype, base.device):
        raise ValueError(f"a weight {_described(out)} cannot start from one {_described(base)}")


def is_empty(weight: Tensor, factors: Factors) -> bool:
    """Whether there is nothing to add: no element, or a product of rank 0."""
    return weight.numel() == 0 or 0 in (factors.rank1, factors.rank2)


def _described(weight: Tensor) -> str:
    return f"{tuple(weight.shape)} {weight.dtype} on {weight.device}"
