"""Whether an interrupted run may go on exactly: what differs is found, counted and named."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shinymas_loha.loha import files
from shinymas_loha.loha.training.data import FolderOptions, Latents, TrainingData, index_pictures
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state, state_beside
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, Watcher

KEPT = Path(__file__).resolve().parents[1] / "data" / "0.1.0" / "run"
# As version 0.1.0's run was started: `tiny_models`, the five pictures of `tiny_data`, stopped after step 4 of 6.
CHOSEN = {"module_filter": "*mid_block*attn1*"}


@pytest.fixture
def run(tiny_models, tiny_data, tiny_settings):
    """Make a run over the pictures as they are now; `data` are options of theirs, what is not named a setting."""
    options = tiny_data().options

    def make(folder=None, data=None, precision="fp32", vae_key="vae", **chosen):
        here = replace(options, **(data or {}))
        pictures = TrainingData(index_pictures(here), here)
        return Training(
            replace(tiny_models, vae_key=vae_key), pictures, Latents(pictures, tiny_models.encode),
            tiny_settings(**{**CHOSEN, **chosen}), session="17", precision=precision, folder=folder)

    return make


@pytest.fixture
def pictures(tmp_path):
    return tmp_path / "1_pictures"


def repaint(path: Path, seed: int = 7) -> None:
    """Other pixels, the same name, size and time."""
    before = path.stat()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_changed_is_nothing_named(run, tmp_path, tiny_settings):
    folder = RunFolder.create(tmp_path / "loras", tiny_settings())
    first = run(folder=folder)
    with pytest.raises(Stopped):
        first.run(Watcher(should_stop=lambda: first.done == 2))
    state = read_state(folder.path / STATE_FILE)
    assert state.step == 3
    second = run(folder=folder)
    assert second.compare(state) == ((), ())
    assert second.resume(state)
    assert run(keep_last=3, max_train_epochs=9, gradient_checkpointing=True).compare(state).differences == ()


@pytest.mark.parametrize(("chosen", "named"), [
    ({"seed": 1}, ["seed: 1, was 0"]),
    ({"learning_rate": 5e-4, "module_filter": ""}, [
        "learning_rate: 0.0005, was 0.001", "module_filter: nothing, was *mid_block*attn1*"]),
    ({"noise_offset": 0.05, "min_snr_gamma": 5.0}, ["min_snr_gamma: 5.0, was 0.0", "noise_offset: 0.05, was 0.0"]),
    ({"precision": "bf16"}, ["precision here: bf16, was fp32"]),
    ({"optimizer": "SGD"}, ["optimizer: SGD, was AdamW",
                            "optimiser here: torch.optim.sgd.SGD, was torch.optim.adamw.AdamW"]),
    ({"data": {"batch_size": 1}}, ["batch_size: 1, was 2"]),
    ({"data": {"fit": "pad"}}, ["fit: pad, was crop"]),
    ({"vae_key": "other"}, ["VAE: another one, its weights are not the same"]),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else None)
def test_a_changed_setting_is_named(run, chosen, named):
    state = run().state()
    other = run(**chosen)
    assert sorted(other.compare(state).differences) == sorted(named)
    assert not other.resume(state)
    assert other.done == 0


def test_the_length_of_a_run_counts_where_the_schedule_looks_at_it(run):
    state = run(lr_scheduler="cosine").state()
    assert run(lr_scheduler="cosine", max_train_epochs=9).compare(state).differences == ("steps in all: 27, was 6",)


def test_another_base_model_is_named(run, tiny_models):
    state = run().state()
    weight = next(tiny_models.unet.parameters())
    text = next(tiny_models.text.model.parameters())
    before = weight.clone(), text.clone()
    try:
        with torch.no_grad():
            weight.view(-1)[0] += 1e-3
        assert run().compare(state).differences == ("U-Net: another one, its weights are not the same",)
        with torch.no_grad():
            weight.copy_(before[0])
            text.view(-1)[-1] += 1e-3
        assert run().compare(state).differences == ("text encoder: another one, its weights are not the same",)
    finally:
        with torch.no_grad():
            weight.copy_(before[0])
            text.copy_(before[1])
    assert run().compare(state).differences == ()


def test_an_unknown_vae_is_not_called_the_same(run):
    state = run().state()
    assert run(vae_key="").compare(state) == ((), ("VAE",))


def test_pictures_with_other_contents_are_counted_and_named(run, pictures):
    state = run().state()
    repaint(pictures / "3.png")
    assert run().compare(state).differences == ("pictures: 1 has other content (3.png)",)
    repaint(pictures / "0.png", 1)
    repaint(pictures / "1.png", 2)
    repaint(pictures / "4.png", 3)
    assert run().compare(state).differences == ("pictures: 4 have other content (0.png, 1.png, 3.png, …)",)


def test_pictures_and_captions_that_came_went_and_changed(run, pictures):
    state = run().state()
    (pictures / "0.txt").write_text("boy", encoding="utf-8")
    (pictures / "1.png").unlink()
    shutil.copy(pictures / "2.png", pictures / "9.png")
    assert run().compare(state).differences == (
        "pictures: 1 is new (9.png)", "pictures: 1 has another caption (0.png)", "pictures: 1 is gone")


def test_a_folder_that_moved_is_the_same_and_one_that_is_called_otherwise_is_not(run, pictures, tmp_path):
    state = run().state()
    moved = tmp_path / "elsewhere"
    shutil.move(pictures, moved / "1_pictures")

    def over(path):
        return run(data={"folders": (FolderOptions(path, repeats=1),)})

    assert over(moved / "1_pictures").compare(state).differences == ()
    (moved / "1_pictures").rename(moved / "2_pictures")
    assert "the folders of pictures, or their order" in over(moved / "2_pictures").compare(state).differences


def test_a_run_of_0_1_0_goes_on_exactly(run, tmp_path):
    folder = shutil.copytree(KEPT, tmp_path / "run")
    state = state_beside(files.read(folder / "tiny-step00000004.safetensors"))
    whole = run()
    whole.run()
    going_on = run(folder=RunFolder(folder, whole._settings))
    assert going_on.compare(state) == ((), ("U-Net", "text encoder", "VAE", "the pictures' contents"))
    assert going_on.resume(state)
    assert going_on.done == 4
    going_on.run()
    assert going_on.losses == pytest.approx(whole.losses, abs=1e-6)
    assert json.loads(json.dumps(read_state(folder / STATE_FILE).fingerprint.facts)) == whole.fingerprint.facts


def test_a_run_of_0_1_0_that_differs_does_not(run, tmp_path):
    state = read_state(KEPT / STATE_FILE)
    other = run(seed=1)
    assert other.compare(state).differences == (
        "settings, pictures, captions, precision or optimiser: a state of version 0.1.0 does not tell which",)
    assert not other.resume(state)


def test_times_are_not_contents(run, pictures):
    state = run().state()
    for path in pictures.iterdir():
        os.utime(path, (time.time() - 9, time.time() - 9))
    assert run().compare(state).differences == ()
