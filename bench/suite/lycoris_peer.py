"""LyCORIS' ΔW of a LoHa: its eager code, and its fused kernels where the installed version has them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def diff_weights(device: torch.device, scale: float) -> list[tuple[str, Callable[[Four], Tensor]]]:
    """Name → function from (w1_a, w1_b, w2_a, w2_b) to ΔW, differentiable, for what runs on `device`."""
    gamma = torch.tensor(scale, device=device)
    if importlib.util.find_spec("lycoris.kernels") is None:  # came with version 4
        return [("LyCORIS eager", partial(_diff_weight, gamma=gamma))]
    fused = importlib.import_module("lycoris.kernels").fused_backends(device) if device.type == "cuda" else ()
    return [("LyCORIS eager", partial(_diff_weight, gamma=gamma, backend="torch"))] + [
        (f"LyCORIS {backend}", partial(_diff_weight, gamma=scale, backend=backend)) for backend in fused
    ]


def _diff_weight(four: Four, **options: object) -> Tensor:
    from lycoris.functional.loha import diff_weight

    w1_a, w1_b, w2_a, w2_b = four
    return diff_weight(w1_b, w1_a, w2_b, w2_a, None, None, **options)
