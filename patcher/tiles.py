"""Which part of a latent something is about: an area, or the tiles that others cut it into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loha import SettingsError


@dataclass(frozen=True)
class Tile:
    """A rectangle in a latent of (height, width) `latent`, in its pixels."""

    latent: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def of_area(cls, area: Sequence[int] | None, latent: tuple[int, int]) -> Tile:
        """ComfyUI's `area` of a conditioning (height, width, top, left), None for the whole."""
        if area is None:
            return cls(latent, 0, 0, *latent)
        height, width, top, left = area
        return cls(latent, top, left, min(latent[0] - top, height), min(latent[1] - left, width))


def find_tiles(rows: Tensor, latent: Tensor) -> list[Tile]:
    """Where each row was cut out of the latent.

    A pack that samples in tiles tells nobody where they lie; the noise in them does.

    Args:
        rows: (tiles, channels, height, width).
        latent: (batch, channels, height, width) that they were cut from.

    Raises:
        SettingsError: a row is no part of the latent.
    """
    found: list[Tile] = []
    for row in rows:
        known = next((tile for tile in dict.fromkeys(found) if _lies_at(row, latent, tile.top, tile.left)), None)
        found.append(known or _search(row, latent))
    return found


def _search(row: Tensor, latent: Tensor) -> Tile:
    height, width = row.shape[1:]
    for top, left in _candidates(row, latent):
        if _lies_at(row, latent, top, left):
            return Tile(tuple(latent.shape[2:]), top, left, height, width)
    raise SettingsError(
        f"attention couple is given {width}×{height} of a latent of {latent.shape[3]}×{latent.shape[2]}, and cannot "
        "tell which part: something between the sampler and the model changes it. Set method to masked conditioning.")


def _candidates(row: Tensor, latent: Tensor) -> Iterator[tuple[int, int]]:
    height, width = row.shape[1:]
    rows, columns = latent.shape[2] - height + 1, latent.shape[3] - width + 1
    if rows > 0 and columns > 0:
        corner = (latent[:, :, :rows, :columns] == row[None, :, :1, :1]).all(1).any(0)
        yield from ((top, left) for top, left in torch.nonzero(corner).tolist())


def _lies_at(row: Tensor, latent: Tensor, top: int, left: int) -> bool:
    height, width = row.shape[1:]
    part = latent[:, :, top:top + height, left:left + width]
    return part.shape[1:] == row.shape and bool((part == row).flatten(1).all(1).any())
