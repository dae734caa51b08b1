"""What a step leaves out and makes again for backward: the same bits, less memory."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from shinymas_loha.loha.training.network import loha_network
from shinymas_loha.loha.training.network.forward import merged_forward
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.network.recomputation import forget_input, frugal_forward
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Storages(TorchDispatchMode):
    """The storages of all that is computed inside."""

    def __init__(self):
        super().__init__()
        self._seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    def bytes_left(self):
        return sum(size for reference, size in self._seen.values() if not reference.expired())


def _losses(models, settings, precision):
    generator = torch.Generator().manual_seed(3)
    latents, noise, posterior = (torch.randn(2, 4, 16, 16, generator=generator) for _ in range(3))
    drawn = Draw(noise, posterior, torch.tensor([40, 700]))
    return Step(models, settings, precision).losses(latents, drawn, ["a girl", "another, smile"])


def _network(models, settings):
    network = LohaNetwork(models, settings)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return network


def _without(monkeypatch):
    monkeypatch.setattr(loha_network, "frugal_forward", lambda module: None)
    monkeypatch.setattr(loha_network, "forget_input", lambda y, x: None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("chosen", [{"module_set": "all"}, {"module_set": "attention-mlp", "rank_dropout": 0.3},
                                    {"train_text_encoder": False}, {"module_dropout": 0.5}])
def test_the_bits_of_loss_and_gradients_are_the_same(tiny_models, tiny_settings, chosen, precision, monkeypatch):
    settings = tiny_settings(mixed_precision=precision, **chosen)
    torch.manual_seed(1)
    network = _network(tiny_models, settings)

    def step():
        network.zero_grad()
        with network.attached():
            network.begin_step(5)
            losses = _losses(tiny_models, settings, precision)
            losses.mean().backward()
        return [losses.detach(), *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]

    frugal = step()
    _without(monkeypatch)
    plain = step()
    assert len(frugal) == len(plain) > 10
    assert all(torch.equal(one, other) for one, other in zip(frugal, plain, strict=True))
    assert any(one.any() for one in frugal[1:])


@pytest.mark.parametrize("precision, share", [("fp32", 0.62), ("bf16", 0.7)])
def test_a_step_keeps_much_less(tiny_models, tiny_settings, precision, share, monkeypatch):
    settings = tiny_settings(mixed_precision=precision)
    network = _network(tiny_models, settings)

    def kept():
        with network.attached(), _Storages() as storages:
            losses = _losses(tiny_models, settings, precision)
            return storages.bytes_left(), losses

    frugal, _ = kept()
    _without(monkeypatch)
    plain, _ = kept()
    assert frugal < share * plain


def test_a_step_without_its_backward_leaves_nothing(tiny_models, tiny_settings):
    """As one that is cancelled: nodes of the graph and what stands for tensors must not hold one another."""
    settings = tiny_settings(mixed_precision="bf16", module_set="all")
    network = _network(tiny_models, settings)
    gc.collect()
    gc.disable()
    try:
        with network.attached():
            with _Storages() as storages:
                losses = _losses(tiny_models, settings, "bf16")
            assert storages.bytes_left() > 1e6
            del losses
            parameters = sum(parameter.nbytes for model in (tiny_models.unet, tiny_models.text.model, network)
                             for parameter in model.parameters())
            assert storages.bytes_left() <= parameters
    finally:
        gc.enable()


def test_gradient_checkpointing_is_left_to_itself(tiny_models, tiny_settings):
    norm = next(module for module in tiny_models.unet.modules() if isinstance(module, nn.GroupNorm))
    with LohaNetwork(tiny_models, tiny_settings(gradient_checkpointing=True)).attached():
        assert "forward" not in norm.__dict__
    with LohaNetwork(tiny_models, tiny_settings()).attached():
        assert "forward" in norm.__dict__


def _leaf(*shape):
    torch.manual_seed(len(shape))
    return torch.randn(*shape, requires_grad=True)


def _layer():
    torch.manual_seed(0)
    layer = nn.Linear(8, 6).requires_grad_(False)
    factors = [torch.randn(*shape, requires_grad=True) for shape in ((6, 2), (2, 8), (6, 2), (2, 8))]

    def forward(x):
        y = merged_forward(layer, x, factors, 1.0)
        forget_input(y, x)
        return y

    return forward, factors


def test_what_is_made_again_is_not_kept():
    forward, _ = _layer()
    norm, silu = frugal_forward(nn.LayerNorm(8).requires_grad_(False)), frugal_forward(nn.SiLU())
    group = frugal_forward(nn.GroupNorm(2, 8).requires_grad_(False))
    conv = frugal_forward(nn.Conv2d(8, 4, 3).requires_grad_(False))
    x = _leaf(3, 5, 8) * 1
    normed, gate = norm(x), nn.functional.gelu(x)
    product = x * gate
    grouped = group(_leaf(3, 8, 5, 5) * 1)
    activated = silu(grouped)
    alive = [weakref.ref(one) for one in (normed, gate, product, grouped, activated)]
    y = forward(normed).sum() + forward(product).sum() + conv(activated).sum()
    del normed, gate, product, grouped, activated
    assert [one() for one in alive] == [None] * 5
    y.backward()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_value_that_several_layers_read(precision):
    """As q, k and v do; and a product with itself beside another reader."""
    norm = nn.LayerNorm(8).requires_grad_(False)
    found = []
    for layer_norm in (norm, frugal_forward(norm)):
        forward, factors = _layer()
        x = _leaf(3, 5, 8)
        with torch.autocast("cpu", precision) if precision else nullcontext():
            y = layer_norm(x * 1)
            product = x * nn.functional.gelu(y)
            outs = [forward(y), forward(y), forward(product), forward(product), (y * product).float()]
        sum(out.float().square().sum() for out in outs).backward()
        found.append([x.grad, *(factor.grad for factor in factors)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_norms_of_other_dtypes_and_without_weights(dtype, affine):
    torch.manual_seed(2)
    norm = nn.LayerNorm(8, elementwise_affine=affine).requires_grad_(False)  # float32 weights, whatever x is
    x = (_leaf(3, 5, 8) * 1).to(dtype)
    y = frugal_forward(norm)(x)
    make, _ = y._made_by
    assert torch.equal(make(y.dtype), y)


def test_backward_twice():
    forward, factors = _layer()
    norm = frugal_forward(nn.LayerNorm(8).requires_grad_(False))
    x = _leaf(3, 5, 8)
    y = norm(x * 1)
    loss = forward(y).sum() + forward(y * x).square().sum()
    loss.backward(retain_graph=True)
    once = [factor.grad.clone() for factor in (x, *factors)]
    loss.backward()
    for factor, first in zip((x, *factors), once, strict=True):
        torch.testing.assert_close(factor.grad, 2 * first)


def test_an_input_changed_in_place_is_an_error_as_ever():
    forward, _ = _layer()
    norm = frugal_forward(nn.LayerNorm(8).requires_grad_(False))
    x = _leaf(3, 5, 8) * 1
    loss = forward(norm(x)).sum()
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="changed in place between forward and backward"):
        loss.backward()


def test_a_value_changed_in_place_before_it_is_read_is_kept():
    forward, factors = _layer()
    norm = frugal_forward(nn.LayerNorm(8).requires_grad_(False))
    x = _leaf(3, 5, 8)
    changed = norm(x * 1)
    changed += 1
    product = x * x
    product.mul_(2)
    (forward(changed).sum() + forward(product).sum()).backward()
    frugal = [factor.grad.clone() for factor in (x, *factors)]
    for factor in (x, *factors):
        factor.grad = None
    plain = nn.LayerNorm(8)(x * 1) + 1
    (forward(plain).sum() + forward(2 * (x * x).clone()).sum()).backward()
    for factor, first in zip((x, *factors), frugal, strict=True):
        torch.testing.assert_close(factor.grad, first)


class LayerNorm(nn.LayerNorm):
    """Called as torch's, and does more."""

    def forward(self, x):
        return super().forward(2 * x + 1)


class GroupNorm(nn.GroupNorm):
    def forward(self, x):
        return super().forward(x.square())


class SiLU(nn.SiLU):
    def forward(self, x):
        return super().forward(1.7 * x)


class Widened(nn.LayerNorm):
    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, 0.1)


def _exchanged():
    norm = nn.LayerNorm(8)
    norm.forward = lambda x: nn.functional.layer_norm(x, (8,), None, None, 0.1)
    return norm


@pytest.mark.parametrize("make", [lambda: LayerNorm(8), lambda: GroupNorm(5, 5), lambda: SiLU(), lambda: Widened(8),
                                  _exchanged], ids=["layer", "group", "silu", "eps", "exchanged"])
def test_modules_that_do_more_than_their_kind_have_their_own_gradients(make):
    module = make().requires_grad_(False)
    group = nn.GroupNorm(5, 5).requires_grad_(False)
    found = []
    for frugal in (False, True):
        forward, factors = _layer()
        x = _leaf(3, 5, 8)
        chain = [frugal_forward(one) or one.forward if frugal else one.forward for one in (group, module)]
        forward(chain[1](chain[0](x * 1))).square().sum().backward()
        found.append([x.grad, *(factor.grad for factor in factors)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_somebody_else_s_hooks_come_first():
    """As of `save_on_cpu` around a step, or another frugal forward inside."""
    norm = nn.LayerNorm(8).requires_grad_(False)
    twice = nn.LayerNorm(8).requires_grad_(False)
    twice.forward = frugal_forward(twice)
    found = []
    for kept in (norm.forward, frugal_forward(norm), twice.forward):
        forward, _ = _layer()
        x = _leaf(3, 5, 8)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
            y = kept(x * 1)
            loss = forward(y).square().sum() + forward(y * nn.functional.gelu(y)).sum()
        loss.backward()
        found.append(x.grad)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_convolution_that_is_trained_keeps_its_input():
    conv = nn.Conv2d(2, 3, 3)
    x = _leaf(1, 2, 5, 5)
    frugal_forward(conv)(x * 1).square().sum().backward()
    found = conv.weight.grad.clone()
    conv.zero_grad()
    conv(x * 1).square().sum().backward()
    assert torch.equal(found, conv.weight.grad)


def test_a_gate_changed_behind_autograd_is_kept_as_it_is():
    forward, factors = _layer()
    x = _leaf(3, 5, 8)
    gate = nn.functional.gelu(x)
    with torch.no_grad():
        gate.add_(1)
    loss = forward(x * gate).sum()
    value = gate.detach().clone()
    loss.backward()
    grads = [factor.grad.clone() for factor in factors]
    for factor in factors:
        factor.grad = None
    forward(x.detach() * value).sum().backward()
    assert all(torch.equal(factor.grad, one) for factor, one in zip(factors, grads, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_all_is_plain(mode):
    norm, silu = frugal_forward(nn.LayerNorm(8).requires_grad_(False)), frugal_forward(nn.SiLU())
    with mode():
        x = torch.randn(3, 8)
        assert torch.equal(silu(norm(x)), nn.functional.silu(nn.functional.layer_norm(x, (8,))))
        assert torch.equal(norm(input=x), norm(x))


def test_modules_of_other_kinds_keep_what_they_keep():
    assert frugal_forward(nn.Linear(3, 3)) is None
    assert frugal_forward(nn.GELU()) is None
    in_place = nn.SiLU(inplace=True)
    x = _leaf(2, 4)
    y = frugal_forward(in_place)(frugal_forward(nn.GroupNorm(2, 4).requires_grad_(False))(x))
    expected = nn.functional.silu(nn.GroupNorm(2, 4)(x))
    grads = [torch.autograd.grad(one.square().sum(), x)[0] for one in (y, expected)]
    torch.testing.assert_close(*grads)
