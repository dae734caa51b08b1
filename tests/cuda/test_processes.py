"""The command line on the GPU, alone and as two processes: nccl where each has a GPU of its own, else gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
CONFIG = """
[training_arguments]
output_name = "{name}"
max_train_epochs = 1
max_token_length = 75
train_batch_size = {batch}
resolution = 64
min_bucket_reso = 64
max_bucket_reso = 64
cache_latents = true
mixed_precision = "{precision}"
[additional_network_arguments]
network_module = "lycoris.kohya"
network_dim = 2
network_args = ["algo=loha", "conv_dim=0", "preset=attn-mlp"]
network_train_unet_only = true
[optimizer_arguments]
optimizer_type = "AdamW"
lr_scheduler = "custom"
"""


@pytest.fixture
def run(base, tmp_path):
    """Run train.py to its end and return its state and what it printed."""
    from kit.comfyui_server import free_port
    from kit.workspace import CHECKPOINT, COMFYUI
    from shinymas_loha.loha.training.run.folder import read_state

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"girl {number}", encoding="utf-8")

    def make(name, processes, batch, precision, **environment):
        config = tmp_path / f"{name}.toml"
        config.write_text(CONFIG.format(name=name, batch=batch, precision=precision), encoding="utf-8")
        launch = [sys.executable] if processes == 1 else [
            sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
            f"--master-port={free_port()}"]
        done = subprocess.run(
            [*launch, str(PACK / "train.py"), str(config), "--data", str(pictures), "--comfyui", str(COMFYUI),
             "--checkpoint", str(base / "models" / "checkpoints" / CHECKPOINT), "--output", str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "steps: 2 of 2" in done.stdout
        return read_state(tmp_path / name / "training.state")

    return make


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_two_processes_of_two_are_one_of_four(run, precision):
    one, two = run("one", 1, 4, precision), run("two", 2, 2, precision)
    assert two.losses == pytest.approx(one.losses, rel=1e-3 if precision == "no" else 1e-2)
