"""The confusion tables as one picture: rows are who was drawn, columns whose identity tags came back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .. import roster
from ..catalogue import Character
from ..fonts import font
from .table import BASE, Recognition

_CELL, _LETTER, _GAP = 24, 12, 16
_PAPER, _INK, _FEW, _OWN = (250, 250, 250), (32, 32, 32), (168, 84, 0), (200, 60, 0)
_NONE, _ALL = np.array((250, 250, 250)), np.array((8, 64, 129))  # no tag came back, all did
_MOST = 16_384  # pixels of a side


def draw(found: Recognition, facts: Sequence[str] = ()) -> np.ndarray:
    """Draw a table for each strength, side by side.

    Args:
        facts: lines below the tables: what they were drawn and tagged with.

    Returns:
        (height, width, 3) uint8.

    Raises ValueError where it would be wider or higher than 16384 pixels.
    """
    rows, columns = [roster.label(who) for who in found.drawn], [who.name for who in found.compared]
    left, top = _longest(rows) + 2 * _GAP, _longest(columns) + 3 * _GAP
    wide = len(columns) * _CELL + _GAP
    lines = ["Rows: who was asked for. Columns: per cent of whose identity tags came back.", *facts]
    width = max(left + wide * len(found.strengths), _longest(lines) + 2 * _GAP)
    height = top + len(rows) * _CELL + _GAP + round(len(lines) * _LETTER * 1.5) + _GAP
    if max(width, height) > _MOST:
        raise ValueError(f"the heat map would be {width} × {height} pixels; at most {_MOST} a side. Take fewer "
                         "strengths or characters")
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    for place, (who, text) in enumerate(zip(found.drawn, rows, strict=True)):
        few = who.cards is not None and who.cards < roster.FEW_CARDS
        pen.text((left - _GAP // 2, top + (place + 0.5) * _CELL), text, fill=_FEW if few else _INK,
                 font=font(_LETTER, text), anchor="rm")
    for place, strength in enumerate(found.strengths):
        _table(picture, found, strength, left + place * wide, top)
    for place, line in enumerate(lines):
        pen.text((_GAP, height - _GAP - round((len(lines) - place) * _LETTER * 1.5)), line, fill=_INK,
                 font=font(_LETTER, line))
    return np.array(picture)


def _table(picture: Image.Image, found: Recognition, strength: float, left: int, top: int) -> None:
    pen = ImageDraw.Draw(picture)
    title = f"strength {strength:g}" + (" (base model)" if strength == BASE else "")
    pen.text((left, _GAP // 2), title, fill=_INK, font=font(_LETTER + 2, title))
    for column, who in enumerate(found.compared):
        picture.paste(_upright(who), (left + column * _CELL, top - _longest([who.name]) - 4))
    for line, drawn in enumerate(found.drawn):
        row = found.rows.get((strength, drawn.name))
        if row is None:
            continue
        for column, who in enumerate(found.compared):
            share = row.shares[who.name]
            x, y = left + column * _CELL, top + line * _CELL
            colour = tuple((_NONE + (_ALL - _NONE) * share).round().astype(int))
            pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=colour)
            if who is drawn:
                pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), outline=_OWN, width=2)
            pen.text((x + _CELL // 2 - 1, y + _CELL // 2 - 1), f"{share * 100:.0f}", anchor="mm",
                     font=font(_LETTER - 2), fill=_PAPER if share > 0.5 else _INK)


def _upright(who: Character) -> Image.Image:
    """The name, read from below."""
    strip = Image.new("RGB", (_longest([who.name]) + 2, _CELL), _PAPER)
    ImageDraw.Draw(strip).text((0, _CELL / 2), who.name, fill=_INK, font=font(_LETTER, who.name), anchor="lm")
    return strip.rotate(90, expand=True)


def _longest(texts: Sequence[str]) -> int:
    return max((round(font(_LETTER, text).getlength(text)) for text in texts), default=0)
