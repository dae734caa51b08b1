"""The one place that decides which path merges a weight, by device, dtype, layout and rank.

A path that fails once (a compiler that does not start, a launch that a driver refuses) is not
tried again in this process; running out of memory is not such a failure and passes through.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..errors import SettingsError
from .layout import matrix_layout

GROUPED_TRITON = "grouped-triton"
FUSED_TRITON = "fused-triton"
GROUPED_TORCH = "grouped-torch"
CPU_BLOCKED = "cpu-blocked"
REFERENCE = "reference"
ROUTES = (GROUPED_TRITON, FUSED_TRITON, GROUPED_TORCH, CPU_BLOCKED, REFERENCE)
TRITON_ROUTES = (GROUPED_TRITON, FUSED_TRITON)

ROUTE_VARIABLE = "SHINYMAS_LOHA_ROUTE"
MAX_RANK = 128
# The first with tensor cores; Triton supports none before it.
_MIN_CAPABILITY = (7, 0)
_HALVES_AND_SINGLE = (torch.float16, torch.bfloat16, torch.float32)

_log = logging.getLogger(__name__)
# Route → what went wrong. For the whole process, because the cause is: a compiler, a driver.
_failed: dict[str, str] = {}


@dataclass(frozen=True)
class Route:
    """The path that a merge takes, and why not a faster one ("" where there is none)."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why else self.name


def choose(
    weight: Tensor, ranks: tuple[int, int], *, base: Tensor | None = None, grouped: bool = False
) -> Route:
    """Return the fastest path for a weight (out, in, *kernel), or the one that a person forces.

    Args:
        weight: what is written; its device, dtype and strides decide.
        ranks: of the two products.
        base: what is added to, where that is another tensor than the weight; its strides decide too.
        grouped: whether a whole file's modules are merged together.

    Raises:
        SettingsError: the environment variable SHINYMAS_LOHA_ROUTE names no route.
    """
    reasons = []
    weights = (weight,) if base is None or base is weight else (weight, base)
    for name in _forced(grouped):
        obstacle = _obstacle(name, weights, ranks)
        if not obstacle:
            return Route(name, "; ".join([*reasons, f"forced by {ROUTE_VARIABLE}"]))
        reasons.append(f"{name}, forced by {ROUTE_VARIABLE}, cannot run: {obstacle}")
    for name in _fastest_first(weight.device.type, grouped):
        obstacle = _obstacle(name, weights, ranks)
        if not obstacle:
            return Route(name, "; ".join(dict.fromkeys(reasons)))
        reasons.append(obstacle)
    if weight.device.type not in ("cuda", "cpu"):
        reasons.append(f"no faster path for {weight.device.type} devices")
    return Route(REFERENCE, "; ".join(dict.fromkeys(reasons)))


def attempt(route: Route, merge: Callable[[], None]) -> bool:
    """Run `merge`; return False where a Triton route failed, now or earlier, before it wrote anything.

    Compiling and launching fail before the kernel runs, so the weight is untouched and the next
    path may take over. Errors of the torch paths are errors; running out of memory always is.
    """
    if route.name in _failed:
        return False
    try:
        merge()
    except Exception as error:
        if route.name not in TRITON_ROUTES or _is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        _failed[route.name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        _log.warning("LoHa merge: %s failed and is not tried again: %s", route.name, _failed[route.name])
        return False
    return True


def _forced(grouped: bool) -> tuple[str, ...]:
    """The route that a person forces; of Triton's two, the one for a single weight may stand in."""
    name = os.environ.get(ROUTE_VARIABLE, "").strip()
    if name and name not in ROUTES:
        raise SettingsError(
            f"{ROUTE_VARIABLE} is {name!r}, which is no route. Set it to one of {', '.join(ROUTES)}, or unset it."
        )
    if name == GROUPED_TRITON:
        return TRITON_ROUTES if grouped else (FUSED_TRITON,)
    return (name,) if name else ()


def _fastest_first(device_type: str, grouped: bool) -> tuple[str, ...]:
    if device_type == "cuda":
        return ROUTES[:3] if grouped else ROUTES[1:3]
    return (CPU_BLOCKED,) if device_type == "cpu" else ()


def _obstacle(name: str, weights: tuple[Tensor, ...], ranks: tuple[int, int]) -> str:
    """Why this route cannot merge into the first of these (from the second, if there is one), or ""."""
    weight = weights[0]
    if name in _failed:
        return f"{name} failed in this process: {_failed[name]}"
    if name == REFERENCE:
        return ""
    device = weight.device.type
    if name == CPU_BLOCKED:
        if device != "cpu":
            return f"{name} is for the CPU"
        return "" if weight.dtype in (*_HALVES_AND_SINGLE, torch.float64) else f"{weight.dtype} weight"
    if weight.dtype not in _HALVES_AND_SINGLE:
        return f"{weight.dtype} weight"
    if name == GROUPED_TORCH:
        return "" if device in ("cuda", "cpu") else f"{name} is for CUDA"
    return _no_triton(device, weight.device.index) or _unsuited(name, weights, ranks)


def _unsuited(name: str, weights: tuple[Tensor, ...], ranks: tuple[int, int]) -> str:
    if max(ranks) > MAX_RANK:
        return f"rank {max(ranks)} is over {MAX_RANK}"
    layouts = [matrix_layout(weight) for weight in weights]
    for weight, layout in zip(weights, layouts, strict=True):
        if layout is None:
            return f"strides {weight.stride()} of shape {tuple(weight.shape)} form no matrix"
    if name == GROUPED_TRITON and any(layout.column != 1 or layout.kernel != 1 for layout in layouts):
        return "a weight whose rows are not contiguous is merged by itself"
    if layouts[0].kernel != layouts[-1].kernel:
        return f"strides {weights[0].stride()} and {weights[-1].stride()} differ in kind"
    return ""


@cache
def _no_triton(device_type: str, index: int | None) -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device_type == "cpu":
        # Only ever asked for when a person forces it: this is how the kernels are tested without a GPU.
        return "" if os.environ.get("TRITON_INTERPRET") == "1" else "Triton needs a GPU"
    if device_type != "cuda":
        return f"Triton is not used on {device_type} devices"
    if torch.version.hip:
        return "Triton is not used on AMD GPUs"
    capability = torch.cuda.get_device_capability(index)
    if capability < _MIN_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is under 7.0, which Triton needs"
    return ""


def _is_out_of_memory(error: Exception) -> bool:
    """torch's own error, the interpreter's, or the driver's as Triton passes it on."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in str(error).lower()
