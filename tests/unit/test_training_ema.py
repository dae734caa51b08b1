"""The running mean of the factors: its numbers, its files, and that nothing else notices it."""

from __future__ import annotations

import pytest
import torch
from shinymas_loha.loha import files
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state, state_beside
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Watcher


class Cancelled(Exception):
    pass


@pytest.fixture
def make_run(tiny_models, tiny_settings, tiny_data, tmp_path):
    def make(folder=None, **chosen):
        settings = tiny_settings(**{"module_filter": "*attn1*", **chosen})
        data = tiny_data()
        return Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="7", precision="fp32",
                        folder=folder or RunFolder.create(tmp_path / "loras", settings))

    return make


def factors(loha):
    return {f"{name}.{key}": getattr(module, key) for name, module in loha.modules.items()
            for key in ("w1_a", "w1_b", "w2_a", "w2_b")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_mean_is_that_of_a_reference_in_float64(make_run):
    run = make_run(ema_decay=0.5)
    start = [parameter.detach().double() for parameter in run.network.parameters()]
    seen = []

    def on_step(progress):
        seen.append([parameter.detach().double() for parameter in run.network.parameters()])

    run.run(Watcher(on_step=on_step))
    expected = start
    for step, values in enumerate(seen, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * mean + (1 - decay) * value for mean, value in zip(expected, values, strict=True)]
    for mean, value in zip(run.state().ema.values(), expected, strict=True):
        torch.testing.assert_close(mean.double(), value, rtol=1e-5, atol=1e-6)


def test_the_steps_are_those_without_it_and_the_mean_is_given_out(make_run):
    plain, averaged = make_run(), make_run(ema_decay=0.9, ema_keep_both=True)
    without, mean = plain.run(), averaged.run()
    assert averaged.losses == plain.losses
    assert not same(factors(mean), factors(without))
    assert same(factors(files.read(averaged.keeper.folder.path / "tiny.safetensors")), factors(mean))
    assert same(factors(files.read(averaged.keeper.folder.path / "tiny-no-ema.safetensors")), factors(without))
    assert plain.state().ema == {}


def test_both_are_kept_when_asked_and_old_ones_go_together(make_run):
    run = make_run(ema_decay=0.9, ema_keep_both=True, max_train_epochs=3, keep_last=1)
    run.run()
    assert sorted(path.name for path in run.keeper.folder.path.iterdir()) == [
        "tiny-000003-no-ema.safetensors", "tiny-000003.safetensors", "tiny-no-ema.safetensors", "tiny.safetensors",
        STATE_FILE]
    alone = make_run(ema_decay=0.9, max_train_epochs=1)
    alone.run()
    assert sorted(path.name for path in alone.keeper.folder.path.iterdir()) == [
        "tiny-000001.safetensors", "tiny.safetensors", STATE_FILE]


@pytest.mark.parametrize("step", [1, 3])
def test_it_survives_a_cancelled_run(make_run, step):
    whole = make_run(ema_decay=0.9)
    expected = factors(whole.run())
    first = make_run(ema_decay=0.9)

    def cancel(progress):
        if progress.step == step:
            raise Cancelled

    with pytest.raises(Cancelled):
        first.run(Watcher(on_step=cancel))
    # The third ends the first epoch.
    kept = files.read(first.keeper.folder.path / ("tiny-000001.safetensors" if step == 3 else
                                                  f"tiny-step{step:08d}.safetensors"))
    state = state_beside(kept)
    assert same(factors(kept), factors(first.loha()))
    second = make_run(ema_decay=0.9, folder=first.keeper.folder)
    assert second.resume(state)
    assert same(factors(second.run()), expected)


def test_another_decay_is_a_difference(make_run):
    state = make_run().state()
    assert make_run(ema_decay=0.9).compare(state).differences == ("ema_decay: 0.9, was nothing",)
    run = make_run(ema_decay=0.9)
    run.run()
    kept = read_state(run.keeper.folder.path / STATE_FILE)
    assert make_run(ema_decay=0.9, ema_keep_both=True).compare(kept).differences == ()
    assert make_run().compare(kept).differences == ("ema_decay: nothing, was 0.9",)


def test_going_on_from_a_file_begins_the_mean_there(make_run):
    first = make_run(max_train_epochs=1)
    given = first.run()
    second = make_run(ema_decay=0.9)
    second.go_on_from(given)
    assert same(factors(second.loha()), factors(given))


def test_the_mean_of_limited_norms_is_at_the_limit_too(make_run):
    """What limits a norm is a factor that falls as the others grow: today's on the means of before is too small."""
    limit = 0.01
    run = make_run(ema_decay=0.99, scale_weight_norms=limit, max_train_epochs=20, lr_scheduler="constant")
    norms = [((module.w1_a @ module.w1_b) * (module.w2_a @ module.w2_b)).norm() * module.scale
             for module in run.run().modules.values()]
    assert all(0.97 * limit < norm <= 1.0001 * limit for norm in norms)
    other = make_run(ema_decay=0.99, scale_weight_norms=limit, max_train_epochs=20, lr_scheduler="constant")
    other.take_up(run.state())
    assert same(factors(other.loha()), factors(run.loha()))
