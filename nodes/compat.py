"""The one place that knows where ComfyUI versions differ (0.3.75 is the oldest served)."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields: Any) -> io.Schema:
    """`io.Schema` without the fields that this ComfyUI does not know yet (`search_aliases` came with 0.11)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _FIELDS})
