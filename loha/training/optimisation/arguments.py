"""`key=value` arguments, as kohya's scripts write them for optimisers and schedules."""

from __future__ import annotations

import ast
from typing import Any

from ....text import show
from ...errors import SettingsError


def parse_arguments(text: str, setting: str = "optimizer_args") -> dict[str, Any]:
    """`weight_decay=0.01 betas=0.9,0.99` → values: Python literals, a bare comma makes a tuple.

    Args:
        setting: whose text this is, for messages.

    Raises:
        SettingsError: with the part that is wrong.
    """
    values = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if not (equals and key.isidentifier()):
            raise SettingsError(f"{setting}: {show(repr(part))} is not key=value")
        try:
            values[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise SettingsError(
                f"{setting}: {show(repr(value))} of {show(key)} is neither a number, True, False nor a list"
            ) from error
    return values
