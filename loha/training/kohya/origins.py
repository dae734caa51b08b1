"""Where the values of a run came from: the file, this pack's defaults, or kohya's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from ....text import show
from ..settings.hyper_parameters import KOHYA, MODEL_CARD
from .toml import as_toml

_STEERING = ("defaults", "folders")


def default_lines(options: Any, given: Collection[str], defaults: str, kohya: Mapping[str, Any]) -> list[str]:
    """Lines that say which values stand in the file, and each default in which kohya's scripts differ.

    Args:
        options: the dataclass that came out.
        given: its fields that the file names.
        defaults: whose values the others are.
        kohya: field → the default of kohya's scripts, as a value of the field.
    """
    names = [item.name for item in fields(options) if item.name not in _STEERING]
    named = ", ".join(name for name in names if name in given)
    lines = [f"from the file: {named}"] if named else []
    ours = type(options)()
    for name in names:
        if name in given or name not in kohya or kohya[name] == getattr(ours, name):
            continue
        other = getattr(ours, name) if defaults == KOHYA else kohya[name]
        whose = "the model card's" if defaults == KOHYA else "kohya's"
        lines.append(f"default: {name} = {_shown(getattr(options, name))}; {whose} is {_shown(other)}")
    if any(line.startswith("default") for line in lines):
        taken, rest = ("kohya's", MODEL_CARD) if defaults == KOHYA else ("the model card's", KOHYA)
        lines.append(f"note: these defaults are {taken}; for the others set defaults to {rest}")
    return lines


def _shown(value: Any) -> str:
    return show(value, 80) if isinstance(value, str) else as_toml(value)
