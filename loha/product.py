"""The Hadamard product in plain torch: the reference that every faster path is held against.

`ΔW = (w1_a·w1_b) ∘ (w2_a·w2_b) · scale` (FedPara, Hyeon-Woo et al. 2022; as files, LyCORIS). All
functions work on flat `Factors`; `flat_factors` brings a Tucker module into that form. Products are
accumulated in float32, or in float64 where an operand is float64; a weight is rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from math import inf, isfinite, prod

import torch
from torch import Tensor

from .factors import Factors, through_core
from .module import LohaModule
from .precision import full_precision

# Rows of ΔW are made in blocks of about this many numbers: 4 MiB of float32 a temporary.
_BLOCK = 1 << 20
_SAMPLED_ROWS, _SAMPLED_COLUMNS = 64, 512  # of an estimate


def accumulation_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """float64 if any is float64, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


@full_precision()
def flat_factors(module: LohaModule, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Factors:
    """The module's flat factors on `device`, in the accumulation dtype unless told."""
    dtype = dtype or accumulation_dtype(module.w1_a.dtype)
    w1_a, w1_b, w2_a, w2_b = module.factors.cast(dtype, device)
    if module.is_tucker:
        w1_a, w1_b = w1_a.t(), through_core(module.t1.to(device=device, dtype=dtype), w1_b)
        w2_a, w2_b = w2_a.t(), through_core(module.t2.to(device=device, dtype=dtype), w2_b)
    return Factors(w1_a, w1_b, w2_a, w2_b)


@full_precision()
def merge_(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """`weight += scale · (w1_a·w1_b) ∘ (w2_a·w2_b)`, in place, one rounding a number; returns `weight`.

    `weight` (out, in, *kernel) may be any strided view; temporaries of about 12 MiB.
    """
    for rows, change in _delta_blocks(weight, factors, scale):
        part = weight[rows]
        part.copy_(change.add_(part.to(change.dtype)))  # float8 promotes to nothing by itself
    return weight


@full_precision()
def merge_dora_(weight: Tensor, factors: Factors, scale: float, dora_scale: Tensor, strength: float,
                held: Callable[[int], None] = lambda count: None) -> Tensor:
    """Weight-decomposed merge: `W += strength · (m · (W+ΔW)/‖W+ΔW‖ − W)`, in place.

    The norm is that of W+ΔW, as LyCORIS trains it (`apply_weight_decompose`); ComfyUI's core takes
    the norm of W. `dora_scale` m says by its shape whether norms run over rows or over input columns,
    and see `dora_by_mean`.

    Args:
        held: is told how many numbers a division by means made too large, and were held at the edge.

    Raises:
        ValueError: m fits neither axis; binding has ruled that out.
    """
    dtype = accumulation_dtype(weight.dtype)
    axis = dora_axis(dora_scale.shape, weight.shape)
    if axis is None:
        raise ValueError(f"dora_scale {tuple(dora_scale.shape)} does not fit a weight {tuple(weight.shape)}")
    if dora_by_mean(dora_scale):
        return _merge_dora_by_mean_(weight, factors, scale, dora_scale.to(weight.device, dtype), strength, held)
    magnitude = dora_scale.to(weight.device, dtype).flatten()
    epsilon = torch.finfo(torch.float32).eps
    trailing = [1] * (weight.dim() - 2)

    column_norm = None
    if axis == 1:
        squares = torch.zeros(weight.shape[1], dtype=dtype, device=weight.device)
        for rows, change in _delta_blocks(weight, factors, scale):
            changed = change.add_(weight[rows].to(dtype)).square_()
            squares += changed.flatten(2).sum((0, 2)) if trailing else changed.sum(0)
        column_norm = squares.sqrt_().add_(epsilon)
    for rows, change in _delta_blocks(weight, factors, scale):
        part = weight[rows].to(dtype)
        changed = change.add_(part)
        if column_norm is None:
            norm = changed.flatten(1).norm(dim=1).add_(epsilon)
            changed *= (magnitude[rows] / norm).view(-1, 1, *trailing)
        else:
            changed *= (magnitude / column_norm).view(1, -1, *trailing)
        weight[rows] = changed.sub_(part).mul_(strength).add_(part)
    return weight


def _merge_dora_by_mean_(weight: Tensor, factors: Factors, scale: float, means: Tensor, strength: float,
                         held: Callable[[int], None]) -> Tensor:
    """`W += strength · (m · (W+ΔW)/mean(W+ΔW) − W)`, the mean over whatever `means` has one number for."""
    means = means.view(*means.shape, *[1] * (weight.dim() - means.dim()))
    total = torch.zeros(1, *weight.shape[1:], dtype=means.dtype, device=weight.device)
    for rows, change in _delta_blocks(weight, factors, scale):
        total += change.add_(weight[rows].to(change.dtype)).sum(0, keepdim=True)
    mean = total / weight.shape[0]
    if means.shape != mean.shape:
        mean = mean.mean(dim=tuple(range(2, weight.dim())), keepdim=True)
    epsilon = torch.finfo(torch.float32).eps
    factor = means / mean.where(mean.abs() > epsilon, torch.full_like(mean, epsilon))
    # A mean may be next to nothing where a norm is not, and a core may round what is made here to float16.
    limit = max(torch.finfo(torch.float16).max, float(weight.abs().max()) if weight.element_size() > 1 else 0.0)
    beyond = torch.zeros((), dtype=torch.int64, device=weight.device)
    for rows, change in _delta_blocks(weight, factors, scale):
        part = weight[rows].to(change.dtype)
        changed = change.add_(part).mul_(factor).sub_(part).mul_(strength).add_(part)
        beyond += (~(changed.abs() <= limit)).sum()
        changed.clamp_(-limit, limit)
        weight[rows] = changed.where(changed.isfinite(), part)
    if count := int(beyond):
        held(count)
    return weight


def dora_by_mean(dora_scale: Tensor) -> bool:
    """Whether a DoRA scale (1, in, …) holds means of the weight instead of norms, as LyCORIS's first ones do.

    A norm has one number for a whole kernel, and none below zero; of means about half are.
    """
    if dora_scale.dim() < 2 or dora_scale.shape[0] != 1:
        return False
    return dora_scale.shape[2:].numel() > 1 or bool((dora_scale.float() < 0).double().mean() > 0.1)


def dora_axis(scale_shape: torch.Size | tuple[int, ...], shape: torch.Size | tuple[int, ...]) -> int | None:
    """0 when a DoRA scale has a number for each output, 1 for each input channel, None when it fits neither."""
    if len(shape) > 2 and tuple(scale_shape) == (1, *shape[1:]):
        return 1
    out, columns, *kernel = tuple(scale_shape) + (1,) * (2 - len(scale_shape))
    if len(shape) < 2 or any(size != 1 for size in kernel):
        return None
    if (out, columns) == (shape[0], 1):
        return 0
    return 1 if (out, columns) == (1, shape[1]) else None


@full_precision()
def squared_norms(modules: Iterable[LohaModule], device: torch.device | None = None) -> list[float]:
    """‖ΔW‖² (Frobenius) of each module, scale included, without holding ΔW; computed once for each module.

    Summed in float64 on the CPU, which not every device has; inf where it ends beyond that. What is summed comes from
    the device in one piece: each wait for a GPU costs more than a module's product.
    """
    modules = list(modules)
    missing = [module for module in modules if "squared_norm" not in module.memo]
    rows = [list(_row_norms(flat_factors(module, device))) for module in missing]
    parts = [part for of_module in rows for part in of_module]
    here = iter(torch.cat(parts, 1).cpu().double().split([part.shape[1] for part in parts], 1) if parts else ())
    for module, of_module in zip(missing, rows, strict=True):
        total = sum(float((norms * peaks).square_().sum()) for norms, peaks in islice(here, len(of_module)))
        module.memo["squared_norm"] = total * module.scale * module.scale
    return [module.memo["squared_norm"] for module in modules]


def _row_norms(factors: Factors) -> Iterator[Tensor]:
    """For some rows of the product at a time (2, rows): norms of each over its largest number, and that number."""
    for _, block in _product_blocks(factors):
        # By the row's largest number first: squares of 1e20 are beyond float32.
        peaks = block.abs().amax(dim=1, keepdim=True).clamp_min_(torch.finfo(block.dtype).tiny)
        yield torch.stack([block.div_(peaks).norm(dim=1), peaks.flatten()])


@full_precision()
def estimated_squared_norm(module: LohaModule) -> float:
    """‖ΔW‖² (Frobenius) from some of ΔW's rows and columns, evenly spread: within some per cent.

    Costs the same for a product of any size: the shapes of a file that has met no model are a stranger's.
    """
    out, columns = module.delta_shape[:2]
    kernel = prod(module.kernel)
    rows, few = _spread(out, _SAMPLED_ROWS), _spread(columns, max(1, _SAMPLED_COLUMNS // kernel))
    along = 1 if module.is_tucker else 0
    some = replace(module, w1_a=module.w1_a.index_select(along, rows), w1_b=module.w1_b[:, few],
                   w2_a=module.w2_a.index_select(along, rows), w2_b=module.w2_b[:, few])
    # In float64 no square of a float32 number is too large.
    total = sum(float(block.square_().sum()) for _, block in _product_blocks(flat_factors(some, dtype=torch.float64)))
    return total * (out / len(rows)) * (columns / len(few)) * module.scale * module.scale


def _spread(size: int, most: int) -> Tensor:
    """Up to `most` of the numbers below `size`, evenly spread."""
    return torch.linspace(0, size - 1, min(size, most), dtype=torch.float64).round().long()


@full_precision()
def largest(module: LohaModule, strength: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """max |strength · ΔW|, scale included, as merging in `dtype` finds it; inf or NaN where a step is not finite.

    Routes multiply by the scale first or last: both ways count.
    """
    factors, scale = flat_factors(module, dtype=dtype), module.scale * strength
    scaled = factors._replace(w1_a=factors.w1_a * scale)
    first, last = (float(torch.stack([block.abs_().max() for _, block in _product_blocks(ways)]).max())
                   for ways in (scaled, factors))
    finite = abs(scale) <= torch.finfo(dtype).max and isfinite(last)
    return first if finite else inf


def _product_blocks(factors: Factors) -> Iterator[tuple[slice, Tensor]]:
    """(w1_a·w1_b) ∘ (w2_a·w2_b), some rows at a time: which rows, and the product there."""
    w1_a, w1_b, w2_a, w2_b = factors
    rows, columns = factors.shape
    step = max(1, _BLOCK // max(1, columns))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        yield block, (w1_a[block] @ w1_b).mul_(w2_a[block] @ w2_b)


def _delta_blocks(weight: Tensor, factors: Factors, scale: float) -> Iterator[tuple[slice, Tensor]]:
    dtype = accumulation_dtype(weight.dtype, factors.dtype)
    factors = Factors(*(factor.to(weight.device, dtype) for factor in factors))
    factors = factors._replace(w1_a=factors.w1_a * scale)  # on the small factor: one pass over ΔW less
    for rows, block in _product_blocks(factors):
        yield rows, block.view(-1, *weight.shape[1:])
