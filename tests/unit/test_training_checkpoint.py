"""A run's files: whole or not at all, whatever happens while they are written."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.files import atomic
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.run.fingerprint import COLUMNS, Fingerprint
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state
from shinymas_loha.loha.training.run.state import RunState, pack, unpack
from shinymas_loha.loha.training.settings import TrainingSettings

TESTS = Path(__file__).resolve().parents[1]
PICTURES = np.arange(2 * COLUMNS, dtype=np.uint8).reshape(2, COLUMNS)
FINGERPRINT = Fingerprint({"seed": 1, "rate": 0.1 + 0.2}, {"U-Net": "ab", "VAE": ""}, PICTURES)


def _state(step=3, size=10):
    generator = torch.Generator().manual_seed(step)
    optimiser = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(size, generator=generator), "k": 0.1}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "params": [0]}],
    }
    return RunState("17", FINGERPRINT, step, {"one.hada_w1_a": torch.randn(size, generator=generator)}, optimiser,
                    {"last_epoch": 3, "_last_lr": [0.1 + 0.2]}, {"scale": 65536.0}, (0.1, 0.2, 1 / 3), 12.5)


def test_a_state_comes_back_as_it_was(tmp_path, tiny_settings):
    folder = RunFolder.create(tmp_path, tiny_settings())
    folder.write_state(_state())
    one, other = _state(), read_state(folder.path / STATE_FILE)
    assert (other.session, other.step, other.losses, other.started) == (
        one.session, one.step, one.losses, one.started)
    assert (other.fingerprint.facts, other.fingerprint.weights) == (FINGERPRINT.facts, FINGERPRINT.weights)
    assert np.array_equal(other.fingerprint.pictures, PICTURES)
    assert torch.equal(other.parameters["one.hada_w1_a"], one.parameters["one.hada_w1_a"])
    assert torch.equal(other.optimiser["state"][0]["exp_avg"], one.optimiser["state"][0]["exp_avg"])
    assert other.optimiser["state"][0]["k"] == 0.1
    assert other.schedule == one.schedule and other.scaler == one.scaler


def test_states_within_states_come_back(tmp_path, tiny_settings):
    """bitsandbytes wraps its 8-bit tensors in a mapping of their own."""
    folder = RunFolder.create(tmp_path, tiny_settings())
    wrapped = {"state1": torch.arange(3, dtype=torch.uint8), "absmax1": torch.ones(2)}
    state = {"state": {0: {"step": 4, "quant": wrapped}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    folder.write_state(replace(_state(4), optimiser=state))
    found = read_state(folder.path / STATE_FILE).optimiser["state"][0]
    assert found["step"] == 4 and found.keys() == {"step", "quant"} and found["quant"].keys() == wrapped.keys()
    assert all(torch.equal(found["quant"][name], tensor) for name, tensor in wrapped.items())


@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: data[:-9], lambda data: data[: len(data) // 2], lambda data: b"\x80\x04pickle",
])
def test_a_broken_state_is_named(tmp_path, tiny_settings, spoil):
    folder = RunFolder.create(tmp_path, tiny_settings())
    folder.write_state(_state())
    path = folder.path / STATE_FILE
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FileError, match="training.state.*remove it to go on"):
        read_state(path)


def test_another_files_metadata_is_no_state():
    tensors, metadata = pack(_state())
    with pytest.raises(FileError, match="not a training state"):
        unpack(tensors, {})
    with pytest.raises(FileError, match="not a training state"):
        unpack(tensors, {"shinymas_state": "[]"})
    with pytest.raises(FileError, match="another version"):
        unpack(tensors, {"shinymas_state": metadata["shinymas_state"].replace('"layout": 2', '"layout": 3')})


def test_a_full_disk_leaves_the_state_before(tmp_path, tiny_settings, monkeypatch):
    folder = RunFolder.create(tmp_path, tiny_settings())
    folder.write_state(_state(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(FileError, match=f"cannot be written .* the permissions of {re.escape(str(folder.path))}"):
        folder.write_state(_state(2))
    assert read_state(folder.path / STATE_FILE).step == 1
    assert [path.name for path in folder.path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("name", ["../x", "CON", "a/../../b", "", "/abs"])
def test_no_run_leaves_its_folder(tmp_path, tiny_settings, name):
    with pytest.raises(FileError, match="output_name: '.*' cannot be a file name: .*Give a plain name"):
        RunFolder.create(tmp_path / "loras", tiny_settings(output_name=name))
    assert not (tmp_path / "x").exists()


@pytest.fixture
def kept(tmp_path, tiny_settings, monkeypatch):
    """Write files of epochs (plain numbers) and steps (`s10`) and tell which are left."""

    def run(written, **chosen):
        folder = RunFolder.create(tmp_path, tiny_settings(**chosen))
        monkeypatch.setattr(folder, "_write", lambda loha, name: (folder.path / f"{name}.safetensors").touch())
        for one in written:
            if one.startswith("s"):
                folder.write_step(None, int(one[1:]))
            else:
                folder.write_epoch(None, int(one))
        names = (path.stem.removeprefix("tiny-") for path in folder.path.glob("*.safetensors"))
        return {f"s{int(name[4:])}" if name.startswith("step") else str(int(name)) for name in names}

    return run


def _kohya(written, every_epochs, last_epochs, every_steps, last_steps):
    """kohya-ss/sd-scripts, library/train_util.py: get_remove_epoch_no and get_remove_step_no, after each file."""
    left = set()
    for one in written:
        left.add(one)
        if one.startswith("s"):
            gone = int(one[1:]) - (last_steps or 0) - 1
            gone = f"s{gone - gone % every_steps}" if last_steps else ""
        else:
            gone = str(int(one) - every_epochs * last_epochs) if last_epochs else ""
        left.discard(gone)
    return left


@pytest.mark.parametrize("last_steps", [1, 9, 10, 15, 30, 1000])
@pytest.mark.parametrize("last_epochs", [0, 1, 2])
def test_files_are_removed_as_by_kohya(kept, last_epochs, last_steps):
    """Steps of 10, epochs of 25 steps, every second epoch saved."""
    written = [name for step in range(10, 201, 10)
               for name in ([f"s{step}", str(step // 25)] if step % 50 == 0 else [f"s{step}"])]
    left = kept(written, save_every_n_steps=10, keep_last_steps=last_steps, keep_last=last_epochs,
                save_every_n_epochs=2)
    assert left == _kohya(written, 2, last_epochs, 10, last_steps)


def test_an_early_ends_file_is_removed_with_those_of_its_time(kept):
    written = ["s10", "s17", "s20", "s30", "s40", "s50", "s60"]
    assert kept(written, save_every_n_steps=10, keep_last_steps=30) == {"s30", "s40", "s50", "s60"}
    # Without steps of their own they count as epochs do.
    assert kept(["1", "s17", "2", "s30"], keep_last=2, keep_last_steps=30) == {"2", "s30"}
    assert kept(["s10", "1", "s20", "s30"], keep_last=2, save_every_n_steps=10) == {"s20", "s30"}


def test_kohyas_two_rules_do_not_meet():
    def read(text):
        settings = read_settings(text).settings
        return settings.keep_last, settings.keep_last_steps

    assert read("save_last_n_steps = 30\nsave_every_n_steps = 10") == (0, 30)
    assert read("save_last_n_epochs = 3\nsave_every_n_steps = 10\nsave_last_n_steps = 30") == (3, 30)
    epochs, steps = read("save_last_n_epochs = 3\nsave_every_n_steps = 10")
    assert epochs == 3 and steps >= TrainingSettings(max_train_steps=100_000_000).max_train_steps
    assert read("save_last_n_epochs = 3") == (3, 0)


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
from dataclasses import replace
from pathlib import Path
import torch
from shinymas_loha.loha.training.run.folder import RunFolder
from shinymas_loha.loha.training.settings import TrainingSettings
import numpy as np
from shinymas_loha.loha.training.run.fingerprint import COLUMNS, Fingerprint
from shinymas_loha.loha.training.run.state import RunState
mark = Fingerprint({}, {}, np.zeros((1, COLUMNS), np.uint8))
folder = RunFolder(Path(sys.argv[2]), TrainingSettings())
for step in range(1, 10**6):
    values = {"one": torch.full((2_000_000,), float(step))}
    folder.write_state(RunState("1", mark, step, values, {"state": {}, "param_groups": []}, {}, {}, (), 0.0))
    print(step, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_at_any_moment_the_state_is_whole(tmp_path):
    waits = [0.0, 0.004, 0.009, 0.017, 0.03]
    for wait in waits:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(TESTS), str(tmp_path)],
                                   stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for _ in range(2):
            told = int(process.stdout.readline())
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = read_state(tmp_path / STATE_FILE)
        assert state.step >= told
        assert bool((state.parameters["one"] == state.step).all())


@pytest.mark.parametrize("steps", [0, 1])
def test_an_old_file_that_cannot_be_removed_ends_no_run(tmp_path, tiny_settings, monkeypatch, caplog, steps):
    """As on Windows, while another program has it open."""
    folder = RunFolder.create(tmp_path, tiny_settings(keep_last=1, save_every_n_steps=1, keep_last_steps=steps))
    monkeypatch.setattr(folder, "_write", lambda loha, name: (folder.path / f"{name}.safetensors").touch())
    stuck = folder.path / ("tiny-step00000001.safetensors" if steps else "tiny-000001.safetensors")
    stuck.mkdir()
    for number in (4, 5):
        (folder.write_step if steps else folder.write_epoch)(None, number)
    assert stuck.is_dir() and f"{stuck} cannot be removed now" in caplog.text
