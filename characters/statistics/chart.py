"""The statistics as a picture: a bar for each character's pictures, and what she looks like beside it."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

from ...text import show
from ..fonts import font
from .balance import Repeats
from .report import FEW_PICTURES
from .summary import Statistics

_PAPER, _INK, _GRID, _FAINT = (250, 250, 250), (32, 32, 32), (216, 220, 228), (96, 96, 96)
# Two hues that any eye tells apart (Okabe and Ito): what is there, and what few pictures are.
_BAR, _FEW, _AIM = (0, 114, 178), (213, 94, 0), (188, 208, 224)
_ROW, _TEXT, _GAP, _TOP = 24, 14, 12, 64
_NAMES, _BARS, _LOOKS = 220, 400, 620
_MOST_ROWS = 100


def draw_chart(statistics: Statistics, repeats: Iterable[Repeats]) -> np.ndarray:
    """Draw the cast, most pictures first, at most 100 characters.

    Args:
        repeats: of the same characters; the pale bar behind is what an epoch sees with them, beside the first.

    Returns:
        (height, width, 3) float32 from 0 to 1.
    """
    rows = list(zip(statistics.characters, repeats, strict=True))
    shown, rest = rows[:_MOST_ROWS], len(rows) - _MOST_ROWS
    width = _NAMES + _BARS + _LOOKS + 4 * _GAP
    height = _TOP + _ROW * (len(shown) + (rest > 0)) + _GAP
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    left = _NAMES + 2 * _GAP
    unit = shown[0][1].repeats
    scale = (_BARS - 120) / max(max(who.pictures, one.balanced / unit) for who, one in shown)
    _write(pen, _GAP, 8, f"{sum(who.pictures for who, _ in rows)} pictures of {len(rows)} characters", _INK, _LOOKS, 18)
    _write(pen, left, 38, "pictures, and what an epoch sees balanced (pale)", _FAINT, _BARS)
    _write(pen, left + _BARS + _GAP, 38, "what she looks like, by her tags", _FAINT, _LOOKS)
    for number, (who, one) in enumerate(shown):
        y = _TOP + number * _ROW
        pen.line([(_GAP, y + _ROW - 1), (width - _GAP, y + _ROW - 1)], fill=_GRID)
        name = _cut(pen, show(who.name), _NAMES)
        pen.text((_GAP + _NAMES - pen.textlength(name, font(_TEXT, name)), y + 3), name, fill=_INK,
                 font=font(_TEXT, name))
        few = who.pictures < FEW_PICTURES
        pale, solid = round(one.balanced / unit * scale), max(1, round(who.pictures * scale))
        pen.rectangle([left, y + 4, left + pale, y + _ROW - 6], fill=_AIM)
        pen.rectangle([left, y + 4, left + solid, y + _ROW - 6], fill=_FEW if few else _BAR)
        end = left + max(pale, solid) + 6
        _write(pen, end, y + 3, f"{who.pictures}" + (f" x {one.repeats}" if one.repeats > 1 else ""), _INK, 114)
        _write(pen, left + _BARS + _GAP, y + 3, ", ".join(map(show, who.identity)), _INK, _LOOKS)
    if rest > 0:
        _write(pen, left, _TOP + len(shown) * _ROW + 3, f"and {rest} more", _FAINT, _BARS)
    return np.asarray(picture, dtype=np.float32) / 255


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, text: str, ink: tuple[int, int, int], room: int,
           size: int = _TEXT) -> None:
    text = _cut(pen, text, room, size)
    pen.text((x, y), text, fill=ink, font=font(size, text))


def _cut(pen: ImageDraw.ImageDraw, text: str, room: int, size: int = _TEXT) -> str:
    letters = font(size, text)
    if pen.textlength(text, letters) <= room:
        return text
    most = bisect.bisect_right(range(len(text)), room, key=lambda n: pen.textlength(f"{text[:n]}…", letters))
    return f"{text[:most - 1]}…"
