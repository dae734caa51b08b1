"""The Triton kernels: correct under the interpreter and on a GPU, and compilable for one from here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not published for this platform"
)


def _pytest(name: str, **environment: str) -> None:
    """Run one of triton_kernels/ in a process of its own: how Triton runs is settled at its import."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(HERE.parent / "pytest.ini"), str(HERE / "triton_kernels" / name)],
        env={**os.environ, **environment}, capture_output=True, text=True, encoding="utf-8", check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_under_the_interpreter():
    _pytest("against_float64.py", TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_on_the_gpu():
    _pytest("against_float64.py", TRITON_INTERPRET="0")


def test_compiled_for_hopper_and_ampere():
    _pytest("compiled.py", TRITON_INTERPRET="0")


def test_layers_merged_together_under_the_interpreter():
    _pytest("grouped_layers.py", TRITON_INTERPRET="1")
