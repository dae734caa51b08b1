"""ΔW and its gradients in plain torch, over whole products: what the pack's own code is held against."""

from __future__ import annotations

import torch
from shinymas_loha.loha.factors import Factors
from shinymas_loha.loha.module import LohaModule
from shinymas_loha.loha.precision import full_precision
from shinymas_loha.loha.product import accumulation_dtype, flat_factors
from torch import Tensor


@full_precision()
def delta(module: LohaModule, shape: torch.Size | tuple[int, ...] | None = None, *,
          dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """Return ΔW, scale included, in `shape` (default the module's own), rounded once to `dtype`."""
    w1_a, w1_b, w2_a, w2_b = flat_factors(module, device, accumulation_dtype(module.w1_a.dtype, dtype))
    product = (w1_a @ w1_b).mul_(w2_a @ w2_b).mul_(module.scale)
    return product.reshape(shape or module.delta_shape).to(dtype or product.dtype)


@full_precision()
def gradients(grad: Tensor, factors: Factors, scale: float) -> Factors:
    """The gradients of the factors from `grad` = ∂L/∂ΔW (out, columns), in the accumulation dtype.

    `∂w1_a = s·(G∘P2)·w1_bᵀ`, `∂w1_b = s·w1_aᵀ·(G∘P2)` with P2 = w2_a·w2_b, and the same with 1 and 2 exchanged.
    """
    dtype = accumulation_dtype(grad.dtype, factors.dtype)
    w1_a, w1_b, w2_a, w2_b = factors.cast(dtype)
    grad = grad.to(dtype) * scale
    through_2, through_1 = grad * (w2_a @ w2_b), grad * (w1_a @ w1_b)
    return Factors(through_2 @ w1_b.t(), w1_a.t() @ through_2, through_1 @ w2_b.t(), w2_a.t() @ through_1)


def core_gradients(core: Tensor, b: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Through `b' = t·b` of a Tucker module: from ∂b' (rank, in·kernel) to ∂t and ∂b."""
    spread = grad.reshape(core.shape[0], b.shape[1], -1)
    flat_core = core.flatten(2)
    grad_core = torch.einsum("pik,qi->pqk", spread, b).reshape(core.shape)
    return grad_core, torch.einsum("pqk,pik->qi", flat_core, spread)
