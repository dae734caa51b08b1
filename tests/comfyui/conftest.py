"""A real ComfyUI for the tests: a server with the pack in it, and its libraries in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "dev"))

from kit.comfyui_server import ComfyUIServer, free_port  # noqa: E402
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, ROOT, add_samples  # noqa: E402

TRAINING_TOML = """
[training_arguments]
output_name = "{name}"
max_train_epochs = {epochs}
max_token_length = 75
train_batch_size = {batch}
resolution = 64
min_bucket_reso = 64
max_bucket_reso = 64
cache_latents = {cache}
save_every_n_epochs = {save_every}
[additional_network_arguments]
network_module = "lycoris.kohya"
network_dim = 2
network_args = ["algo=loha", "conv_dim=0", "preset=attn-mlp"]
network_train_unet_only = true
[optimizer_arguments]
optimizer_type = "AdamW"
lr_scheduler = "custom"
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's own folder: models with the sample checkpoint and LoHa, user files, pictures."""
    folder = tmp_path_factory.mktemp("comfyui")
    add_samples(folder, "tests")
    return folder


@pytest.fixture(scope="session")
def checkpoint(base: Path) -> str:
    """Name of the sample checkpoint, as CheckpointLoaderSimple takes it."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def sample_loha(base: Path) -> str:
    """Name of the sample LoHa, as a loader takes it: it fits `checkpoint` in every module."""
    return LOHA


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[ComfyUIServer]:
    """A running ComfyUI with the pack, one for the whole session."""
    with ComfyUIServer(COMFYUI, base, python=PYTHON) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server: ComfyUIServer) -> dict[str, Any]:
    return server.get("/object_info")


@pytest.fixture
def node(object_info: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """A node of an API prompt: inputs by keyword, the others as they are by default."""

    def make(kind: str, **inputs: Any) -> dict[str, Any]:
        required = object_info[kind]["input"]["required"]
        defaults = {
            name: spec[1].get("default", spec[0][0] if isinstance(spec[0], list) else None)
            for name, spec in required.items() if len(spec) > 1 and "default" in spec[1]
        }
        return {"class_type": kind, "inputs": defaults | inputs}

    return make


@pytest.fixture(scope="session")
def run_graph(server: ComfyUIServer) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Run an API prompt to its end: node id → outputs. Raises PromptFailed with the node's error."""
    return server.run


@pytest.fixture(scope="session")
def comfy(base: Path) -> Any:
    """ComfyUI's `comfy` package in this process: on the CPU, with the server's models and folders."""
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = True
    args.base_directory = str(base)
    import comfy.sd
    import comfy.utils

    return comfy


@pytest.fixture
def unloaded(comfy):
    """No model is loaded, before and after."""
    comfy.model_management.unload_all_models()
    yield
    comfy.model_management.unload_all_models()


@pytest.fixture(scope="session")
def _loaded(comfy: Any, base: Path, checkpoint: str) -> tuple[Any, Any, Any]:
    path = base / "models" / "checkpoints" / checkpoint
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


@pytest.fixture
def small_model(_loaded: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """(ModelPatcher, CLIP, VAE) of the sample checkpoint; the first two are clones for this test."""
    model, clip, vae = _loaded
    return model.clone(), clip.clone(), vae


@pytest.fixture
def few_pictures(tmp_path: Path) -> Path:
    """A folder with five captioned pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}", encoding="utf-8")
    return folder


@pytest.fixture
def training_command(base: Path, checkpoint: str, few_pictures: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command of a run of `train.py` that writes to `tmp_path`, under torchrun where `processes` are several."""

    def make(name: str, processes: int = 1, batch: int = 2, epochs: int = 1, *more: str,
             cache: str = "true", save_every: int = 1) -> list[str]:
        config = tmp_path / f"{name}.toml"
        config.write_text(
            TRAINING_TOML.format(name=name, batch=batch, epochs=epochs, cache=cache, save_every=save_every),
            encoding="utf-8")
        launch = [sys.executable] if processes == 1 else [
            sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
            f"--master-port={free_port()}"]
        return [*launch, str(ROOT / "train.py"), str(config), "--data", str(few_pictures), "--comfyui", str(COMFYUI),
                "--checkpoint", str(base / "models" / "checkpoints" / checkpoint), "--output", str(tmp_path), "--cpu",
                *more]

    return make


@pytest.fixture
def one_thread() -> dict[str, str]:
    """The environment for processes that share this machine's cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
