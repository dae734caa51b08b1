"""Where the development tools keep their things, and the sample models they draw with."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
# Folders of their own: a demo may run while somebody has `make serve` open.
DEMO_BASE = TOOLS / "demo"
SERVE_BASE = TOOLS / "serve"

# Set by the Makefile; the defaults are what it builds.
COMFYUI = Path(os.environ.get("COMFYUI", TOOLS / "comfyui"))
PYTHON = os.environ.get("PYTHON", sys.executable)

CHECKPOINT = "random-weights.safetensors"
LOHA = "random-loha.safetensors"


def has_gpu() -> bool:
    """Whether ComfyUI's own Python finds a CUDA GPU."""
    # A session of its own, here and below: Ctrl-C is for us, who end it without its traceback.
    asked = subprocess.run([PYTHON, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"], check=False,
                           start_new_session=True)
    return asked.returncode == 0


def add_samples(base: Path, size: str) -> None:
    """Put the sample checkpoint and LoHa of this size into `base`'s model folders.

    They are written once, and again when the script that writes them has changed.
    """
    for name, folder, writer in ((CHECKPOINT, "checkpoints", "checkpoint"), (LOHA, "loras", "sample_loha")):
        written = _written(TOOLS / "samples" / size / name, writer, size)
        link = base / "models" / folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(written)


def _written(path: Path, writer: str, size: str) -> Path:
    kit = Path(__file__).parent
    if not path.exists() or path.stat().st_mtime < (kit / f"{writer}.py").stat().st_mtime:
        print(f"writing {path}", flush=True)
        command = [PYTHON, "-m", f"{kit.name}.{writer}", path, "--comfyui", COMFYUI.absolute(), "--size", size]
        subprocess.run(command, cwd=kit.parent, check=True, start_new_session=True)
    return path


def library(name: str):
    """A module of the pack, loaded under a package name of its own."""
    if "shinymas_loha" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "shinymas_loha", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules["shinymas_loha"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["shinymas_loha"])
    return importlib.import_module(f"shinymas_loha.{name}")
