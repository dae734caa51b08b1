"""The people of a scene as they are typed: one a line, `name | box | tags | weight`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ...text import show
from ..errors import PromptError
from .boxes import Box, place

MAX_PEOPLE = 6  # SD 1.5 has no place for more, and no count tag tells them apart
MAX_TEXT = 20_000  # characters
_FORM = "name | box | tags | weight"
_OPEN, _CLOSE = "([{<", ")]}>"


@dataclass(frozen=True)
class Line:
    """One person: the line's number, from 1, and what it says."""

    number: int
    name: str
    box: Box
    tags: str = ""
    weight: float = 1.0


def read_lines(text: str) -> tuple[Line, ...]:
    """Read the people of a scene; empty lines count for nothing.

    Raises PromptError for an empty scene, too many people, a line without a name, and whatever is no box or weight.
    """
    if len(text) > MAX_TEXT:
        raise PromptError(f"people: {len(text)} characters; a scene has at most {MAX_TEXT}")
    filled = read_fields(text)
    if not filled:
        raise PromptError(f"people: nobody is in the scene; write a line for each, such as 'Kazano Hiori | left', or "
                          f"in full {_FORM}")
    if len(filled) > MAX_PEOPLE:
        raise PromptError(f"people: {len(filled)} lines; a scene holds at most {MAX_PEOPLE} people. Draw the others in "
                          "another picture")
    for number, fields in filled.items():
        _check(number, fields)
    boxes = place({number: fields[1] for number, fields in filled.items()})
    return tuple(Line(number, name, box, tags, _weight(number, weight))
                 for (number, (name, _, tags, weight)), box in zip(filled.items(), boxes, strict=True))


def read_fields(text: str) -> dict[int, list[str]]:
    """The number of each line that is filled → its fields as typed, at least four."""
    return {number: _fields(line) for number, line in enumerate(text.splitlines(), 1) if line.strip()}


def _fields(line: str) -> list[str]:
    """The fields of a line, at least four; `|` inside brackets is the prompt's."""
    fields, depth = [""], 0
    for char in line.replace("｜", "|"):
        depth = depth + 1 if char in _OPEN else max(0, depth - 1) if char in _CLOSE else depth
        if char == "|" and not depth:
            fields.append("")
        else:
            fields[-1] += char
    return [field.strip() for field in fields] + [""] * (4 - len(fields))


def _check(number: int, fields: list[str]) -> None:
    if len(fields) > 4:
        raise PromptError(f"line {number}: {len(fields)} fields between |, at most 4: {_FORM}")
    if not fields[0]:
        raise PromptError(f"line {number}: no name; a line is {_FORM}")


def _weight(number: int, text: str) -> float:
    if not text:
        return 1.0
    value = float(text) if re.fullmatch(r"[+-]?\d{0,9}\.?\d{1,9}", text, re.ASCII) else math.nan
    if not 0 <= value <= 3:
        raise PromptError(f"line {number}: the weight '{show(text)}' is no number from 0 to 3; 1 leaves the name as it "
                          "is")
    return value
