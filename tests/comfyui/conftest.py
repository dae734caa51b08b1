"""A real ComfyUI for the tests: a server with the pack in it, and its libraries in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "dev"))

from kit.comfyui_server import ComfyUIServer  # noqa: E402
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, add_samples  # noqa: E402


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


@pytest.fixture(scope="session")
def _loaded(comfy: Any, base: Path, checkpoint: str) -> tuple[Any, Any, Any]:
    path = base / "models" / "checkpoints" / checkpoint
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


@pytest.fixture
def small_model(_loaded: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """(ModelPatcher, CLIP, VAE) of the sample checkpoint; the first two are clones for this test."""
    model, clip, vae = _loaded
    return model.clone(), clip.clone(), vae
