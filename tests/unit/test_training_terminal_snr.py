"""Zero terminal SNR, weights of v and adaptive noise offsets, beside kohya's own lines in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Batch, Latents, Posterior
from shinymas_loha.loha.training.data.dataset import Item
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw, NoiseSchedule, draw
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.settings import TrainingSettings

TIMESTEPS = [0, 37, 811, 999]


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kohyas_schedule(zero_terminal_snr):
    """train_network.py, get_noise_scheduler: ᾱ of the noise, and the SNRs, which are taken before ᾱ is changed."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_bar = (1 - betas).cumprod(0)
    snr = (alphas_bar.sqrt() / (1 - alphas_bar).sqrt()) ** 2
    if zero_terminal_snr:
        root = alphas_bar.sqrt()
        first, last = root[0].clone(), root[-1].clone()
        root -= last
        root *= first / (first - last)
        alphas_bar = root**2
        alphas = torch.cat([alphas_bar[0:1], alphas_bar[1:] / alphas_bar[:-1]])
        betas = 1 - alphas
        alphas_bar = torch.cumprod(1.0 - betas, 0)
    return alphas_bar.numpy(), snr.numpy()


def kohyas_loss(settings, difference, snr):
    """train_network.py, post_process_loss."""
    is_v = settings.prediction == "v"
    loss = (difference**2).mean((1, 2, 3))
    scale = np.minimum(snr, 1000) / (np.minimum(snr, 1000) + 1)
    if settings.min_snr_gamma:
        loss = loss * np.minimum(snr, settings.min_snr_gamma) / (snr + is_v)
    if settings.scale_v_pred_loss_like_noise_pred:
        loss = loss * scale
    if settings.v_pred_like_loss:
        loss = loss + loss / scale * settings.v_pred_like_loss
    if settings.debiased_estimation_loss:
        loss = loss / (np.minimum(snr, 1000) + 1) if is_v else loss / np.sqrt(np.minimum(snr, 1000))
    return loss


@pytest.mark.parametrize("made", [
    {"prediction": "v", "zero_terminal_snr": True},
    {"prediction": "v", "zero_terminal_snr": True, "min_snr_gamma": 5.0, "scale_v_pred_loss_like_noise_pred": True},
    {"prediction": "v", "scale_v_pred_loss_like_noise_pred": True, "debiased_estimation_loss": True},
    {"v_pred_like_loss": 0.3}, {"v_pred_like_loss": 0.3, "min_snr_gamma": 5.0, "debiased_estimation_loss": True},
    {"zero_terminal_snr": True, "min_snr_gamma": 5.0, "debiased_estimation_loss": True},
], ids=lambda made: "-".join(map(str, made)))
def test_losses_are_kohyas(tiny_models, tiny_settings, made):
    settings = tiny_settings(**made)
    latents, noise, predicted = (random(seed, 4, 4, 8, 8) for seed in (1, 2, 3))
    seen = []
    models = replace(tiny_models, predict=lambda noisy, timesteps, states: seen.append(noisy) or predicted)
    with torch.no_grad():
        found = Step(models, settings, "fp32").losses(latents, Draw(noise, noise, torch.tensor(TIMESTEPS)), ["girl"])
    alphas, snr = (values[TIMESTEPS] for values in kohyas_schedule(settings.zero_terminal_snr))
    alphas = alphas.reshape(4, 1, 1, 1)
    scaled, target = latents.double().numpy() * 0.18215, noise.double().numpy()
    np.testing.assert_allclose(seen[0], np.sqrt(alphas) * scaled + np.sqrt(1 - alphas) * target, rtol=1e-4, atol=1e-5)
    if settings.prediction == "v":
        target = np.sqrt(alphas) * target - np.sqrt(1 - alphas) * scaled
    np.testing.assert_allclose(found, kohyas_loss(settings, predicted.double().numpy() - target, snr), rtol=1e-4)
    assert torch.isfinite(found).all()


def test_the_last_step_is_noise_alone_and_the_first_is_as_before():
    fixed = NoiseSchedule(torch.device("cpu"), zero_terminal_snr=True).alphas_cumprod
    plain = NoiseSchedule(torch.device("cpu")).alphas_cumprod
    assert fixed[-1] == 0 and fixed[0] == pytest.approx(float(plain[0]), rel=1e-6)
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                           rescale_betas_zero_snr=True).alphas_cumprod
    np.testing.assert_allclose(fixed[:-1], theirs[:-1], rtol=2e-3, atol=1e-6)


@pytest.fixture
def drawn(tiny_settings):
    """Draw for 64 pictures, with the latents' channel means all over the place: the noise less that without offset."""
    batch = Batch(0, 0, (64, 64), tuple(Item(number, 0) for number in range(64)))
    posterior = Posterior(random(1, 64, 4, 8, 8) + 8 * random(4, 64, 4, 1, 1), random(2, 64, 4, 8, 8).abs())

    def make(**chosen):
        plain, found = (draw(batch, tiny_settings(**settings), (4, 8, 8), posterior) for settings in ({}, chosen))
        assert torch.equal(found.posterior, plain.posterior) and torch.equal(found.timesteps, plain.timesteps)
        return found.noise.double() - plain.noise.double()

    latents = posterior.sample(draw(batch, tiny_settings(), (4, 8, 8)).posterior).double() * 0.18215
    make.means = latents.mean(dim=(2, 3), keepdim=True).abs()
    return make


@pytest.mark.parametrize("scale", [0.7, -3.0])
def test_an_adaptive_noise_offset_is_kohyas(drawn, scale):
    """library/custom_train_functions.py, apply_noise_offset, on the latents that are trained."""
    strengths = (0.1 + scale * drawn.means).clamp(min=0)
    found = drawn(noise_offset=0.1, adaptive_noise_scale=scale)
    np.testing.assert_allclose(found, (strengths * drawn(noise_offset=1.0)).expand_as(found), rtol=1e-3, atol=2e-5)
    assert bool((strengths == 0).any()) == (scale < 0)


def test_it_is_added_to_a_random_strength_too(drawn):
    chosen = {"noise_offset": 0.5, "noise_offset_random_strength": True}
    before, found = drawn(**chosen), drawn(**chosen, adaptive_noise_scale=0.7)
    # (strength + 0.7 · mean) / strength − 1, over the mean: 0.7 / strength, one for all channels of a picture.
    ratios = (((found / before).median(-1)[0].median(-1)[0] - 1) / drawn.means[..., 0, 0])
    np.testing.assert_allclose(ratios, ratios[:, :1].expand_as(ratios), rtol=0.02)
    assert bool((0.7 / ratios <= 0.51).all())


def test_what_is_off_changes_no_bit(tiny_models, tiny_data, tiny_settings):
    def run(**chosen):
        data = tiny_data()
        training = Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(
            max_train_epochs=1, noise_offset=0.05, **chosen), session="7", precision="fp32")
        training.run()
        return training.losses

    assert run() == run(adaptive_noise_scale=0.0, v_pred_like_loss=0.0)
    assert run() != run(adaptive_noise_scale=1.0)


@pytest.mark.parametrize(("text", "words"), [
    ("adaptive_noise_scale = 0.1", "adaptive_noise_scale 0.1 is added to noise_offset, which is 0"),
    ("scale_v_pred_loss_like_noise_pred = true", "is of models that predict v, and prediction is epsilon"),
    ("v_pred_like_loss = 0.1\nv_parameterization = true", "v_pred_like_loss 0.1 is of models that predict noise"),
])
def test_what_kohyas_scripts_refuse_is_refused(text, words):
    with pytest.raises(SettingsError, match=words):
        read_settings(text)


def test_kohyas_keys():
    made = read_settings("""
v_parameterization = true
zero_terminal_snr = true
scale_v_pred_loss_like_noise_pred = true
noise_offset = 0.05
adaptive_noise_scale = 0.01
v_pred_like_loss = 0
""").settings
    assert (made.prediction, made.zero_terminal_snr, made.scale_v_pred_loss_like_noise_pred) == ("v", True, True)
    assert (made.noise_offset, made.adaptive_noise_scale, made.v_pred_like_loss) == (0.05, 0.01, 0.0)
    assert not read_settings("zero_terminal_snr = false").settings.zero_terminal_snr
    assert TrainingSettings(v_pred_like_loss=0.1).v_pred_like_loss == 0.1
