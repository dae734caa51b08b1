"""Dataclass fields that carry their own range and help: one source for checks, widgets and --help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_type_hints

from ....text import show
from ...errors import SettingsError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Described:
    """What a widget or a `--help` line needs to know of one field.

    `low`, `high` and `step` are None, `choices` and `former` are empty where they do not apply; `since` is empty
    for what version 0.1.0 had. `widget` is false for what files alone say.
    """

    name: str
    kind: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    since: str = ""
    widget: bool = True


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that argparse and every reader use
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: tuple[str, ...] = (),
    former: tuple[tuple[str, str], ...] = (),
    since: str = "",
    widget: bool = True,
) -> Any:
    """A dataclass field with its default, one line of help, and its range (inclusive) or choices.

    `former` pairs (name, name of today) of choices, as saved graphs and configurations still say them. `since` is the
    version that brought the field, for those that came after 0.1.0: at its default such a field must change nothing.
    Without a `widget` a field is set by files alone.
    """
    return field(default=default, metadata={
        "help": help, "low": low, "high": high, "step": step, "choices": choices, "former": former,
        "since": since, "widget": widget,
    })


def describe(kind: type) -> dict[str, Described]:
    """The fields of a dataclass that were made by `option`, in their order."""
    hints = get_type_hints(kind)
    return {
        item.name: Described(item.name, hints[item.name], item.default, **item.metadata)
        for item in fields(kind) if item.metadata and item.default is not MISSING
    }


def chosen(instance: Any) -> dict[str, Any]:
    """Field → value of a dataclass, without the later ones that are at their default: as if they did not exist."""
    later = {name: field.default for name, field in describe(type(instance)).items() if field.since}
    values = {item.name: getattr(instance, item.name) for item in fields(instance)}
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def later(instance: Any) -> dict[str, Any]:
    """Field → value of a dataclass's fields that came after 0.1.0 and are not at their default."""
    return {name: value for name, field in describe(type(instance)).items()
            if field.since and (value := getattr(instance, name)) != field.default}


def coerced(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` in the types that the fields of `kind` have.

    A whole number may stand for a float, nothing else is converted: "16" is not 16, true is not 1.

    Raises:
        SettingsError: a value of another type, not finite, out of its range or not among the choices.
    """
    described = describe(kind)
    return {name: _coerce(described[name], value) for name, value in values.items()}


def check(instance: Any) -> None:
    """Raise `SettingsError` unless every field made by `option` is of its type and in its range."""
    for item in describe(type(instance)).values():
        _coerce(item, getattr(instance, item.name))


def _coerce(item: Described, value: Any) -> Any:
    if item.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not item.kind:
        raise SettingsError(
            f"{item.name}: expected {_KINDS[item.kind]}, found {show(repr(value))} ({type(value).__name__})"
        )
    if isinstance(value, str):
        value = dict(item.former).get(value, value)
    if item.choices and value not in item.choices:
        raise SettingsError(f"{item.name}: {show(repr(value))} is not one of {', '.join(item.choices)}")
    if item.kind in (int, float):
        if not math.isfinite(value):
            raise SettingsError(f"{item.name}: {value} is not a finite number")
        if (item.low is not None and value < item.low) or (item.high is not None and value > item.high):
            raise SettingsError(f"{item.name}: {value} is outside {item.low} to {item.high}")
        if item.kind is int and item.step and value % item.step:
            raise SettingsError(f"{item.name}: {value} is not a multiple of {int(item.step)}")
    return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
