"""ComfyUI's nodes that change a conditioning's text, behind ShinyMas Scene: each region's text is what they change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

HIORI, DOG = "1girl, Kazano Hiori, black hair", "a dog"


@pytest.fixture
def pack(comfy):
    """The parts under test, and ComfyUI's own nodes."""
    import comfy.sample
    from shinymas_loha.loha import SettingsError
    from shinymas_loha.patcher.regional_prompts import encode, regional

    import nodes

    return SimpleNamespace(core=nodes, encode=encode, regional=regional, error=SettingsError, sample=comfy.sample)


@pytest.fixture
def couple(pack, small_model):
    """Model and conditioning of two regions side by side."""
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 1

    def make(*texts):
        return pack.regional(*small_model[:2], texts, masks.numpy(), "attention couple")

    return make


@pytest.fixture
def draw(pack):
    @torch.inference_mode()
    def sample(model, positive, negative):
        latent = torch.zeros(1, 4, 8, 8)
        noise = pack.sample.prepare_noise(latent, 3)
        return pack.sample.sample(model, noise, 2, 5.0, "euler", "normal", positive, negative, latent, seed=3)

    return sample


def _near(one, other):
    return (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_zeroed_out_for_the_negative_has_no_regions(pack, couple, draw):
    """Conditioning Zero Out copies all that a conditioning carries: with the regions the negative was the positive."""
    model, positive = couple(HIORI, DOG)
    (zeros,) = pack.core.ConditioningZeroOut().zero_out(positive)
    plain = [[torch.zeros_like(positive[0][0]), {}]]
    assert torch.equal(draw(model, positive, zeros), draw(model, positive, plain))


def test_a_concatenated_text_is_behind_each_region(pack, couple, draw, small_model):
    def more(conditioning):
        return pack.core.ConditioningConcat().concat(conditioning, pack.encode(small_model[1], "snow"))[0]

    negative = pack.encode(small_model[1], "blurry")
    model, positive = couple(HIORI, HIORI)
    plain = draw(small_model[0], more(pack.encode(small_model[1], HIORI)), negative)
    assert _near(draw(model, more(positive), negative), plain)
    assert not _near(draw(model, positive, negative), plain)


def test_a_text_that_cannot_be_followed_is_an_error(pack, couple, draw, small_model):
    model, positive = couple(HIORI, DOG)
    snow = pack.encode(small_model[1], "snow")
    (mixed,) = pack.core.ConditioningAverage().addWeighted(positive, snow, 0.5)
    with pytest.raises(pack.error, match="changed behind ShinyMas Scene"):
        draw(model, mixed, snow)
    longer = [[torch.cat((states, snow[0][0][:, :5]), 1), carried] for states, carried in positive]
    with pytest.raises(pack.error, match="changed behind ShinyMas Scene"):
        draw(model, longer, snow)
