"""Values that programs keep as texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...settings.fields import describe
from ...settings.hyper_parameters import TrainingSettings
from ...settings.pictures import CaptionOptions, DataOptions
from ..keys import KEYS

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def with_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers where a program keeps them as texts ("1e-4"), and whole ones where they are counted (1.0)."""
    return {key: _number(_kind(key), value) for key, value in values.items()}


def arguments(table: Mapping[str, Any]) -> list[str]:
    """`key=value` as the scripts take optimizer_args and network_args; what says nothing is left out."""
    return [f"{key}={value}" for key, value in table.items() if value not in ("", None)]


def joined(*values: Any) -> Any:
    """Arguments out of several places, as one list; a value that is no list as it is, for its own check to refuse."""
    wrong = [value for value in values if not isinstance(value, list)]
    return wrong[0] if wrong else [one for value in values for one in value]


def _kind(key: str) -> type | None:
    row = KEYS.get(key)
    for options in (TrainingSettings, DataOptions, CaptionOptions):
        if row is not None and row.field in describe(options):
            return describe(options)[row.field].kind
    return None


def _number(kind: type | None, value: Any) -> Any:
    if isinstance(value, str) and kind is not str and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, float) and value.is_integer() and kind is not float:
        return int(value)
    return value
