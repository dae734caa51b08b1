"""Random merges for the kernels' tests, their float64 truth, and what counts as right."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from shinymas_loha.loha.kernels import Factors
from torch import Tensor

WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "rows apart", "columns apart", "transposed", "conv", "channels last")

extents = st.integers(1, 150)
ranks = st.integers(1, 40)
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.0625, 0.7, -1.3, 0.0])


def random_factors(seed: int, out: int, columns: int, rank1: int, rank2: int, dtype: torch.dtype,
                   device: str = "cpu") -> Factors:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((out, rank1), (rank1, columns), (out, rank2), (rank2, columns))
    return Factors(*(torch.randn(shape, generator=draw).mul(0.3).to(device, dtype) for shape in shapes))


def random_weight(seed: int, out: int, inputs: int, layout: str, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """A weight (out, inputs), or (out, inputs, 3, 2) for the convolutions, lying in memory as told."""
    draw = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(device, dtype)

    if layout == "rows apart":
        return normal(out, inputs + 5)[:, 2 : inputs + 2]
    if layout == "columns apart":
        return normal(out, 2 * inputs)[:, ::2]
    if layout == "transposed":
        return normal(inputs, out).t()
    if layout == "conv":
        return normal(out, inputs, 3, 2)
    if layout == "channels last":
        return normal(out, inputs, 3, 2).to(memory_format=torch.channels_last)
    return normal(out, inputs)


def delta64(factors: Factors) -> Tensor:
    a1, b1, a2, b2 = (factor.double().cpu() for factor in factors)
    return (a1 @ b1) * (a2 @ b2)


def merged64(base: Tensor, factors: Factors, scale: float) -> Tensor:
    return base.double().cpu() + scale * delta64(factors).view(base.shape)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """‖found − truth‖ / ‖truth‖ (Frobenius), in float64."""
    return float((found.double().cpu() - truth).norm() / truth.norm().clamp_min(1e-30))


def assert_close_by_norm(found: Tensor, truth: Tensor, allowed: float) -> None:
    """‖found − truth‖ within `allowed` of ‖truth‖, or each number as close as float16's smallest ones lie."""
    closest = 2**-24 if found.dtype is torch.float16 else 0.0
    apart = float((found.double().cpu() - truth).abs().max())
    assert relative_error(found, truth) <= allowed or apart <= closest


def assert_merged(found: Tensor, truth: Tensor) -> None:
    """float32: within 1e-5 of the float64 truth, by norm. Halves: each number within one unit in the last
    place of the truth correctly rounded, or closer to the truth than that where terms cancel."""
    if found.dtype is torch.float32:
        assert relative_error(found, truth) <= 1e-5
        return
    rounded = truth.to(found.dtype)
    ulps = (_steps(found.cpu()) - _steps(rounded)).abs()
    cancelled = (found.double().cpu() - truth).abs() <= 1e-6 * truth.abs().max()
    assert bool(((ulps <= 1) | cancelled).all()), f"{int(ulps.max())} units in the last place"


def _steps(values: Tensor) -> Tensor:
    """Each half as its place in the order of all halves of its dtype."""
    bits = values.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
