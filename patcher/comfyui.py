"""The one place that knows where ComfyUI versions differ (0.3.75 is the oldest served)."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields: Any) -> io.Schema:
    """`io.Schema` without the fields that this ComfyUI does not know yet (`search_aliases` came with 0.11)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _FIELDS})


def merge_dtype(device: torch.device) -> torch.dtype:
    """What ComfyUI adds patches up in before it rounds to the weight's dtype: float32 until 0.4 or so."""
    chosen = getattr(comfy.model_management, "lora_compute_dtype", None)
    return chosen(device) if chosen else torch.float32
