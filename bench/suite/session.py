"""What every benchmark shares: ComfyUI and the pack in this process, the device, how long to measure."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from kit.workspace import COMFYUI

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Session:
    """How to measure.

    Args:
        device: where weights lie.
        seconds: time for each comparison of contenders, after their warm-up.
        quick: a few small weights instead of all: shows that a benchmark works, its figures mean nothing.
        bandwidth: bytes a second that a large copy reads and writes on `device`.
    """

    device: torch.device
    seconds: float
    quick: bool
    bandwidth: float


def load_comfyui_and_pack() -> torch.device:
    """Make `comfy` and the pack (as `shinymas_loha`) importable; returns the device to measure on."""
    has_gpu = torch.cuda.is_available()
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = not has_gpu
    load_pack()
    return torch.device("cuda" if has_gpu else "cpu")


def load_pack() -> None:
    """Make the pack importable as `shinymas_loha`.

    It is loaded as ComfyUI does, under a name of its own: with the repository's root on sys.path its `nodes/` would
    shadow ComfyUI's.
    """
    spec = importlib.util.spec_from_file_location(
        "shinymas_loha", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["shinymas_loha"] = pack
    spec.loader.exec_module(pack)
