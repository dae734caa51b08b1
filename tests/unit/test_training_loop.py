"""The loop: resume, cancel, non-finite numbers."""

import pytest
import torch
from shinymas_loha.loha.training.checkpoint import STATE_FILE, RunFolder, read_state, state_beside
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.loop import Stopped, Training, TrainingError, Watcher


class Cancelled(Exception):
    pass


@pytest.fixture
def training(tiny_models, tiny_data, tiny_settings, tmp_path):
    """Make a run: settings by keyword, `folder`, `resume`, `models` apart."""

    def make(folder=None, resume=None, models=tiny_models, start=None, **chosen):
        settings = tiny_settings(**chosen)
        data = tiny_data()
        if folder is None:
            folder = RunFolder.create(tmp_path / "loras", settings)
        return Training(models, data, Latents(data, models.encode), settings, session="7", precision="fp32",
                        folder=folder, resume=resume, start=start,
                        metadata=lambda step, epoch, losses: {"ss_steps": str(step), "ss_session_id": "7"})

    return make


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def stop_after(step):
    def on_step(progress):
        if progress.step == step:
            raise Cancelled

    return Watcher(on_step=on_step)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_cancelled_run_goes_on_bit_for_bit(training, step):
    whole = training(lr_scheduler="page")
    whole.run()
    first = training(lr_scheduler="page")
    with pytest.raises(Cancelled):
        first.run(stop_after(step))
    state = read_state(first._folder.path / STATE_FILE)
    assert state.step == step
    second = training(folder=first._folder, resume=state, lr_scheduler="page")
    assert second.digest() == state.digest
    second.run()
    assert second.losses == whole.losses
    assert same(second.network.state_dict(), whole.network.state_dict())
    assert same(second.state().optimiser["state"][0], whole.state().optimiser["state"][0])
