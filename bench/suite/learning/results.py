"""What was found, as a table, as a sheet of pictures and as a chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import sprites
from .experiment import Found
from .recognition import Cell

_PAPER, _INK, _FAINT = "#ffffff", "#333333", "#d8dee6"
_SPRITE, _GAP, _NAMES, _HEAD = 80, 14, 150, 34
_CHART, _MARGIN = (900, 520), (70, 30, 190, 60)  # left, top, right, bottom
_COLOURS = {"": "#9aa3ad", "0.6": "#e6a23c", "0.8": "#3aa675", "1.0": "#144384"}
_DASH = 10


def table(found: Found) -> str:
    """A line for each number of pictures, a column for the base model and for each trainer at each strength.

    Below: all; how many were taken for another of the cast; how many of the 96 looks are right from their tags.
    """
    cells, columns = found.cells, _conditions(found.cells)
    lines = [["pictures", *columns]]
    for count in _counts(cells):
        lines.append([str(count), *(f"{_recognised(cells, column, count):.0%}" for column in columns)])
    lines.append(["all", *(f"{_recognised(cells, column):.0%}" for column in columns)])
    lines.append(["as another", *(f"{_mistaken(cells, column):.0%}" for column in columns)])
    lines.append(["96 by tags", *(f"{found.right[column] / len(sprites.LOOKS):.0%}" for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def figures(found: Found) -> dict[str, object]:
    """Everything counted, for programs to read."""
    return {
        "right by tags, of 96": found.right,
        "recognised": [
            {"condition": one.condition, "name": one.character.name, "pictures": one.character.pictures,
             "painted": one.painted, "herself": one.herself, "another of the cast": one.another}
            for one in found.cells],
    }


def sheet(cells: Sequence[Cell]) -> Image.Image:
    """A row for each character, a column for each strength: the first picture, and how many are her."""
    columns = _conditions(cells)
    people = list(dict.fromkeys(one.character for one in cells))
    step = _SPRITE + _GAP
    image = Image.new("RGB", (_NAMES + (len(columns) + 1) * step, _HEAD + len(people) * (step + 16)), _PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for number, title in enumerate(["her look", *columns]):
        pen.text((_NAMES + number * step, 10), title, fill=_INK, font=font)
    by_place = {(one.character, one.condition): one for one in cells}
    for row, person in enumerate(people):
        top = _HEAD + row * (step + 16)
        pen.text((12, top + 24), f"{person.name}\npictures: {person.pictures}", fill=_INK, font=font)
        image.paste(_enlarged(sprites.draw(person.look, sprites.MOMENTS[0])), (_NAMES, top))
        for number, column in enumerate(columns, 1):
            cell, left = by_place[person, column], _NAMES + number * step
            pixels = cell.first.permute(1, 2, 0).mul(255).round().byte().numpy()
            image.paste(_enlarged(pixels), (left, top))
            pen.text((left, top + _SPRITE + 2), f"{cell.herself} of {cell.painted}", fill=_INK, font=font)
    return image


def chart(cells: Sequence[Cell]) -> Image.Image:
    """The share recognised over the number of pictures; a colour for each strength, LyCORIS dashed."""
    (width, height), (left, top, right, bottom) = _CHART, _MARGIN
    image = Image.new("RGB", _CHART, _PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    counts = _counts(cells)[::-1]
    xs = np.linspace(left + 30, width - right - 30, len(counts))
    floor = height - bottom

    def y(value: float) -> float:
        return floor - value * (floor - top)

    for percent in range(0, 101, 25):
        pen.line((left, y(percent / 100), width - right, y(percent / 100)), fill=_FAINT)
        pen.text((left - 10, y(percent / 100)), f"{percent} %", fill=_INK, font=font, anchor="rm")
    for x, count in zip(xs, counts, strict=True):
        pen.text((x, floor + 14), str(count), fill=_INK, font=font, anchor="mt")
    pen.text(((left + width - right) / 2, height - 8), "pictures of her in training", fill=_INK, font=font, anchor="mb")
    pen.text((left, 6), "recognised by nearest sprite", fill=_INK, font=font)
    for number, column in enumerate(_conditions(cells)):
        trainer, _, strength = column.partition(" ")
        colour, dashed = _COLOURS[strength], trainer == "LyCORIS"
        points = [(x, y(_recognised(cells, column, count))) for x, count in zip(xs, counts, strict=True)]
        _line(pen, points, colour, dashed)
        at = top + 20 + 24 * number
        _line(pen, [(width - right + 20, at), (width - right + 60, at)], colour, dashed)
        pen.text((width - right + 70, at), column, fill=_INK, font=font, anchor="lm")
    return image


def _conditions(cells: Iterable[Cell]) -> list[str]:
    """In the order in which they were painted."""
    return list(dict.fromkeys(one.condition for one in cells))


def _recognised(cells: Sequence[Cell], column: str, pictures: int | None = None) -> float:
    """The share recognised in a column: of those with that many pictures, or of all."""
    chosen = [one for one in cells if one.condition == column and pictures in (None, one.character.pictures)]
    return sum(one.herself for one in chosen) / sum(one.painted for one in chosen)


def _mistaken(cells: Sequence[Cell], column: str) -> float:
    chosen = [one for one in cells if one.condition == column]
    return sum(one.another for one in chosen) / sum(one.painted for one in chosen)


def _counts(cells: Iterable[Cell]) -> list[int]:
    return sorted({one.character.pictures for one in cells}, reverse=True)


def _enlarged(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).resize((_SPRITE, _SPRITE), Image.Resampling.NEAREST)


def _line(pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: str, dashed: bool) -> None:
    for begin, end in zip(points, points[1:], strict=False):
        begin, end = np.array(begin), np.array(end)
        length = float(np.linalg.norm(end - begin))
        step = 2 * _DASH if dashed else length
        for at in np.arange(0, length, step):
            stop = min(at + (_DASH if dashed else length), length)
            dash = [tuple(begin + (end - begin) * part / length) for part in (at, stop)]
            pen.line(dash, fill=colour, width=2 if dashed else 3)
    for x, y in points:
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=colour, fill=_PAPER if dashed else colour, width=2)
