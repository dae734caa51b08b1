"""What runs on a CUDA GPU alone: skipped, with one reason, where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "dev"))

from kit.workspace import CHECKPOINT, COMFYUI, LOHA, add_samples  # noqa: E402

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA GPU here")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ComfyUI's own folder with the sample checkpoint and LoHa in it."""
    folder = tmp_path_factory.mktemp("comfyui")
    add_samples(folder, "tests")
    return folder


@pytest.fixture(scope="session")
def comfy(base: Path) -> Any:
    """ComfyUI's `comfy` package in this process, on the GPU."""
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.base_directory = str(base)
    import comfy.sd
    import comfy.utils

    return comfy


@pytest.fixture
def small_model(comfy: Any, base: Path) -> Any:
    """The ModelPatcher of the sample checkpoint, loaded anew for each test."""
    path = base / "models" / "checkpoints" / CHECKPOINT
    yield comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
    comfy.model_management.unload_all_models()


@pytest.fixture
def loha(base: Path) -> Any:
    from shinymas_loha.loha import files

    return files.read(base / "models" / "loras" / LOHA)
