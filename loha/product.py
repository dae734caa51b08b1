"""The Hadamard product in plain torch: the reference that every faster path is held against.

`ΔW = (a1·b1) ∘ (a2·b2) · scale` (FedPara, Hyeon-Woo et al. 2022; as files, LyCORIS). All functions
work on flat factors, a (out, rank) and b (rank, columns) with columns = in·kernel; `flat_factors`
brings a Tucker module into that form. Products are accumulated in float32, or in float64 where an
operand is float64; a weight is rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .module import LohaModule
from .precision import full_precision

# Rows of ΔW are made in blocks of about this many numbers: 4 MiB of float32 a temporary.
_BLOCK = 1 << 20

Flat = tuple[Tensor, Tensor, Tensor, Tensor]


def accumulation_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """float64 if any is float64, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


@full_precision()
def flat_factors(module: LohaModule, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Flat:
    """Return a1 (out, r1), b1 (r1, in·kernel), a2, b2 on `device`, in the accumulation dtype unless told.

    A Tucker core is multiplied into its b: `b'[p, i, k] = Σ_q t[p, q, k] b[q, i]`, a' = aᵀ.
    """
    dtype = dtype or accumulation_dtype(module.w1_a.dtype)
    a1, b1, a2, b2 = (
        factor.to(device=device, dtype=dtype, non_blocking=True)
        for factor in (module.w1_a, module.w1_b, module.w2_a, module.w2_b)
    )
    if module.is_tucker:
        a1, b1 = a1.t(), _into_core(module.t1.to(device=device, dtype=dtype), b1)
        a2, b2 = a2.t(), _into_core(module.t2.to(device=device, dtype=dtype), b2)
    return a1, b1, a2, b2


@full_precision()
def delta(module: LohaModule, shape: torch.Size | tuple[int, ...] | None = None, *,
          dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """Return ΔW, scale included, in `shape` (default the module's own), rounded once to `dtype`."""
    a1, b1, a2, b2 = flat_factors(module, device, accumulation_dtype(module.w1_a.dtype, dtype))
    product = (a1 @ b1).mul_(a2 @ b2).mul_(module.scale)
    return product.reshape(shape or module.delta_shape).to(dtype or product.dtype)


@full_precision()
def merge_(weight: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, scale: float) -> Tensor:
    """`weight += scale · (a1·b1) ∘ (a2·b2)`, in place, one rounding a number; returns `weight`.

    `weight` (out, in, *kernel) may be any strided view; temporaries of about 12 MiB.
    """
    for rows, change in _delta_blocks(weight, a1, b1, a2, b2, scale):
        part = weight[rows]
        part.copy_(change.add_(part.to(change.dtype)))  # float8 promotes to nothing by itself
    return weight


@full_precision()
def merge_dora_(weight: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, scale: float,
                dora_scale: Tensor, strength: float) -> Tensor:
    """Weight-decomposed merge: `W += strength · (m · (W+ΔW)/‖W+ΔW‖ − W)`, in place.

    The norm is that of W+ΔW, as LyCORIS trains it (`apply_weight_decompose`); ComfyUI's core takes
    the norm of W. `dora_scale` m says by its shape whether norms run over rows or over input columns.

    Raises:
        ValueError: m fits neither axis; binding has ruled that out.
    """
    dtype = accumulation_dtype(weight.dtype)
    axis = dora_axis(dora_scale.shape, weight.shape)
    if axis is None:
        raise ValueError(f"dora_scale {tuple(dora_scale.shape)} does not fit a weight {tuple(weight.shape)}")
    magnitude = dora_scale.to(weight.device, dtype).flatten()
    epsilon = torch.finfo(torch.float32).eps
    trailing = [1] * (weight.dim() - 2)

    column_norm = None
    if axis == 1:
        squares = torch.zeros(weight.shape[1], dtype=dtype, device=weight.device)
        for rows, change in _delta_blocks(weight, a1, b1, a2, b2, scale):
            changed = change.add_(weight[rows].to(dtype)).square_()
            squares += changed.flatten(2).sum((0, 2)) if trailing else changed.sum(0)
        column_norm = squares.sqrt_().add_(epsilon)
    for rows, change in _delta_blocks(weight, a1, b1, a2, b2, scale):
        part = weight[rows].to(dtype)
        changed = change.add_(part)
        if column_norm is None:
            norm = changed.flatten(1).norm(dim=1).add_(epsilon)
            changed *= (magnitude[rows] / norm).view(-1, 1, *trailing)
        else:
            changed *= (magnitude / column_norm).view(1, -1, *trailing)
        weight[rows] = changed.sub_(part).mul_(strength).add_(part)
    return weight


def dora_axis(scale_shape: torch.Size | tuple[int, ...], shape: torch.Size | tuple[int, ...]) -> int | None:
    """0 when a DoRA scale has a number for each output, 1 for each input channel, None when it fits neither."""
    out, columns, *kernel = tuple(scale_shape) + (1,) * (2 - len(scale_shape))
    if len(shape) < 2 or any(size != 1 for size in kernel):
        return None
    if (out, columns) == (shape[0], 1):
        return 0
    return 1 if (out, columns) == (1, shape[1]) else None


@full_precision()
def gradients(grad: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, scale: float) -> Flat:
    """The gradients of a1, b1, a2, b2 from `grad` = ∂L/∂ΔW (out, columns), in the accumulation dtype.

    `∂a1 = s·(G∘P2)·b1ᵀ`, `∂b1 = s·a1ᵀ·(G∘P2)` with P2 = a2·b2, and the same with 1 and 2 exchanged;
    P1 and P2 exist only a block of rows at a time.
    """
    dtype = accumulation_dtype(grad.dtype, a1.dtype)
    a1, b1, a2, b2 = (factor.to(dtype) for factor in (a1, b1, a2, b2))
    grad_a1, grad_b1, grad_a2, grad_b2 = (torch.zeros_like(factor) for factor in (a1, b1, a2, b2))
    for rows in _row_blocks(*grad.shape):
        block = grad[rows].to(dtype) * scale
        through = block * (a2[rows] @ b2)
        torch.mm(through, b1.t(), out=grad_a1[rows])
        grad_b1.addmm_(a1[rows].t(), through)
        through = block.mul_(a1[rows] @ b1)
        torch.mm(through, b2.t(), out=grad_a2[rows])
        grad_b2.addmm_(a2[rows].t(), through)
    return grad_a1, grad_b1, grad_a2, grad_b2


def core_gradients(core: Tensor, b: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Through `b' = t·b` of a Tucker module: from ∂b' (rank, in·kernel) to ∂t and ∂b."""
    spread = grad.reshape(core.shape[0], b.shape[1], -1)
    flat_core = core.flatten(2)
    grad_core = torch.einsum("pik,qi->pqk", spread, b).reshape(core.shape)
    return grad_core, torch.einsum("pqk,pik->qi", flat_core, spread)


@full_precision()
def squared_norm(module: LohaModule, device: torch.device | None = None) -> float:
    """‖ΔW‖² (Frobenius), scale included, without holding ΔW."""
    a1, b1, a2, b2 = flat_factors(module, device)
    total = torch.zeros((), dtype=torch.float64, device=a1.device)
    for rows in _row_blocks(a1.shape[0], b1.shape[1]):
        total += (a1[rows] @ b1).mul_(a2[rows] @ b2).norm(dim=1).double().square_().sum()
    return float(total) * module.scale**2


@full_precision()
def largest(module: LohaModule, device: torch.device | None = None) -> float:
    """max |ΔW|, scale included; inf or NaN where the product is not finite."""
    a1, b1, a2, b2 = flat_factors(module, device)
    peaks = [
        (a1[rows] @ b1).mul_(a2[rows] @ b2).mul_(module.scale).abs_().max()
        for rows in _row_blocks(a1.shape[0], b1.shape[1])
    ]
    return float(torch.stack(peaks).max())


def _into_core(core: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("pqk,qi->pik", core.flatten(2), b).flatten(1)


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _delta_blocks(weight: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor,
                  scale: float) -> Iterator[tuple[slice, Tensor]]:
    dtype = accumulation_dtype(weight.dtype, a1.dtype)
    a1, b1, a2, b2 = (factor.to(weight.device, dtype) for factor in (a1, b1, a2, b2))
    a1 = a1 * scale  # on the small factor: one pass over ΔW less
    for rows in _row_blocks(weight.shape[0], b1.shape[1]):
        yield rows, (a1[rows] @ b1).mul_(a2[rows] @ b2).view(-1, *weight.shape[1:])
