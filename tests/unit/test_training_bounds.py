"""Bounds of memory: exact where they can be, never above what a run takes."""

import pytest
import torch
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.memory import MemoryLacking, latent_bytes, optimiser_bytes, require


def test_latents_are_counted_to_the_byte(tiny_models, tiny_data):
    data = tiny_data()
    latents = Latents(data, tiny_models.encode)
    for batch in data.epoch(0, 0):
        latents(batch, 0)
    kept = [tensor for posterior in latents._cache.values() for tensor in (posterior.mean, posterior.std)]
    assert latent_bytes(data) == sum(tensor.numel() * tensor.element_size() for tensor in kept)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.NAdam])
def test_the_first_step_adds_at_least_what_is_counted(kind):
    weight = torch.nn.Parameter(torch.ones(1000))
    optimiser = kind([{"params": [weight], "lr": 1e-3}])
    before = optimiser_bytes(optimiser, [weight])
    weight.grad = torch.ones(1000)
    optimiser.step()
    added = [weight.grad, *(value for value in optimiser.state[weight].values() if isinstance(value, torch.Tensor))]
    assert before <= sum(tensor.numel() * tensor.element_size() for tensor in added)
    assert before == (12_000 if kind in (torch.optim.AdamW, torch.optim.Adam) else 4000)
    assert optimiser_bytes(optimiser, [weight]) == 4000  # a resumed one has the rest


def test_what_fits_exactly_is_not_refused():
    require("pictures", 2**30, 2**30, "Lower something.")
    with pytest.raises(MemoryLacking) as refused:
        require("pictures", 3 * 2**30, 2**29, "Lower something.")
    assert str(refused.value) == (
        "not enough memory: pictures take 3.0 GiB at least, and 512.0 MiB is free. Lower something.")


def test_exactly_what_gets_a_gradient_is_counted(tiny_models, tiny_data, tiny_settings):
    data, settings = tiny_data(), tiny_settings(clip_skip=2, max_train_steps=1)
    run = Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="7", precision="fp32")
    needed, _ = run.memory()
    run.run()
    moved = [parameter for parameter in run.network.parameters() if run.update.optimiser.state.get(parameter)]
    assert 0 < len(moved) < len(list(run.network.parameters()))
    assert needed == 3 * sum(parameter.numel() * parameter.element_size() for parameter in moved)
