"""Who is recognised: pictures painted from a name, and whose sprite each is nearest to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from . import sprites
from .characters import Character, caption
from .world import Brush


@dataclass(frozen=True, eq=False)
class Cell:
    """Pictures of one character under one condition: the base model, or somebody's LoHa at a strength.

    Args:
        painted: how many pictures.
        herself, another: how many of them are nearest to her, and to another of the cast.
        first: the first of them, (3, 16, 16) float32 in 0 … 1.
    """

    condition: str
    character: Character
    painted: int
    herself: int
    another: int
    first: Tensor


def recognised(brush: Brush, characters: Sequence[Character], painted: int, condition: str) -> list[Cell]:
    """Everybody painted by name, `painted` times each: always at the same moments and from the same noise."""
    chance = random.Random(brush.seed)
    pictures = brush.paint([caption(one, chance.choice(sprites.MOMENTS)) for one in characters for _ in range(painted)])
    looks = sprites.nearest_looks(pictures)
    known = {one.look for one in characters}
    cells = []
    for number, one in enumerate(characters):
        hers = looks[number * painted:(number + 1) * painted]
        herself = hers.count(one.look)
        another = sum(look in known for look in hers) - herself
        cells.append(Cell(condition, one, painted, herself, another, pictures[number * painted]))
    return cells


def right_by_tags(brush: Brush) -> int:
    """How many of the 96 looks come out right when painted from their tags."""
    chance = random.Random(brush.seed)
    found = sprites.nearest_looks(
        brush.paint([", ".join((*look.tags, *chance.choice(sprites.MOMENTS).tags)) for look in sprites.LOOKS]))
    return sum(one == look for one, look in zip(found, sprites.LOOKS, strict=True))
