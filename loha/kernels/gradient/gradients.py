"""The gradient of the merge with respect to its four factors."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision
from ..route import MAX_RANK, TRITON_ROUTES, attempt, choose

# Elements of a block of rows: two such temporaries, 4 MB in float32.
_BLOCK = 1 << 19


def gradients(grad: Tensor | tuple[Tensor, Tensor], factors: Factors, scale: float) -> Factors:
    """∂L/∂w1_a, ∂w1_b, ∂w2_a, ∂w2_b of a loss L through `ΔW = scale · (w1_a·w1_b)∘(w2_a·w2_b)`.

    Args:
        grad: G = ∂L/∂ΔW (out, in·kernel); or two operands whose product it is, (out, n) and
            (n, in·kernel), which pays for small n, such as a batch of one vector a picture:
            G then never exists as a whole.
        factors: flat factors on G's device.
        scale: alpha / rank.

    `∂w1_a = s·(G∘P2)·w1_bᵀ`, `∂w1_b = s·w1_aᵀ·(G∘P2)` with P2 = w2_a·w2_b, and the same with 1 and
    2 exchanged (LyCORIS' `HadaWeight`, there over whole products). Neither product nor anything else
    of the weight's size is made. Sums are float32 (float64 for float64 factors) in a fixed order:
    deterministic. Results have the factors' dtype.

    Raises:
        ValueError: shapes that do not fit.
    """
    factors.check()
    shape = grad.shape if isinstance(grad, Tensor) else (grad[0].shape[0], grad[1].shape[1])
    if tuple(shape) != factors.shape or (not isinstance(grad, Tensor) and grad[0].shape[1] != grad[1].shape[0]):
        raise ValueError(f"a gradient of shape {tuple(shape)} does not fit a ΔW of shape {factors.shape}")
    found = []
    if 0 not in (*shape, factors.rank1, factors.rank2):
        sample = grad if isinstance(grad, Tensor) else grad[0]
        inner = 1 if isinstance(grad, Tensor) else sample.shape[1]
        while not found:
            route = choose(sample, (factors.rank1, factors.rank2))
            fits = route.name in TRITON_ROUTES and factors.dtype is not torch.float64 and 0 < inner <= MAX_RANK
            if not fits:
                break
            attempt(route, partial(_with_triton, grad, factors, scale, found))
    result = found[0] if found else in_blocks(grad, factors, scale)
    return Factors(*(one.to(factor.dtype) for one, factor in zip(result, factors, strict=True)))


@full_precision()
def in_blocks(grad: Tensor | tuple[Tensor, Tensor], factors: Factors, scale: float) -> Factors:
    """`gradients` in plain torch on any device, a block of rows at a time."""
    dtype = torch.float64 if factors.dtype is torch.float64 else torch.float32
    left, right = factors.stacked(dtype)
    other_left, other_right = left.flip(0), right.flip(0)
    grad_left, grad_right = torch.empty_like(left), torch.zeros_like(right)
    rows, columns = factors.shape
    step = max(1, _BLOCK // max(1, columns))
    operand = None if isinstance(grad, Tensor) else grad[1].to(dtype)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        g = grad[block].to(dtype) if operand is None else grad[0][block].to(dtype) @ operand
        # G∘P2, which is for the first product's factors, and G∘P1: both sides of a sum in one call each.
        through = torch.bmm(other_left[:, block], other_right).mul_(g)
        torch.bmm(through, right.mT, out=grad_left[:, block])
        grad_right.baddbmm_(left[:, block].mT, through)
    grads = []
    for place, rank in enumerate((factors.rank1, factors.rank2)):
        grads += [grad_left[place, :, :rank] * scale, grad_right[place, :rank] * scale]
    return Factors(*grads)


def _with_triton(
    grad: Tensor | tuple[Tensor, Tensor], factors: Factors, scale: float, found: list[Factors]
) -> None:
    from . import triton

    found.append(triton.gradients(_of_one_dtype(grad), factors.uniform(), scale))


def _of_one_dtype(grad: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(grad, Tensor):
        return grad
    dtype = torch.promote_types(grad[0].dtype, grad[1].dtype)
    return grad[0].to(dtype), grad[1].to(dtype)
