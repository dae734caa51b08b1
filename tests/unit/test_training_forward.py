"""What a layer's forward and backward have in common, and what they leave in memory."""

import gc
import weakref

import pytest
import torch
from shinymas_loha.loha import kernels
from shinymas_loha.loha.training.network import forward
from shinymas_loha.tests.unit.kernels_helpers import assert_merged, merged64, random_factors


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(64, 48, bias=False).requires_grad_(False)


def _factors(scale=1.0):
    return [factor.mul(scale).requires_grad_() for factor in random_factors(0, 48, 64, 4, 4, torch.float32)]


@pytest.mark.parametrize("route", ["cpu-blocked", "grouped-torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_forward_and_backward_see_the_same_weight_rounded_once(layer, route, dtype, monkeypatch):
    """Autocast, which is on in the one and off in the other, must not reach the products."""
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", route)
    seen = []
    merge = kernels.merge
    monkeypatch.setattr(kernels, "merge", lambda out, *rest: (merge(out, *rest), seen.append(out.detach().clone())))
    factors, x = _factors(), torch.randn(3, 64, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = forward.merged_forward(layer, x, factors, 0.5, frugal=True)
    y.float().sum().backward()
    there, back = seen
    assert torch.equal(there, back)
    half = layer.weight.to(dtype)
    assert_merged(there, merged64(half, kernels.Factors(*(factor.detach() for factor in factors)), 0.5))


@pytest.mark.parametrize("frugal", [False, True])
def test_a_merged_weight_is_kept_for_one_backward_at_most(layer, frugal, monkeypatch):
    weights = []
    merged = forward._merged

    def watched(*args):
        weight = merged(*args)
        weights.append(weakref.ref(weight))
        return weight

    def alive():
        gc.collect()
        return sum(weight() is not None for weight in weights)

    monkeypatch.setattr(forward, "_merged", watched)
    factors = _factors()
    loss = forward.merged_forward(layer, torch.randn(3, 64, requires_grad=True), factors, 0.5, frugal=frugal).sum()
    assert alive() == (0 if frugal else 1)
    loss.backward(retain_graph=True)
    assert alive() == 0, "the loss, which a loop may hold, does not hold the weights"
    first = [factor.grad.clone() for factor in factors]
    loss.backward()
    assert all(torch.allclose(factor.grad, 2 * one) for factor, one in zip(factors, first, strict=True))
