"""The confusion tables as one picture: rows are who was drawn, columns whose identity tags came back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .. import roster
from ..catalogue import Character
from ..fonts import font
from .identity import Identity
from .table import BASE, Recognition

_CELL, _LETTER, _GAP = 24, 12, 16
_PAPER, _INK, _FEW, _OWN = (250, 250, 250), (32, 32, 32), (168, 84, 0), (200, 60, 0)
_NONE, _ALL = np.array((250, 250, 250)), np.array((8, 64, 129))  # no tag came back, all did
_MOST = 16_384  # pixels of a side


@dataclass(frozen=True)
class _Band:
    """Tables side by side, one for each strength: (strength, row's name) → column's name → share."""

    columns: Sequence[Character]
    shares: Mapping[tuple[float, str], Mapping[str, float]]

    @property
    def top(self) -> int:
        """Pixels above the cells."""
        return _longest([who.name for who in self.columns]) + 3 * _GAP


def draw(found: Recognition, facts: Sequence[str] = (), second: Identity | None = None) -> np.ndarray:
    """Draw a table for each strength, side by side.

    Args:
        facts: lines below the tables: what they were drawn and tagged with.
        second: what an identity model found on the same pictures, in tables below the others.

    Returns:
        (height, width, 3) uint8.

    Raises ValueError where it would be wider or higher than 16384 pixels.
    """
    rows = [roster.label(who) for who in found.drawn]
    bands = [_Band(found.compared, {key: row.shares for key, row in found.rows.items()})]
    lines = ["Rows: who was asked for. Columns: per cent of whose identity tags came back.", *facts]
    if second and second.rows:
        bands.append(_Band(second.compared, {key: row.nearest for key, row in second.rows.items()}))
        lines.insert(1, "Below, by the identity model: per cent of the pictures of one person that are nearest to "
                        "whose references.")
    cells = max(len(band.columns) for band in bands) * _CELL
    left = _longest(rows) + 2 * _GAP
    wide = max(cells, _longest(map(_title, found.strengths), _LETTER + 2)) + _GAP  # small casts: under a longer title
    width = max(left + wide * len(found.strengths), _longest(lines) + 2 * _GAP)
    tables = [band.top + len(rows) * _CELL + _GAP for band in bands]
    height = sum(tables) + round(len(lines) * _LETTER * 1.5) + _GAP
    if max(width, height) > _MOST:
        raise ValueError(f"the heat map would be {width} × {height} pixels; at most {_MOST} a side. Take fewer "
                         "strengths or characters")
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    for number, band in enumerate(bands):
        above = sum(tables[:number])
        for place, (who, text) in enumerate(zip(found.drawn, rows, strict=True)):
            few = who.cards is not None and who.cards < roster.FEW_CARDS
            pen.text((left - _GAP // 2, above + band.top + (place + 0.5) * _CELL), text, fill=_FEW if few else _INK,
                     font=font(_LETTER, text), anchor="rm")
        for place, strength in enumerate(found.strengths):
            _table(picture, band, found.drawn, strength, left + place * wide, above)
    for place, line in enumerate(lines):
        pen.text((_GAP, height - _GAP - round((len(lines) - place) * _LETTER * 1.5)), line, fill=_INK,
                 font=font(_LETTER, line))
    return np.array(picture)


def _table(picture: Image.Image, band: _Band, drawn: Sequence[Character], strength: float, left: int, above: int
           ) -> None:
    pen = ImageDraw.Draw(picture)
    title = _title(strength)
    pen.text((left, above + _GAP // 2), title, fill=_INK, font=font(_LETTER + 2, title))
    top = above + band.top
    for column, who in enumerate(band.columns):
        picture.paste(_upright(who), (left + column * _CELL, top - _longest([who.name]) - 4))
    for line, asked in enumerate(drawn):
        shares = band.shares.get((strength, asked.name))
        if shares is None:
            continue
        for column, who in enumerate(band.columns):
            share = shares[who.name]
            x, y = left + column * _CELL, top + line * _CELL
            colour = tuple((_NONE + (_ALL - _NONE) * share).round().astype(int))
            pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=colour)
            if who is asked:
                pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), outline=_OWN, width=2)
            pen.text((x + _CELL // 2 - 1, y + _CELL // 2 - 1), f"{share * 100:.0f}", anchor="mm",
                     font=font(_LETTER - 2), fill=_PAPER if share > 0.5 else _INK)


def _title(strength: float) -> str:
    return f"strength {strength:g}" + (" (base model)" if strength == BASE else "")


def _upright(who: Character) -> Image.Image:
    """The name, read from below."""
    strip = Image.new("RGB", (_longest([who.name]) + 2, _CELL), _PAPER)
    ImageDraw.Draw(strip).text((0, _CELL / 2), who.name, fill=_INK, font=font(_LETTER, who.name), anchor="lm")
    return strip.rotate(90, expand=True)


def _longest(texts: Iterable[str], letter: int = _LETTER) -> int:
    return max((round(font(letter, text).getlength(text)) for text in texts), default=0)
