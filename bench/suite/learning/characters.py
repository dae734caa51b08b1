"""Named characters of unequal numbers of pictures.

Their captions hold a name and what changes from picture to picture. How somebody looks stands nowhere: the name has to
learn it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

from . import sprites
from .world import PIXEL

NAMES = ("Ada", "Bea", "Cleo", "Dora", "Etta", "Fay", "Gwen", "Hope", "Iris", "Juno")
_PICTURES = (16, 16, 8, 8, 4, 4, 2, 2, 1, 1)
_BATCH = 4


@dataclass(frozen=True)
class Character:
    """Somebody of `look`, with that many `pictures` to learn her from."""

    name: str
    look: sprites.Look
    pictures: int


def cast(seed: int) -> list[Character]:
    """Ten people, no two with the same look."""
    looks = random.Random(seed).sample(sprites.LOOKS, len(NAMES))
    return [Character(*one) for one in zip(NAMES, looks, _PICTURES, strict=True)]


def caption(character: Character, moment: sprites.Moment) -> str:
    return ", ".join((character.name, *moment.tags))


def training_data(characters: Sequence[Character], folder: Path, seed: int) -> TrainingData:
    """Write everybody's pictures and captions into folders of kohya's layout below `folder`, and index them."""
    chance, side = random.Random(seed), sprites.SIDE * PIXEL
    for one in characters:
        hers = folder / f"1_{one.name}"
        hers.mkdir(parents=True)
        for number, moment in enumerate(chance.sample(sprites.MOMENTS, one.pictures)):
            picture = Image.fromarray(sprites.draw(one.look, moment)).resize((side, side), Image.Resampling.NEAREST)
            picture.save(hers / f"{number:02d}.png")
            (hers / f"{number:02d}.txt").write_text(caption(one, moment), encoding="utf-8")
    options = DataOptions((FolderOptions(folder),), side, _BATCH, bucket_min=side, bucket_max=side,
                          latent_cache="memory")
    return TrainingData(index_pictures(options), options)
