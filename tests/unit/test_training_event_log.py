"""Losses and rates for TensorBoard: kohya's names and arithmetic; without the package a word, and no other bit."""

from dataclasses import replace

import pytest
import torch
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.run import event_log
from shinymas_loha.loha.training.run.event_log import EventLog, lacking
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, Watcher
from shinymas_loha.loha.training.settings import TrainingSettings

needs_tensorboard = pytest.mark.skipif(
    bool(lacking(TrainingSettings(log_with="tensorboard"))), reason="tensorboard is not installed")


@pytest.fixture
def training(tiny_models, tiny_data, tiny_settings):
    def make(data=None, **chosen):
        made = tiny_settings(**{"lr_scheduler": "linear", "module_filter": "*mid_block*attn1*,lora_te_*_0_*",
                                "log_with": "tensorboard", **chosen})
        pictures = tiny_data(**(data or {}))
        return Training(tiny_models, pictures, Latents(pictures, tiny_models.encode), made, session="7",
                        precision="fp32"), made

    return make


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: {one.step: one.value for one in found.Scalars(name)} for name in found.Tags()["scalars"]}


@needs_tensorboard
def test_what_is_written_is_kohyas(training, tmp_path):
    run, settings = training(unet_lr=1e-3, text_encoder_lr=5e-4, max_train_epochs=3)
    log = EventLog(tmp_path / "logs", run, settings)
    run.run(log.watching(Watcher()))
    log.close()
    found = scalars(tmp_path / "logs")
    assert set(found) == {"loss/current", "loss/average", "loss/epoch_average", "lr/unet", "lr/textencoder"}
    losses, per_epoch, total = run.losses, run.steps_per_epoch, run.total_steps
    assert list(found["loss/current"]) == list(range(1, total + 1))
    # kohya's LossRecorder: a list of an epoch's steps, each overwritten by the next epoch's.
    recorder, averages, by_epoch = [], {}, {}
    for number, loss in enumerate(losses):
        epoch, place = divmod(number, per_epoch)
        if epoch == 0:
            recorder.append(loss)
        recorder[place] = loss
        averages[number + 1] = sum(recorder) / len(recorder)
        by_epoch[epoch + 1] = averages[number + 1]
    assert found["loss/current"] == pytest.approx(dict(enumerate(losses, 1)), rel=1e-6)
    assert found["loss/average"] == pytest.approx(averages, rel=1e-6)
    assert found["loss/epoch_average"] == pytest.approx(by_epoch, rel=1e-6)
    for name, peak in (("lr/unet", 1e-3), ("lr/textencoder", 5e-4)):
        assert found[name] == pytest.approx({step: peak * (1 - step / total) for step in range(1, total + 1)}, abs=1e-9)


@needs_tensorboard
def test_a_resumed_run_goes_on_in_the_same_log(training, tmp_path):
    first, settings = training()
    log, asked = EventLog(tmp_path, first, settings), iter([False, False, True])
    with pytest.raises(Stopped):
        first.run(log.watching(Watcher(should_stop=lambda: next(asked))))
    log.close()
    second, _ = training()
    assert second.resume(replace(first.state(), step=3))
    log = EventLog(tmp_path, second, settings)
    second.run(log.watching(Watcher()))
    log.close()
    assert scalars(tmp_path)["loss/current"] == pytest.approx(dict(enumerate(second.losses, 1)), rel=1e-6)


@needs_tensorboard
def test_logging_changes_no_bit(training, tmp_path):
    plain, settings = training(log_with="none")
    plain.run()
    logged, settings = training()
    log = EventLog(tmp_path, logged, settings)
    logged.run(log.watching(Watcher()))
    log.close()
    assert logged.losses == plain.losses
    one, other = logged.network.state_dict(), plain.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert logged.compare(plain.state()).differences == ()


@needs_tensorboard
def test_a_place_that_cannot_be_written_is_named(training, tmp_path):
    (tmp_path / "file").touch()
    run, settings = training()
    with pytest.raises(FileError, match="logging_dir: .*file.* cannot be written"):
        EventLog(tmp_path / "file" / "logs", run, settings)


def test_without_tensorboard_a_word_is_said(monkeypatch):
    monkeypatch.setattr(event_log.importlib.util, "find_spec", lambda name: None)
    assert "tensorboard is not installed" in lacking(TrainingSettings(log_with="tensorboard"))
    assert not lacking(TrainingSettings())


@pytest.mark.parametrize(("text", "made"), [
    ('logging_dir = "logs"', ("tensorboard", "logs/")),
    ('logging_dir = "logs"\nlog_prefix = "v2"', ("tensorboard", "logs/v2")),
    ('logging_dir = "logs"\nlog_with = "wandb"', ("none", "logs/")),
    ('logging_dir = "logs"\nlog_with = "all"', ("tensorboard", "logs/")),
    ('log_with = "tensorboard"', ("tensorboard", "")), ('log_prefix = "v2"', ("none", "")),
    ('log_with = ""\nlogging_dir = ""', ("none", "")),
])
def test_kohyas_keys(text, made):
    read = read_settings(f"network_dim = 4\n{text}")
    assert (read.settings.log_with, read.settings.logging_dir) == made
    ignored = {key for key, _ in read.found.ignored}
    assert ignored == ({"log_with"} if "wandb" in text or "all" in text else
                       {"log_prefix"} if text == 'log_prefix = "v2"' else set())
