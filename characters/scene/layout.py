"""The plan of a scene as a picture: each person's pixels in her colour, her box and her name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...text import show
from ..catalogue import Character
from ..fonts import font
from .masks import region_masks
from .texts import Region

_LONGEST = 768  # pixels of a side
_REST = (96, 96, 96)
# For those without a colour of their own, told apart by any eye (Okabe and Ito).
_COLOURS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00")


def draw(people: Sequence[Region], width: int, height: int, feather: float = 0.0) -> np.ndarray:
    """Draw the plan of a picture of this size in pixels.

    Returns:
        (height, width, 3) uint8 of the picture's shape, at most 768 pixels a side.
    """
    scale = min(1.0, _LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    colours = [tuple(bytes.fromhex(hex_colour(region.who, number))) for number, region in enumerate(people)]
    masks = region_masks([region.box for region in people], *size, feather)
    mixed = np.einsum("rhw,rc->hwc", masks, np.array([*colours, _REST][:len(masks)], dtype=np.float32))
    picture = Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for region, colour in zip(people, colours, strict=True):
        _label(pen, region, _readable(colour), size)
    return np.array(picture)


def _label(pen: ImageDraw.ImageDraw, region: Region, ink: tuple[int, int, int], size: tuple[int, int]) -> None:
    box = region.box
    corners = [round(box.left * size[0]), round(box.top * size[1]),
               round(box.right * size[0]) - 1, round(box.bottom * size[1]) - 1]
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        return
    pen.rectangle(corners, outline=ink)
    room = corners[2] - corners[0] - 8
    text = show(region.who.name, 40)
    for height in range(max(8, size[1] // 20), 7, -1):
        letters = font(height, text)
        if pen.textlength(text, letters) <= room:
            pen.text((corners[0] + 4, corners[1] + 3), text, fill=ink, font=letters)
            return


def hex_colour(who: Character | None, number: int) -> str:
    """Her colour, or one that tells the region of this number from the others."""
    return (who.colour if who else "") or _COLOURS[number % len(_COLOURS)]


def _readable(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is the clearer on this colour."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
