"""Widgets out of the libraries' own fields: their ranges, defaults and help are stated once, there."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import io

from ..loha.training.settings.fields import Described
from ..patcher.comfyui import folded

# What one click of the arrows changes, and so how many digits are shown.
_RATE_STEP, _STEP = 1e-6, 0.01


def inputs_of(fields: Iterable[Described], multiline: Iterable[str] = (), first: Iterable[str] = (),
              optional: Iterable[str] = ()) -> list[io.Input]:
    """An input for each field, in their order.

    Args:
        multiline: names texts of several lines.
        first: names what is always shown; the others are folded away where the front end can.
        optional: names what a prompt may leave out; the field's default then counts.
    """
    tall, shown, may_miss = set(multiline), set(first), set(optional)
    made = ((field.name, _input(field, field.name in tall, field.name in may_miss)) for field in fields)
    return [item if name in shown else folded(item) for name, item in made]


def _input(field: Described, tall: bool, optional: bool) -> io.Input:
    # Also where it came later: prompts saved before do not name it.
    shared = {"default": field.default, "tooltip": field.help, "optional": optional or bool(field.since)}
    if field.choices:
        return io.Combo.Input(field.name, options=list(field.choices), **shared)
    if field.kind is bool:
        return io.Boolean.Input(field.name, **shared)
    if field.kind is int:
        # Said outright: the front end would change an input called seed after each run, and so train anew.
        return io.Int.Input(field.name, min=field.low, max=field.high, step=int(field.step or 1),
                            control_after_generate=False, **shared)
    if field.kind is float:
        step = _RATE_STEP if field.name.endswith(("_rate", "_lr")) else _STEP
        return io.Float.Input(field.name, min=field.low, max=field.high, step=step, **shared)
    return io.String.Input(field.name, multiline=tall, **shared)
