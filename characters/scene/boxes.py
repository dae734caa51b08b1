"""Where somebody stands in a picture: by words, a share of the width, or per cents.

    left, right, middle, top, bottom, top left …, whole     1/3 (the first of three columns), top 2/3
    0-45 (of the width), 0-45, 10-100 (of the width, then of the height)

`left` and `right` are halves, thirds where somebody of the same scene stands in the `middle`: words never overlap by
accident. Who has no place takes her share, from left to right, of what the others leave free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...text import show
from ..errors import PromptError

SMALLEST = 0.05  # of the picture's width or height: there is nothing to see of somebody in less
_HELP = "write left, right, middle, top, bottom, top left, 1/3, or per cents such as '0-45' or '0-45, 10-100'"
_NUMBER = r"(\d+(?:\.\d+)?)\s*%?"
_RANGE = rf"{_NUMBER}\s*[-–—~]\s*{_NUMBER}"
_PER_CENT = re.compile(rf"{_RANGE}(?:\s*[,，、;]\s*{_RANGE})?", re.ASCII)
_SHARE = re.compile(r"(\d{1,3})/(\d{1,3})", re.ASCII)
_COLUMNS = {"left": "left", "right": "right", "middle": "middle", "centre": "middle", "center": "middle"}
_ROWS = {"top": (0.0, 0.5), "bottom": (0.5, 1.0)}
_HALVES = {"left": (0.0, 0.5), "right": (0.5, 1.0)}
_THIRDS = {"left": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "right": (2 / 3, 1.0)}
_WHOLE = (0.0, 1.0)
_Span = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A part of the picture, in fractions of its width and height from the upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (self.left < other.right and other.left < self.right
                and self.top < other.bottom and other.top < self.bottom)

    def __str__(self) -> str:
        """As a person could have typed it."""
        x, y = (f"{start * 100:g}-{end * 100:g}" for start, end in ((self.left, self.right), (self.top, self.bottom)))
        return f"{x}, {y}"


def place(texts: Mapping[int, str]) -> tuple[Box, ...]:
    """The box of each line of a scene, by the line's number; "" is a line without one.

    Raises PromptError, with the number, for what is no box or lies beyond the picture, and where no room is left for
    those without one.
    """
    read = [_read(text, number) if text.strip() else None for number, text in texts.items()]
    names = _THIRDS if any(spans and spans[0] == "middle" for spans in read) else _HALVES
    boxes = [spans and _box(names[spans[0]] if isinstance(spans[0], str) else spans[0], spans[1]) for spans in read]
    homeless = [number for number, box in zip(texts, boxes, strict=True) if not box]
    shares = iter(_shares([box for box in boxes if box], homeless) if homeless else ())
    return tuple(box or next(shares) for box in boxes)


def _box(x: _Span, y: _Span) -> Box:
    return Box(x[0], y[0], x[1], y[1])


def _read(text: str, number: int) -> tuple[str | _Span, _Span]:
    """Columns, which may be a word that the rest of the scene gives a meaning, and rows."""
    per_cent = _PER_CENT.fullmatch(text.strip())
    if per_cent:
        low, high, top, bottom = (None if part is None else float(part) for part in per_cent.groups())
        rows = _WHOLE if top is None else _span(top, bottom, text, number)
        return _span(low, high, text, number), rows
    columns: str | _Span | None = None
    rows = None
    for word in text.casefold().split():
        share = _SHARE.fullmatch(word)
        if columns is None and word in _COLUMNS:
            columns = _COLUMNS[word]
        elif columns is None and share:
            columns = _share(int(share[1]), int(share[2]), text, number)
        elif rows is None and word in _ROWS:
            rows = _ROWS[word]
        elif word != "whole" or len(text.split()) > 1:
            raise PromptError(f"line {number}: '{show(text)}' is no box; {_HELP}. Tags stand behind it: "
                              "name | box | tags | weight")
    return columns or _WHOLE, rows or _WHOLE


def _share(which: int, count: int, text: str, number: int) -> _Span:
    if not 1 <= which <= count or count * SMALLEST > 1:
        raise PromptError(f"line {number}: '{show(text)}' is no share of the picture; 1/3 is the first of three "
                          f"columns, and there are at most {1 / SMALLEST:g}")
    return (which - 1) / count, which / count


def _span(low: float, high: float, text: str, number: int) -> _Span:
    if high > 100 or low > 100:
        raise PromptError(f"line {number}: the box '{show(text)}' reaches beyond the picture; per cents go from 0 to "
                          "100")
    if high - low < SMALLEST * 100 - 1e-9:
        raise PromptError(f"line {number}: '{show(text)}' is too small a box: from {low:g} to {high:g}; leave at least "
                          f"{SMALLEST:.0%}, the smaller number first")
    return low / 100, high / 100


def _shares(taken: list[Box], numbers: list[int]) -> list[Box]:
    """Parts of what is free, for the lines without a box: beside the others, or above or below them if that is more."""
    count = len(numbers)
    columns = _divide(_gaps([(box.left, box.right) for box in taken]), count)
    rows = max(_gaps([(box.top, box.bottom) for box in taken]), key=_length)
    beside = [_box(span, _WHOLE) for span in columns]
    below = [_box(span, rows) for span in _divide([_WHOLE], count)]
    least, chosen = max(((min(map(_room, shares)), shares) for shares in (beside, below)), key=lambda found: found[0])
    if least < SMALLEST - 1e-9:
        raise PromptError(f"line {numbers[0]}: the other boxes leave no room in the picture; give this line a box, or "
                          "make theirs smaller")
    return chosen


def _room(box: Box) -> float:
    """The smaller of a box's sides, 1 for the whole picture."""
    return min(box.right - box.left, box.bottom - box.top)


def _divide(gaps: list[_Span], count: int) -> list[_Span]:
    """So many stretches of these gaps, as wide as can be, from left to right."""
    dwellers = [0] * len(gaps)
    for _ in range(count):
        roomiest = max(range(len(gaps)), key=lambda at: _length(gaps[at]) / (dwellers[at] + 1))
        dwellers[roomiest] += 1
    spans = []
    for (low, high), several in zip(gaps, dwellers, strict=True):
        edges = [low + (high - low) * step / several for step in range(several)] + [high] if several else [low]
        spans += zip(edges, edges[1:], strict=False)
    return spans


def _length(span: _Span) -> float:
    return span[1] - span[0]


def _gaps(spans: list[_Span]) -> list[_Span]:
    """The stretches of 0…1 that none of these spans touches; one of no length where there is none."""
    gaps, end = [], 0.0
    for low, high in [*sorted(spans), (1.0, 1.0)]:
        if low > end:
            gaps.append((end, low))
        end = max(end, high)
    return gaps or [(1.0, 1.0)]
