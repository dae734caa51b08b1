"""Small people of 16 × 16 pixels, drawn from their tags, and which of them a picture is nearest to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

SIDE = 16
Colour = tuple[int, int, int]

HAIR: dict[str, Colour] = {
    "black hair": (35, 35, 50), "blonde hair": (245, 210, 80), "blue hair": (70, 110, 225), "brown hair": (130, 75, 40),
    "green hair": (80, 175, 95), "pink hair": (245, 125, 180)}
STYLES = ("short hair", "long hair", "twintails", "ponytail")
EYES: dict[str, Colour] = {
    "blue eyes": (30, 60, 235), "brown eyes": (95, 50, 20), "green eyes": (20, 140, 50), "red eyes": (215, 25, 35)}
MOUTHS = ("smile", "open mouth", "closed mouth")
DRESSES: dict[str, Colour] = {
    "black dress": (30, 30, 30), "blue dress": (50, 80, 190), "red dress": (195, 40, 50),
    "white dress": (250, 250, 250)}
BACKGROUNDS: dict[str, Colour] = {
    "grey background": (150, 150, 150), "orange background": (250, 175, 95), "teal background": (95, 190, 190),
    "white background": (252, 252, 252)}

_SKIN, _LIPS = (250, 215, 190), (190, 70, 70)


@dataclass(frozen=True)
class Look:
    """What makes somebody who she is."""

    hair: str
    style: str
    eyes: str

    @property
    def tags(self) -> tuple[str, ...]:
        return (self.hair, self.style, self.eyes)


@dataclass(frozen=True)
class Moment:
    """What changes from picture to picture."""

    mouth: str
    dress: str
    background: str

    @property
    def tags(self) -> tuple[str, ...]:
        return (self.mouth, self.dress, self.background)


LOOKS = tuple(Look(*tags) for tags in product(HAIR, STYLES, EYES))
MOMENTS = tuple(Moment(*tags) for tags in product(MOUTHS, DRESSES, BACKGROUNDS))


def draw(look: Look, moment: Moment) -> np.ndarray:
    """The sprite: (16, 16, 3) uint8."""
    hair, dress = HAIR[look.hair], DRESSES[moment.dress]
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    pixels[:] = BACKGROUNDS[moment.background]
    if look.style == "long hair":
        pixels[3:15, 2:14] = hair
    elif look.style == "twintails":
        pixels[4:12, 0:3] = pixels[4:12, 13:16] = hair
        pixels[3:5, 2:14] = hair
    elif look.style == "ponytail":
        pixels[1:10, 13:16] = hair
    pixels[12:16, 4:12] = dress
    pixels[11:13, 7:9] = _SKIN
    pixels[3:11, 4:12] = _SKIN
    pixels[1:5, 3:13] = hair
    pixels[5:8, 3] = pixels[5:8, 12] = hair
    pixels[6:8, 5:7] = pixels[6:8, 9:11] = EYES[look.eyes]
    pixels[9, 7:9] = _LIPS
    if moment.mouth == "smile":
        pixels[9, 6] = pixels[9, 9] = _LIPS
        pixels[8, 5] = pixels[8, 10] = _LIPS
    elif moment.mouth == "open mouth":
        pixels[8:10, 7:9] = _LIPS
    return pixels


def nearest_looks(pictures: Tensor) -> list[Look]:
    """Whose sprite, in whatever moment, each picture is nearest to by squared distance.

    Args:
        pictures: (batch, 3, 16, 16) float32 in 0 … 1.
    """
    sprites = _all_sprites()
    # |p − s|² without |p|², which is the same for every sprite.
    distances = sprites.square().sum(1) - 2 * pictures.flatten(1) @ sprites.t()
    return [LOOKS[place // len(MOMENTS)] for place in distances.argmin(1).tolist()]


@cache
def _all_sprites() -> Tensor:
    """(looks · moments, 768) float32 in 0 … 1, all moments of the first look first."""
    drawn = np.stack([draw(look, moment) for look, moment in product(LOOKS, MOMENTS)])
    return torch.from_numpy(drawn.transpose(0, 3, 1, 2).copy()).flatten(1).float() / 255
