"""Layers merged together and their gradients, beside each by itself in float64. Run as `against_float64.py` is."""

import os
from contextlib import nullcontext

import pytest
import torch
from shinymas_loha.loha.kernels import Factors
from shinymas_loha.loha.kernels.route import _failed
from shinymas_loha.loha.training.network import grouped
from shinymas_loha.loha.training.network.parameters import LohaParameters
from shinymas_loha.loha.training.network.recomputation import forget_input, frugal_forward
from shinymas_loha.tests.unit.kernels_helpers import assert_merged, merged64, relative_error
from torch import nn

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
ALPHA = 2.0


@pytest.fixture(autouse=True)
def _forced(monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", "grouped-triton")
    yield
    _failed.clear()


def _network(rank, dtype=torch.float32, wide=False):
    """Layers of odd and even extents, wider than a program's span, with kernels; their factors."""
    torch.manual_seed(rank)
    layers = {
        "even": nn.Linear(64, 40), "odd": nn.Linear(37, 21, bias=False), "wide": nn.Linear(344 if wide else 72, 24),
        "conv": nn.Conv2d(5, 9, 3, padding=1), "point": nn.Conv2d(8, 16, 1), "tucker": nn.Conv2d(4, 6, 3, padding=1),
    }
    factors = nn.ModuleDict()
    for name, layer in layers.items():
        layer.requires_grad_(False).to(DEVICE, dtype)
        factors[name] = LohaParameters(layer.weight.shape, rank, ALPHA, tucker=name == "tucker")
        for parameter in factors[name].parameters():
            nn.init.normal_(parameter, 0, 0.3)
    return layers, factors.to(DEVICE)


def _input(name, layer, batch=3):
    torch.manual_seed(len(name))
    shape = (batch, 7, layer.in_features) if isinstance(layer, nn.Linear) else (batch, layer.in_channels, 5, 6)
    return torch.randn(shape).to(DEVICE)


def _parameters(factors):
    return Factors(factors.hada_w1_a, factors.hada_w1_b, factors.hada_w2_a, factors.hada_w2_b)


def _expected(layer, factors, x):
    """y, and the gradients of x and the factors for a loss of Σ y²/2, in float64."""
    leaves = [one.detach().double().cpu().requires_grad_() for one in _parameters(factors)]
    x = x.detach().double().cpu().requires_grad_()
    a1, b1, a2, b2 = leaves
    weight = layer.weight.double().cpu() + factors.scale * ((a1 @ b1) * (a2 @ b2)).view(layer.weight.shape)
    bias = None if layer.bias is None else layer.bias.double().cpu()
    y = (nn.functional.linear(x, weight, bias) if isinstance(layer, nn.Linear)
         else nn.functional.conv2d(x, weight, bias, padding=layer.padding))
    return y, torch.autograd.grad(y.square().sum() / 2, (x, *leaves))


def _close(found, truth, allowed):
    assert relative_error(found.detach(), truth.detach()) <= allowed


@pytest.mark.parametrize("rank", [3, 16, 20] if INTERPRETED else [1, 3, 16, 20, 32, 33, 64, 128])
@pytest.mark.parametrize("half", [False, True])
def test_values_and_gradients_are_those_of_float64(rank, half):
    layers, factors = _network(rank, wide=rank == 16)
    together = grouped.GroupedLayers(layers, factors)
    allowed = 2e-2 if half else 2e-5
    loss = 0
    inputs, outputs = {}, {}
    with torch.autocast(DEVICE, torch.bfloat16) if half else nullcontext():
        for name, layer in layers.items():
            x = inputs[name] = _input(name, layer).requires_grad_()
            assert together.covers(name, x) == (name != "tucker")
            if name != "tucker":
                outputs[name] = together.forward(name, x)
                assert outputs[name].dtype is (torch.bfloat16 if half else torch.float32)
                loss = loss + outputs[name].float().square().sum() / 2
    loss.backward()
    for name, y in outputs.items():
        expected, (grad_x, *grads) = _expected(layers[name], factors[name], inputs[name])
        _close(y, expected, allowed)
        _close(inputs[name].grad, grad_x, allowed)
        for parameter, truth in zip(_parameters(factors[name]), grads, strict=True):
            _close(parameter.grad, truth, allowed)
    assert all(parameter.grad is None for parameter in factors["tucker"].parameters())
    assert not _failed


def test_a_half_model_is_merged_with_one_rounding():
    layers, factors = _network(8, torch.float16)
    together = grouped.GroupedLayers(layers, factors)
    for name, layer in layers.items():
        x = _input(name, layer)
        for dtype in (torch.float16, torch.float32):
            if together.covers(name, x.to(dtype)):
                weight = together._weights[dtype].merged[name]
                flat = Factors(*(one.detach() for one in _parameters(factors[name])))
                assert_merged(weight, merged64(layer.weight.to(dtype), flat, factors[name].scale))


def test_batches_of_a_step_add_up_and_a_module_used_twice_counts_twice():
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = {name: _input(name, layer) for name, layer in layers.items()}

    def step(*names):
        loss = 0
        for name in names:
            assert together.covers(name, x[name])
            loss = loss + together.forward(name, x[name]).square().sum() / 2
        loss.backward()

    step("even", "odd")
    step("even", "even", "conv")
    for name, times in (("even", 3), ("odd", 1), ("conv", 1)):
        _, (_, *grads) = _expected(layers[name], factors[name], x[name])
        for parameter, truth in zip(_parameters(factors[name]), grads, strict=True):
            _close(parameter.grad, times * truth, 2e-5)
    assert factors["wide"].hada_w1_a.grad is None, "what no loss asked for has no gradient"
    # Another's tensor, such as the mean over processes.
    for parameter in factors["odd"].parameters():
        parameter.grad = torch.ones_like(parameter)
    step("odd")
    _, (_, *grads) = _expected(layers["odd"], factors["odd"], x["odd"])
    for parameter, truth in zip(_parameters(factors["odd"]), grads, strict=True):
        _close(parameter.grad, truth + 1, 2e-5)


def test_an_input_that_is_made_again_gives_the_same_bits():
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    norm = nn.LayerNorm(64).requires_grad_(False).to(DEVICE)
    found = []
    for layer_norm in (norm, frugal_forward(norm)):
        x = _input("even", layers["even"]).requires_grad_()
        with torch.autocast(DEVICE, torch.bfloat16):
            normed = layer_norm(x * 1)
            assert together.covers("even", normed)
            y = together.forward("even", normed)
            if layer_norm is not norm:
                forget_input(y, normed)
        y.float().square().sum().backward()
        found.append([x.grad, *(parameter.grad.clone() for parameter in _parameters(factors["even"]))])
        factors.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_changed_factors_are_seen_and_those_changed_behind_torch_s_back_after_forget():
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"])

    def error():
        assert together.covers("even", x)
        with torch.no_grad():
            found = together.forward("even", x)
        return relative_error(found, _expected(layers["even"], factors["even"], x)[0].detach())

    assert error() <= 1e-5
    with torch.no_grad():
        factors["even"].hada_w1_a.mul_(3)
    assert error() <= 1e-5
    factors["even"].hada_w2_a.data.add_(1)  # as an optimiser's own CUDA code does
    assert error() > 1e-2
    together.forget()
    assert error() <= 1e-5
    factors["even"].hada_w1_b = nn.Parameter(torch.ones_like(factors["even"].hada_w1_b))
    assert error() <= 1e-5


def test_a_factor_in_the_place_of_one_that_is_gone_is_another():
    """Python gives the id of an object that is gone to the next one."""
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"])
    for seed in range(20):
        assert together.covers("even", x)
        values = torch.full_like(factors["even"].hada_w1_b, seed + 2.0)
        factors["even"].hada_w1_b = None
        factors["even"].hada_w1_b = nn.Parameter(values)
        assert together.covers("even", x)
        with torch.no_grad():
            found = together.forward("even", x)
        assert relative_error(found, _expected(layers["even"], factors["even"], x)[0].detach()) <= 1e-5


def test_factors_changed_between_forward_and_backward_are_refused():
    """Of the weights and factors of the forward pass nothing is left by then: gradients would be of others."""
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"]).requires_grad_()
    assert together.covers("even", x)
    y = together.forward("even", x)
    with torch.no_grad():
        factors["even"].hada_w1_a.mul_(3)
    assert together.covers("even", x)
    with pytest.raises(RuntimeError, match="even have been changed between"):
        y.sum().backward()


def test_a_process_that_fails_gives_back_what_was_merged_before_it_tells_the_others(monkeypatch):
    from types import SimpleNamespace

    from shinymas_loha.bench.suite.small_models import small_models
    from shinymas_loha.loha.training.network.loha_network import LohaNetwork
    from shinymas_loha.loha.training.run.loop import Training
    from shinymas_loha.loha.training.settings import TrainingSettings

    network = LohaNetwork(small_models((32,), 64, torch.device(DEVICE)), TrainingSettings(
        network_rank=2, max_token_length=75, module_filter="*mid_block*attn1*"))
    held = []
    world = SimpleNamespace(size=2, sum_gradients=lambda *_, **__: held.append(dict(network._grouped._weights)))
    run = SimpleNamespace(_world=world, network=network, characters=SimpleNamespace(told=0), _models=network._models,
                          update=SimpleNamespace(parameters=[], forget_gradients=lambda: None))
    name = next(iter(network.factors))
    assert network._grouped.covers(name, torch.ones(1, device=DEVICE))
    Training._tell_the_others(run, MemoryError())
    assert held == [{}]


@pytest.mark.parametrize("gone", [0, 2])
def test_a_gradient_taken_from_one_factor_leaves_the_others_theirs(gone):
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"])
    parameters = _parameters(factors["even"])
    for batch in range(2):
        assert together.covers("even", x)
        (together.forward("even", x).square().sum() / 2).backward()
        if batch == 0:
            parameters[gone].grad = None
    _, (_, *grads) = _expected(layers["even"], factors["even"], x)
    for place, (parameter, truth) in enumerate(zip(parameters, grads, strict=True)):
        _close(parameter.grad, truth if place == gone else 2 * truth, 2e-5)


def test_a_backward_after_all_was_released_has_its_weights():
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"]).requires_grad_()
    assert together.covers("even", x)
    loss = together.forward("even", x).square().sum() / 2
    together.release()
    loss.backward()
    _, (grad_x, *grads) = _expected(layers["even"], factors["even"], x)
    _close(x.grad, grad_x, 2e-5)
    for parameter, truth in zip(_parameters(factors["even"]), grads, strict=True):
        _close(parameter.grad, truth, 2e-5)


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise MemoryError("for want of memory")


def test_a_backward_that_fails_takes_nothing_from_the_next_one_and_leaves_it_nothing():
    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"]).requires_grad_()
    assert together.covers("even", x)
    with pytest.raises(MemoryError):
        together.forward("even", _Broken.apply(x)).sum().backward()
    for times in (1, 2):
        (together.forward("even", x).square().sum() / 2).backward()
        _, (_, *grads) = _expected(layers["even"], factors["even"], x)
        for parameter, truth in zip(_parameters(factors["even"]), grads, strict=True):
            _close(parameter.grad, times * truth, 2e-5)


def test_a_kernel_that_fails_leaves_each_layer_to_itself(monkeypatch):
    from shinymas_loha.loha.kernels.gradient import many_modules
    from shinymas_loha.loha.kernels.merging import triton

    layers, factors = _network(4)
    together = grouped.GroupedLayers(layers, factors)
    x = _input("even", layers["even"])
    assert together.covers("even", x)
    loss = together.forward("even", x).square().sum() / 2

    def refused(*_, **__):
        raise RuntimeError("the driver refuses")

    monkeypatch.setattr(many_modules.GroupedGradients, "compute", refused)
    monkeypatch.setattr(triton.Table, "merge", refused)
    loss.backward()
    _, (_, *grads) = _expected(layers["even"], factors["even"], x)
    for parameter, truth in zip(_parameters(factors["even"]), grads, strict=True):
        _close(parameter.grad, truth, 2e-5)
    together.forget()
    assert not together.covers("even", x)


@pytest.mark.parametrize("dropout", ["", "module_dropout", "rank_dropout"])
def test_a_network_s_loss_and_gradients_are_those_of_each_layer_by_itself(dropout, monkeypatch):
    from shinymas_loha.bench.suite.small_models import small_models
    from shinymas_loha.loha.training.network.loha_network import LohaNetwork
    from shinymas_loha.loha.training.objective.loss import Step
    from shinymas_loha.loha.training.objective.noise import Draw
    from shinymas_loha.loha.training.settings import TrainingSettings

    models = small_models((32,), 64, torch.device(DEVICE))
    settings = TrainingSettings(network_rank=2, mixed_precision="fp32", max_token_length=75,
                                module_filter="*mid_block*attn1*, *mid_block_resnets_1*, *layers_1_mlp*",
                                **({dropout: 0.3} if dropout else {}))
    generator = torch.Generator().manual_seed(0)
    latents, noise, posterior = (torch.randn(2, 4, 8, 8, generator=generator).to(DEVICE) for _ in range(3))
    found = []
    for route in ("grouped-triton", "reference"):
        monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", route)
        network = LohaNetwork(models, settings)
        with torch.no_grad():
            for factors in network.factors.values():
                nn.init.normal_(factors.hada_w2_a, 0, 0.1, generator=torch.Generator(DEVICE).manual_seed(1))
        step = Step(models, settings, "fp32")
        with network.attached():
            for position in range(2):
                network.begin_step(0, position)
                drawn = Draw(noise, posterior, torch.tensor([3, 700 + position]).to(DEVICE))
                losses = step.losses(latents, drawn, ["girl", "smile"])
                losses.mean().backward()
        found.append((losses.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}))
    (losses, grads), (other_losses, other_grads) = found
    torch.testing.assert_close(losses, other_losses, rtol=1e-4, atol=1e-6)
    assert grads.keys() == other_grads.keys() and len(grads) > 20
    assert [name for name, grad in grads.items() if grad is None] == [
        name for name, grad in other_grads.items() if grad is None]
    # Together: by itself a gradient may be next to nothing, and a GPU's convolutions round to tf32.
    whole, other = (torch.cat([grad.flatten() for grad in one.values() if grad is not None]) for one in (
        grads, other_grads))
    _close(whole, other.double().cpu(), 1e-4 if INTERPRETED else 1e-2)
