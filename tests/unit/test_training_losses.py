"""Kinds of loss, timesteps, noises and norms, beside their formulas in float64."""

import math

import numpy as np
import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Batch
from shinymas_loha.loha.training.data.dataset import Item
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw, draw
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.settings.fields import chosen, describe
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

CAPTIONS = ["girl, smile", "boy"]
TIMESTEPS = [37, 811]
# Of Stable Diffusion 1's schedule: β from 0.00085 to 0.012, the square roots evenly spaced.
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses(models, settings, drawn, latents):
    with torch.no_grad():
        return Step(models, settings, "fp32").losses(latents, drawn, CAPTIONS).numpy()


def threshold(settings, timestep):
    c, scale = settings.huber_c, settings.huber_scale
    if settings.huber_schedule == "snr":
        return (1 - c) / (1 + math.sqrt((1 - ALPHAS[timestep]) / ALPHAS[timestep])) ** 2 + c
    return scale * (math.exp(math.log(c) * timestep / 1000) if settings.huber_schedule == "exponential" else c)


def expected(settings, differences):
    """The loss of each picture from its differences in float64."""
    found = []
    for difference, timestep in zip(differences, TIMESTEPS, strict=True):
        c = threshold(settings, timestep)
        smooth = 2 * (np.hypot(difference, c) - c)
        kinds = {"l1": abs(difference), "l2": difference**2, "huber": c * smooth, "smooth_l1": smooth}
        loss = kinds[settings.loss_type].mean()
        snr = ALPHAS[timestep] / (1 - ALPHAS[timestep])
        is_v = settings.prediction == "v"
        if settings.min_snr_gamma:
            loss *= min(snr, settings.min_snr_gamma) / (snr + is_v)
        if settings.debiased_estimation_loss:
            loss *= 1 / (min(snr, 1000) + 1) if is_v else 1 / math.sqrt(min(snr, 1000))
        found.append(loss)
    return found


@pytest.mark.parametrize("made", [
    {"loss_type": "l1"},
    *({"loss_type": kind, "huber_schedule": schedule, "huber_c": c, "huber_scale": 1.7}
      for kind in ("huber", "smooth_l1") for schedule in ("snr", "exponential", "constant") for c in (0.1, 3.0)),
    {"debiased_estimation_loss": True},
    {"debiased_estimation_loss": True, "prediction": "v", "min_snr_gamma": 5.0, "loss_type": "huber"},
], ids=lambda made: "-".join(map(str, made.values())))
def test_each_kind_of_loss_is_its_formula(tiny_models, tiny_settings, made):
    settings, latents, noise = tiny_settings(**made), random(1, 2, 4, 8, 8) * 5, random(2, 2, 4, 8, 8)
    scaled, alphas = latents.double().numpy() * 0.18215, ALPHAS[TIMESTEPS].reshape(2, 1, 1, 1)
    target = noise.double().numpy()
    if settings.prediction == "v":
        target = np.sqrt(alphas) * target - np.sqrt(1 - alphas) * scaled
    predicted = random(3, 2, 4, 8, 8)
    drawn = Draw(noise, noise, torch.tensor(TIMESTEPS))
    models = with_prediction(tiny_models, lambda noisy, timesteps, states: predicted)
    np.testing.assert_allclose(losses(models, settings, drawn, latents),
                               expected(settings, predicted.double().numpy() - target), rtol=5e-6)


def with_prediction(models, predict):
    from dataclasses import replace

    return replace(models, predict=predict)


def test_the_lowest_timestep_weighs_no_more_than_an_snr_of_1000(tiny_models, tiny_settings):
    settings = tiny_settings(debiased_estimation_loss=True)
    zeros, ones = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    models = with_prediction(tiny_models, lambda noisy, timesteps, states: ones)
    with torch.no_grad():
        loss = Step(models, settings, "fp32").losses(zeros, Draw(zeros, zeros, torch.tensor([0])), ["girl"])
    assert ALPHAS[0] / (1 - ALPHAS[0]) > 1000
    assert float(loss) == pytest.approx(1 / math.sqrt(1000), rel=1e-5)


def many(settings, count=4000, shape=(4, 8, 8)):
    return draw(Batch(0, 0, (64, 64), tuple(Item(number, 0) for number in range(count))), settings, shape)


@pytest.mark.parametrize(("low", "high", "drawn"), [
    (0, 1000, (0, 999)), (100, 110, (100, 109)), (990, 1000, (990, 999)), (0, 1, (0, 0)), (500, 500, (500, 500))])
def test_timesteps_are_drawn_from_their_range(tiny_settings, low, high, drawn):
    found = many(tiny_settings(min_timestep=low, max_timestep=high)).timesteps
    assert drawn[0] <= int(found.min()) and int(found.max()) <= drawn[1]
    assert len(found.unique()) == min(high - low, 1000) or high - low == 1000 or high == low


def test_what_is_off_draws_the_same_bits(tiny_settings):
    plain = many(tiny_settings(), 8)
    other = many(tiny_settings(
        multires_noise_discount=0.9, ip_noise_gamma_random_strength=True, noise_offset_random_strength=True), 8)
    assert plain.added is None and other.added is None
    for one, another in ((plain.noise, other.noise), (plain.timesteps, other.timesteps)):
        assert torch.equal(one, another)
    perturbed = many(tiny_settings(ip_noise_gamma=0.1), 8)
    assert torch.equal(perturbed.noise, plain.noise) and torch.equal(perturbed.timesteps, plain.timesteps)


def test_input_perturbation_is_of_the_noisy_latents_alone(tiny_models, tiny_settings):
    found = many(tiny_settings(ip_noise_gamma=0.2))
    extra = (found.added - found.noise).double()
    assert float(extra.std()) == pytest.approx(0.2, rel=0.01)
    uniform = many(tiny_settings(ip_noise_gamma=0.2, ip_noise_gamma_random_strength=True))
    strengths = (uniform.added - uniform.noise).double().flatten(1).std(1)
    assert float(strengths.mean()) == pytest.approx(0.1, rel=0.05)  # of U(0, 0.2)
    assert float(strengths.std()) == pytest.approx(0.2 / math.sqrt(12), rel=0.1)

    seen = []
    models = with_prediction(tiny_models, lambda noisy, *_: seen.append(noisy) or torch.zeros_like(noisy))
    noise, added, latents = random(1, 2, 4, 8, 8), random(2, 2, 4, 8, 8), random(3, 2, 4, 8, 8)
    loss = losses(models, tiny_settings(), Draw(noise, noise, torch.tensor(TIMESTEPS), added), latents)
    alphas = ALPHAS[TIMESTEPS].reshape(2, 1, 1, 1)
    noisy = np.sqrt(alphas) * latents.double().numpy() * 0.18215 + np.sqrt(1 - alphas) * added.double().numpy()
    np.testing.assert_allclose(seen[0], noisy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss, noise.double().numpy().__pow__(2).mean((1, 2, 3)), rtol=5e-6)


def test_a_random_noise_offset_is_uniform(tiny_settings):
    plain = many(tiny_settings()).noise.double()
    fixed = many(tiny_settings(noise_offset=0.5)).noise.double() - plain
    assert float(fixed.mean((2, 3)).std()) == pytest.approx(0.5, rel=0.05)
    uniform = many(tiny_settings(noise_offset=0.5, noise_offset_random_strength=True)).noise.double() - plain
    # A product of U(0, ½) and N(0, 1) has the variance ½² / 3.
    assert float(uniform.mean((2, 3)).std()) == pytest.approx(0.5 / math.sqrt(3), rel=0.05)


def test_coarser_noises_have_their_covariance(tiny_settings):
    """Neighbours are alike as bilinear noises of 2 to 4, 4 to 16, … times coarser grids make them, in float64."""
    settings = tiny_settings(multires_noise_iterations=6, multires_noise_discount=0.6)
    found = many(settings).noise.double().numpy()
    np.testing.assert_allclose(found.std((1, 2, 3)), 1, rtol=0.01)
    assert abs(found.mean()) < 0.02
    generator = np.random.default_rng(0)
    reference = np.stack([pyramid(generator, 6, 0.6) for _ in range(4000)])
    for axis in (2, 3):
        def neighbours(noise, axis=axis):
            ahead = np.take(noise, range(1, 8), axis)
            return float((ahead * np.take(noise, range(7), axis)).mean())

        assert neighbours(found) == pytest.approx(neighbours(reference), rel=0.05)
    plain = many(tiny_settings(multires_noise_iterations=1), 8).noise  # the finest alone: white noise still
    assert abs(float((plain[:, :, 1:] * plain[:, :, :-1]).mean())) < 0.1


def pyramid(generator, iterations, discount, size=8):
    noise = generator.standard_normal((4, size, size))
    for level in range(iterations):
        ratio = generator.uniform(2, 4) ** level
        coarse = max(1, int(size / ratio))
        places = np.clip((np.arange(size) + 0.5) * coarse / size - 0.5, 0, coarse - 1)
        below = np.floor(places).astype(int)
        weights = np.zeros((size, coarse))
        weights[np.arange(size), below] += 1 - (places - below)
        weights[np.arange(size), np.minimum(below + 1, coarse - 1)] += places - below
        noise += discount**level * (weights @ generator.standard_normal((4, coarse, coarse)) @ weights.T)
        if coarse == 1:
            break
    return noise / noise.std()


def norm(module):
    w1 = module.w1_a.double() @ module.w1_b.double().flatten(1)
    w2 = module.w2_a.double() @ module.w2_b.double().flatten(1)
    return float((w1 * w2).norm() * module.scale)


def test_norms_are_scaled_down_after_each_step(tiny_models, tiny_settings, tiny_data):
    from shinymas_loha.loha.training.data import Latents

    def trained(**made):
        data = tiny_data()
        settings = tiny_settings(learning_rate=0.1, **made)
        training = Training(tiny_models, data, Latents(data, tiny_models.encode), settings,
                            session="1", precision="fp32")
        return training, training.run()

    free = [norm(module) for module in trained()[1].modules.values()]
    limit = sorted(free)[len(free) // 2]
    training, loha = trained(scale_weight_norms=limit)
    limited = [norm(module) for module in loha.modules.values()]
    assert max(free) > limit * 1.01
    assert max(limited) <= limit * 1.0001 and sum(one > limit * 0.999 for one in limited) > 1
    assert training.state().parameters.keys() > {"factors." + next(iter(training.network.factors)) + ".scalar"}


def test_a_limited_norm_is_lycoris(tiny_models, tiny_settings):
    from lycoris.modules.loha import LohaModule

    settings = tiny_settings(scale_weight_norms=0.7, module_set="all", conv_rank=3)
    network = LohaNetwork(tiny_models, settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(random(4, *parameter.shape), alpha=0.3)
    made = {}
    for name, factors in network.factors.items():
        module = LohaModule(name, tiny_models.layers[name], 1.0, factors.rank, factors.alpha)
        module.load_state_dict({key: value for key, value in factors.state_dict().items() if key != "scalar"},
                               strict=False)
        module.apply_max_norm(0.7)
        made[name] = module.get_weight(module.shape) * module.scalar
    network.limit_norms()
    for name, module in network.modules_for_file().items():
        delta = (module.w1_a @ module.w1_b) * (module.w2_a @ module.w2_b) * module.scale
        torch.testing.assert_close(delta, made[name].detach().view_as(delta), rtol=1e-4, atol=1e-6)


def test_kohyas_keys_become_settings():
    text = """
loss_type = "smooth_l1"
huber_schedule = "exponential"
huber_c = 0.2
huber_scale = 2
debiased_estimation_loss = true
min_timestep = 100
max_timestep = 900
scale_weight_norms = 1
noise_offset_random_strength = true
multires_noise_iterations = 6
multires_noise_discount = 0.4
ip_noise_gamma = 0.1
ip_noise_gamma_random_strength = true
"""
    made = chosen(read_settings(text).settings)
    wanted = dict(line.split(" = ") for line in text.strip().splitlines())
    assert {name: str(made[name]).lower().removesuffix(".0") for name in wanted} == {
        name: value.strip('"') for name, value in wanted.items()}


@pytest.mark.parametrize(("text", "words"), [
    ("min_timestep = 600\nmax_timestep = 500", "min_timestep 600 is above max_timestep 500: nothing lies between"),
    ("max_timestep = 1001", "max_timestep = 1001: 1001 is outside 1 to 1000"),
    ("huber_c = 0", "huber_c = 0: 0.0 is outside 1e-06 to 1000.0"),
    ("huber_c = nan", "is not a finite number"),
    ('loss_type = "l3"', "'l3' is not one of l2, l1, huber, smooth_l1"),
    ('huber_schedule = "linear"', "'linear' is not one of snr, exponential, constant"),
    ("scale_weight_norms = -1", "scale_weight_norms = -1: -1.0 is outside"),
    ("multires_noise_iterations = 1.5", "expected a whole number"),
])
def test_what_is_no_loss_or_noise_is_refused(text, words):
    with pytest.raises(SettingsError) as refused:
        read_settings(text)
    assert words in str(refused.value)


def test_later_settings_at_their_defaults_are_in_no_fingerprint():
    later = {name for name, field in describe(TrainingSettings).items() if field.since}
    assert later and not later & chosen(TrainingSettings()).keys()
