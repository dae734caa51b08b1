"""The network: which modules, how they begin, going on from a file, putting it on and taking it off."""

from collections import Counter

import pytest
import reference
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.module import Loha
from shinymas_loha.loha.training.models import differentiable
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.network.parameters import LohaParameters
from shinymas_loha.loha.training.network.selection import select
from torch import nn


@pytest.fixture(scope="module")
def sd15_layers(request):
    """Layers of SD 1.5's shapes, without weights, by kohya name; and the page's set."""
    table = request.config.rootpath / "data" / "sd15-modules.tsv"
    layers, page = {}, set()
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        name, _, kind, shape, in_page = line.split("\t")
        sizes = [int(size) for size in shape.split("x")]
        with torch.device("meta"):
            layers[name] = nn.Linear(sizes[1], sizes[0]) if kind == "linear" else nn.Conv2d(
                sizes[1], sizes[0], sizes[2])
        if in_page == "1":
            page.add(name)
    return layers, page


def test_module_sets_of_sd15(sd15_layers, tiny_settings):
    layers, page = sd15_layers
    assert set(select(layers, tiny_settings(module_set="linear"))) == page
    assert len(page) == 302
    assert len(select(layers, tiny_settings(module_set="attention-mlp"))) == 264
    assert len(select(layers, tiny_settings(module_set="all"))) == 354
    assert len(select(layers, tiny_settings(train_text_encoder=False))) == 230
    assert len(select(layers, tiny_settings(train_unet=False))) == 72


def test_module_filter(sd15_layers, tiny_settings):
    layers, _ = sd15_layers
    chosen = select(layers, tiny_settings(module_filter="*mid_block*attn2*, lora_te_*_0_mlp_fc1"))
    assert Counter(name.split("_")[1] for name in chosen) == {"unet": 4, "te": 1}
    with pytest.raises(SettingsError, match="no module is left to train"):
        select(layers, tiny_settings(module_filter="nothing*"))


@pytest.mark.parametrize("which, spreads", [("lycoris-2023-07", (0.1, 1, 1)), ("lycoris-2023-03", (1, 1, 0.01))])
def test_first_factors(which, spreads):
    factors = LohaParameters(torch.Size((300, 400)), 16, 1.0)
    factors.draw(which, 0, "one")
    for factor, spread in zip((factors.hada_w1_a, factors.hada_w1_b, factors.hada_w2_b), spreads, strict=True):
        assert float(factor.detach().std()) == pytest.approx(spread, rel=0.05)
        assert abs(float(factor.detach().mean())) < 0.05 * spread
    assert not factors.hada_w2_a.any()
    other = LohaParameters(torch.Size((300, 400)), 16, 1.0)
    other.draw(which, 0, "two")
    assert not torch.equal(other.hada_w1_a, factors.hada_w1_a)


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("rank, alpha", [(4, 1.0), (4, 3.0), (7, 2.0)])
def test_going_on_leaves_delta_as_it_was(tucker, rank, alpha):
    shape = torch.Size((10, 6, 3, 3) if tucker else (10, 6))
    old = LohaParameters(shape, 4, 1.0, tucker)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    new = LohaParameters(shape, rank, alpha, tucker)
    new.draw("lycoris-2023-07", 1, "module")
    new.take(old.module("module"), "module")
    torch.testing.assert_close(reference.delta(new.module("m")), reference.delta(old.module("m")), rtol=1e-5, atol=1e-5)
    if rank > 4:  # the new ranks can learn
        with torch.no_grad():
            factors = new.flat(None)
        grads = reference.gradients(torch.ones(factors.shape), factors, 1.0)
        assert grads[0][:, 4:].abs().min() > 0


def test_a_larger_rank_cannot_be_gone_on_from():
    old, new = LohaParameters(torch.Size((8, 8)), 4, 1.0), LohaParameters(torch.Size((8, 8)), 2, 1.0)
    with pytest.raises(SettingsError, match="rank 4 in the file to go on from, 2 in the settings"):
        new.take(old.module("m"), "m")


def test_nothing_in_common(tiny_models, tiny_settings):
    network = LohaNetwork(tiny_models, tiny_settings())
    other = LohaParameters(torch.Size((8, 8)), 2, 1.0).module("lora_unet_elsewhere")
    with pytest.raises(SettingsError, match="none of the 1 modules"):
        network.take(Loha({other.name: other}))


def _picture(models):
    return {name: (parameter, parameter.clone()) for name, parameter in models.unet.named_parameters()}


def _forwards(models):
    return [module.__dict__.get("forward") for root in (models.unet, models.text.model) for module in root.modules()]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_models_are_as_before_after_any_end(tiny_models, tiny_settings, checkpointing):
    before, forwards = _picture(tiny_models), _forwards(tiny_models)
    network = LohaNetwork(tiny_models, tiny_settings(gradient_checkpointing=checkpointing))
    with pytest.raises(KeyboardInterrupt), network.attached():
        assert _forwards(tiny_models) != forwards
        raise KeyboardInterrupt
    assert _forwards(tiny_models) == forwards
    after = dict(tiny_models.unet.named_parameters())
    assert all(after[name] is parameter and torch.equal(parameter, copy) for name, (parameter, copy) in before.items())


def test_at_first_the_network_changes_nothing(tiny_models, tiny_settings):
    network = LohaNetwork(tiny_models, tiny_settings(module_set="all"))
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([1, 2]), torch.randn(2, 7, 32)
    with torch.no_grad():
        plain = tiny_models.predict(*inputs)
        with network.attached():
            torch.testing.assert_close(tiny_models.predict(*inputs), plain, rtol=1e-5, atol=1e-6)


def test_weights_made_under_inference_mode_can_be_trained_through():
    with torch.inference_mode():
        layer = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)).requires_grad_(False)
        weights = list(layer.parameters())
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.randn(3, 4, requires_grad=True)
            with differentiable(layer):
                layer(x).sum().backward()
                assert all(p.data_ptr() == w.data_ptr() for p, w in zip(layer.parameters(), weights, strict=True))
        assert x.grad is not None
        assert all(p is w for p, w in zip(layer.parameters(), weights, strict=True))


def test_dropouts_follow_from_seed_and_step(tiny_models, tiny_settings):
    network = LohaNetwork(tiny_models, tiny_settings(module_dropout=0.5, rank_dropout=0.5))
    network.begin_step(3, 0)
    first = network._dropped, {name: mask.tolist() for name, mask in network._rank_masks.items()}
    network.begin_step(4, 0)
    assert network._dropped != first[0]
    network.begin_step(3, 0)
    assert (network._dropped, {name: mask.tolist() for name, mask in network._rank_masks.items()}) == first
    assert 0.3 < len(first[0]) / len(network.factors) < 0.7
    assert {value for kept in first[1].values() for value in kept} == {0.0, 2.0}


def test_modules_that_clip_skip_leaves_out_are_told(tiny_models, tiny_settings):
    """Of the three layers of `tiny_models`, clip skip 2 computes two."""
    with pytest.raises(SettingsError, match="clip_skip 2 leaves out .* 'lora_te_.*_2_.*' lies in them: lower"):
        LohaNetwork(tiny_models, tiny_settings(module_filter="lora_te_*_layers_2_*"))
    assert LohaNetwork(tiny_models, tiny_settings(module_filter="lora_te_*_layers_2_*", clip_skip=1)).factors
    assert LohaNetwork(tiny_models, tiny_settings(module_filter="lora_te_*")).factors
