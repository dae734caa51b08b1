"""The merge's gradient in plain torch against float64 autograd."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shinymas_loha.loha.kernels import Factors, gradients
from shinymas_loha.tests.unit.kernels_helpers import (
    WEIGHT_DTYPES,
    assert_close_by_norm,
    extents,
    random_factors,
    ranks,
    relative_error,
    scales,
    seeds,
)


def autograd64(grad, factors, scale):
    """The four gradients of Σ grad∘ΔW, by autograd in float64."""
    leaves = [factor.double().cpu().requires_grad_() for factor in factors]
    a1, b1, a2, b2 = leaves
    return torch.autograd.grad((scale * (a1 @ b1) * (a2 @ b2) * grad.double().cpu()).sum(), leaves)


@example(seed=1, out=1, columns=1, rank1=1, rank2=1, scale=0.0625, inner=0, factor=torch.float16, flipped=False)
@settings(deadline=None, max_examples=60)
@given(seed=seeds, out=extents, columns=extents, rank1=ranks, rank2=ranks, scale=scales, inner=st.integers(0, 9),
       factor=st.sampled_from(WEIGHT_DTYPES), flipped=st.booleans())
def test_gradients(seed, out, columns, rank1, rank2, scale, inner, factor, flipped):
    factors = random_factors(seed, out, columns, rank1, rank2, factor)
    draw = torch.Generator().manual_seed(seed)
    if inner:
        grad = torch.randn(out, inner, generator=draw), torch.randn(inner, columns, generator=draw)
        whole = grad[0].double() @ grad[1].double()
    else:
        grad = torch.randn(columns, out, generator=draw).t() if flipped else torch.randn(out, columns, generator=draw)
        whole = grad
    found = gradients(grad, factors, scale)
    allowed = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}[factor]
    for one, truth, given_ in zip(found, autograd64(whole, factors, scale), factors, strict=True):
        assert one.dtype is given_.dtype and one.shape == given_.shape
        assert_close_by_norm(one, truth, allowed)


def test_several_blocks_of_rows_add_up():
    factors = random_factors(0, 700, 4000, 3, 5, torch.float64)
    grad = torch.randn(700, 4000, dtype=torch.float64)
    for one, truth in zip(gradients(grad, factors, 0.5), autograd64(grad, factors, 0.5), strict=True):
        assert relative_error(one, truth) <= 1e-12


def test_the_same_bits_every_time():
    factors = random_factors(1, 300, 200, 16, 16, torch.float32)
    grad = torch.randn(300, 200)
    first = gradients(grad, factors, 0.5)
    for _ in range(3):
        assert all(torch.equal(*pair) for pair in zip(gradients(grad, factors, 0.5), first, strict=True))


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_nothing_to_differentiate(shape):
    found = gradients(torch.zeros(shape), random_factors(0, *shape, 2, 3, torch.float32), 1.0)
    assert all(not factor.any() for factor in found)


@pytest.mark.parametrize("grad", [torch.zeros(6, 4), (torch.zeros(4, 3), torch.zeros(2, 6))])
def test_a_gradient_that_does_not_fit_is_refused(grad):
    with pytest.raises(ValueError, match="does not fit a ΔW"):
        gradients(grad, Factors(*random_factors(0, 4, 6, 2, 2, torch.float32)), 1.0)
