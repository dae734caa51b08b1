"""The forward pass of a layer with a LoHa on it, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ... import kernels
from ...factors import Factors

Product = TypeVar("Product")
# Such as one time embedding a picture.
_FEW = 32


def merged_forward(layer: nn.Linear | nn.Conv2d, x: Tensor, factors: Factors, scale: float, *,
                   frugal: bool = False) -> Tensor:
    """`layer(x)` with the weight `W + scale · (w1_a·w1_b) ∘ (w2_a·w2_b)`, in autocast's dtype if it is on, else x's.

    On a GPU no tensor of the weight's size is kept for backward: W + ΔW is computed there again. A CPU,
    which has more memory and takes longer, keeps it until then, unless `frugal`. The weight and bias are
    only read and get no gradient.
    """
    return _Merged.apply(x.to(dtype_of(x)), *factors, layer, scale, x.device.type == "cpu" and not frugal)


def dtype_of(x: Tensor) -> torch.dtype:
    """In which dtype a layer computes: autocast's if it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def through(layer: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """`layer(x)` with another weight, in x's dtype."""
    bias = None if layer.bias is None else layer.bias.to(x.device, x.dtype)
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)


def back_through(
    layer: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor | None, grad: Tensor, wants_x: bool, wants_weight: bool,
    outer: Callable[[Tensor, Tensor], Product],
) -> tuple[Tensor | None, Product | Tensor | None]:
    """∂L/∂x and ∂L/∂W (out, in·kernel) of `through`, each where it is wanted.

    Args:
        weight: not needed by a Linear whose x wants no gradient.
        grad: ∂L/∂y.
        outer: makes ∂L/∂W of a Linear out of grad's rows (n, out) and x's (n, in).
    """
    if isinstance(layer, nn.Linear):
        rows = grad.reshape(-1, grad.shape[-1])
        return ((rows @ weight).view(x.shape) if wants_x else None,
                outer(rows, x.reshape(-1, x.shape[-1])) if wants_weight else None)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, layer.stride, layer.padding, layer.dilation, False, (0, 0), 1,
        (wants_x, wants_weight, False))
    return grad_x, grad_weight.flatten(1) if wants_weight else None


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor,
                layer: nn.Linear | nn.Conv2d, scale: float, keeps: bool) -> Tensor:
        ctx.save_for_backward(x, w1_a, w1_b, w2_a, w2_b)
        # Held aside, not saved: it is shared with the loaded model and autograd need not watch it.
        ctx.layer, ctx.scale = layer, scale
        weight = _merged(layer, x, Factors(w1_a, w1_b, w2_a, w2_b), scale)
        ctx.merged = weight if keeps and ctx.needs_input_grad[0] else None
        return through(layer, x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor):
        x, *factors = ctx.saved_tensors
        layer, scale = ctx.layer, ctx.scale
        wants_x, wants_factors = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5])
        with torch.autocast(x.device.type, enabled=False):
            # The graph may outlive its backward: what it held goes here.
            weight, ctx.merged = ctx.merged, None
            if weight is None and wants_x:
                weight = _merged(layer, x, Factors(*factors), scale)
            if weight is None and not isinstance(layer, nn.Linear):
                weight = layer.weight.to(x.device, x.dtype)  # of which only the shape is asked
            grad_x, grad_weight = back_through(layer, x, weight, grad, wants_x, wants_factors, _outer)
            grads = kernels.gradients(grad_weight, Factors(*factors), scale) if wants_factors else (None,) * 4
        return grad_x, *grads, None, None, None


def _merged(layer: nn.Module, x: Tensor, factors: Factors, scale: float) -> Tensor:
    base = layer.weight.detach().to(x.device, x.dtype)
    weight = torch.empty_like(base)
    # Autocast would round the products; backward, which runs without it, would then see other weights.
    with torch.autocast(x.device.type, enabled=False):
        kernels.merge(weight, base, factors, scale)
    return weight


def _outer(rows: Tensor, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """∂L/∂W = rowsᵀ·x, left as its two operands where they are so few rows that the product never pays."""
    return (rows.t(), x) if rows.shape[0] <= _FEW else rows.t() @ x
