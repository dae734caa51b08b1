"""The command line: one process and two, Ctrl-C, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kit.comfyui_server import free_port
from kit.workspace import COMFYUI
from PIL import Image
from shinymas_loha.loha.training.run.folder import read_state

PACK = Path(__file__).resolve().parents[2]
CONFIG = """
[training_arguments]
output_name = "{name}"
max_train_epochs = {epochs}
max_token_length = 75
train_batch_size = {batch}
resolution = 64
min_bucket_reso = 64
max_bucket_reso = 64
cache_latents = true
[additional_network_arguments]
network_module = "lycoris.kohya"
network_dim = 2
network_args = ["algo=loha", "conv_dim=0", "preset=attn-mlp"]
network_train_unet_only = true
[optimizer_arguments]
optimizer_type = "AdamW"
lr_scheduler = "custom"
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}", encoding="utf-8")
    return folder


@pytest.fixture
def command(base, checkpoint, pictures, tmp_path):
    """The command of a run, and the environment for it."""

    def make(name, processes=1, batch=2, epochs=1, *more):
        config = tmp_path / f"{name}.toml"
        config.write_text(CONFIG.format(name=name, batch=batch, epochs=epochs), encoding="utf-8")
        launch = [sys.executable] if processes == 1 else [
            sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
            f"--master-port={free_port()}"]
        return [*launch, str(PACK / "train.py"), str(config), "--data", str(pictures), "--comfyui", str(COMFYUI),
                "--checkpoint", str(base / "models" / "checkpoints" / checkpoint), "--output", str(tmp_path), "--cpu",
                *more]

    return make


@pytest.fixture
def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_processes_of_two_are_one_of_four(command, environment, tmp_path):
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        done = subprocess.run(command(name, processes, batch), env=environment, capture_output=True, text=True,
                              timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "steps: 2 of 2" in done.stdout
    one, two = (read_state(tmp_path / name / "training.state") for name in ("one", "two"))
    assert two.losses == pytest.approx(one.losses, rel=1e-5)
    for name, tensor in one.parameters.items():
        assert float((two.parameters[name] - tensor).norm()) <= 1e-3 * float(tensor.norm()), name
    assert (tmp_path / "two" / "two.safetensors").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_saves_and_the_run_can_be_gone_on_with(command, environment, tmp_path):
    process = subprocess.Popen(command("stopped", 1, 2, 3), env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while not (tmp_path / "stopped" / "stopped-000001.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    state = read_state(tmp_path / "stopped" / "training.state")
    assert 3 <= state.step < 9
    newest = max((tmp_path / "stopped").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    done = subprocess.run(command("stopped", 1, 2, 3, "--resume", str(newest)), env=environment, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resumed: exactly, after step {state.step}" in done.stdout
    assert "steps: 9 of 9" in done.stdout


def test_what_cannot_be_used_is_one_line(command, environment):
    bad = command("bad")
    bad[bad.index("--data") + 1] = "no such folder"
    done = subprocess.run(bad, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: no such folder: no such folder")


@pytest.mark.parametrize("old, new, words", [
    ('output_name = "bad"', 'output_name = "a:b"', "output_name: 'a:b' cannot be a file name: it holds :, which"),
    ('optimizer_type = "AdamW"', 'optimizer_type = "AdamW"\noptimizer_args = ["momentum=0.9"]',
     "optimizer AdamW does not take 'momentum=0.9'"),
])
def test_settings_are_judged_before_pictures_and_models(command, environment, tmp_path, old, new, words):
    bad = command("bad")
    config = tmp_path / "bad.toml"
    config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    bad[bad.index("--data") + 1] = bad[bad.index("--checkpoint") + 1] = "looked at later"
    done = subprocess.run(bad, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {words}")


def test_help_and_a_wrong_command_line(environment, tmp_path):
    told = subprocess.run([sys.executable, str(PACK / "train.py"), "--help"], env=environment, capture_output=True,
                          text=True, timeout=300)
    assert told.returncode == 0
    assert "--resume" in told.stdout
    wrong = subprocess.run([sys.executable, str(PACK / "train.py"), "x.toml", "--comfyui", str(tmp_path)],
                           env=environment, capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2
    assert "is no ComfyUI" in wrong.stderr
