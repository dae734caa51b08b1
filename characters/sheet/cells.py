"""What stands where on a sheet: labels are `column | row | group`, the last two when wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDEST = 8  # cells in a line, where nobody says how many


@dataclass(frozen=True)
class Label:
    """What a picture is called: `column` below it; pictures of one `row` stand side by side, a `group` together."""

    column: str
    row: str = ""
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """A picture's place: line and column of the sheet's grid, counted from 0. `index` is which picture it is."""

    line: int
    column: int
    index: int
    text: str


@dataclass(frozen=True)
class Plan:
    """Where everything stands.

    `heads` are texts over cells of a line: (line, first column, number of columns, text). `sides` are texts left of
    a line: line → text.
    """

    columns: int
    lines: int
    cells: tuple[Cell, ...]
    heads: tuple[tuple[int, int, int, str], ...] = ()
    sides: tuple[tuple[int, str], ...] = ()


def parse_label(text: str) -> Label:
    """The label that a text of the form `column | row | group` is."""
    parts = [part.strip() for part in text.split("|")]
    return Label(parts[0], parts[1] if len(parts) > 1 else "", " | ".join(parts[2:]))


def plan(labels: Sequence[Label], columns: int = 0) -> Plan:
    """Place the pictures: a grid where any label has a row, else group by group.

    Args:
        columns: cells in a line at most; 0 chooses.

    The later of two pictures with one label takes the place of the earlier.
    """
    places = {label: index for index, label in enumerate(labels)}
    return _grid(places, columns) if any(label.row for label in places) else _groups(places, columns)


def _grid(places: dict[Label, int], columns: int) -> Plan:
    """Rows of the labels under each other, in blocks of as many columns as fit."""
    rows = list(dict.fromkeys(label.row for label in places))
    across = list(dict.fromkeys((label.column, label.group) for label in places))
    wide = min(len(across), columns or max(_WIDEST, math.ceil(math.sqrt(len(places)))))
    cells, sides = [], []
    for label, index in places.items():
        block, column = divmod(across.index((label.column, label.group)), wide)
        cells.append(Cell(block * len(rows) + rows.index(label.row), column, index, label.column))
    lines = math.ceil(len(across) / wide) * len(rows)
    sides = [(line, rows[line % len(rows)]) for line in range(lines)]
    return Plan(wide, lines, tuple(cells), sides=tuple(sides))


def _groups(places: dict[Label, int], columns: int) -> Plan:
    """Groups in the order of their first picture, side by side while they fit into a line."""
    groups: dict[str, list[tuple[Label, int]]] = {}
    for label, index in places.items():
        groups.setdefault(label.group, []).append((label, index))
    largest = max(map(len, groups.values()))
    wide = columns or min(_WIDEST, max(largest, math.ceil(math.sqrt(1.5 * len(places)))))
    cells, heads, line, used = [], [], 0, 0
    for group, members in groups.items():
        if used and used + len(members) > wide:
            line, used = line + 1, 0
        for number, (label, index) in enumerate(members):
            if used == wide:
                line, used = line + 1, 0
            if group and (number == 0 or used == 0):
                heads.append((line, used, min(wide - used, len(members) - number), group))
            cells.append(Cell(line, used, index, label.column))
            used += 1
    widest = max(cell.column for cell in cells) + 1
    return Plan(widest, line + 1, tuple(cells), tuple(heads))
