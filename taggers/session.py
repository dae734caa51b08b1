"""onnxruntime, which is optional, and a model opened with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..loha.errors import FileError, SettingsError
from ..text import show

# What an input may be made of, by onnxruntime's name for it.
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_INSTALL = ("Taggers and identity models need onnxruntime, which ComfyUI does not bring along. Install it into "
            "ComfyUI's own Python, `python -m pip install onnxruntime` (onnxruntime-gpu for NVIDIA cards), and start "
            "ComfyUI anew.")
# The fastest first; what is not there is left out.
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def onnxruntime() -> Any:
    """The package itself. Raises SettingsError, with what to install, where it is not there or does not load."""
    try:
        import onnxruntime as runtime
    except ModuleNotFoundError as error:
        raise SettingsError(_INSTALL) from error
    except ImportError as error:  # there, but a library that it needs is not
        raise SettingsError(f"onnxruntime is installed and cannot be loaded ({first_line(error)}); install it anew.") \
            from error
    return runtime


def open_session(runtime: Any, model: Path) -> Any:
    """An InferenceSession of a model that `check_model` has let pass. Raises FileError where onnxruntime does not."""
    there = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(os.fspath(model), providers=[one for one in _PROVIDERS if one in there])
    # onnxruntime's own exceptions have no common base but this one: any means a file that it does not take.
    except Exception as error:
        raise FileError(f"{show(model.name)}: onnxruntime cannot open it ({first_line(error)}). Get it anew; if it is "
                        "whole, a newer onnxruntime may know it.") from error


def first_line(error: Exception) -> str:
    return show(str(error).partition("\n")[0], 160)
