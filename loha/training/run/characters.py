"""The training loss of each character, over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data import Batch, PictureIndex
from ..data.tags import character_of, pictures_by_character

_MOST = 200  # characters: where every picture's first tag is another, a step must not tell thousands of numbers


class CharacterLosses:
    """Sums of losses and numbers of showings by character, of the 200 with the most pictures.

    A step tells its sums with its loss, so that nothing is asked of the device twice. Empty where the pictures name
    nobody.
    """

    def __init__(self, index: PictureIndex) -> None:
        names = [character_of(index, picture) for picture in range(len(index))]
        self.pictures = pictures_by_character(index)
        self._names = [name for name, _ in self.pictures.most_common(_MOST)]
        place = {name: at for at, name in enumerate(self._names)}
        # One more place, for all other pictures; it is not told.
        self._places = [place.get(name, len(place)) for name in names]
        self._sums = [0.0] * len(place)
        self._showings = [0.0] * len(place)

    @property
    def told(self) -> int:
        """How many numbers a step tells."""
        return 2 * len(self._names)

    def of(self, batch: Batch, losses: Tensor) -> Tensor:
        """(told,) float32 of a batch's losses (batch,), on their device: sums, then showings."""
        if not self._names:
            return losses.new_zeros(0)
        places = torch.tensor([self._places[item.picture] for item in batch.items]).to(losses.device, non_blocking=True)
        rows = torch.stack((losses.detach(), torch.ones_like(losses)))
        summed = rows.new_zeros(2, len(self._names) + 1)
        return summed.index_add_(1, places, rows)[:, :-1].flatten()

    def add(self, told: Sequence[float]) -> None:
        """Of a whole step: the sum of what `of` gave over its batches and processes."""
        half = len(self._names)
        for at, (total, showings) in enumerate(zip(told[:half], told[half:], strict=True)):
            self._sums[at] += total
            self._showings[at] += showings

    def means(self) -> dict[str, float]:
        """Character → mean loss over her showings so far, most pictures first; those not shown yet are left out."""
        return {name: total / showings for name, (total, showings) in self.state_dict().items() if showings}

    def state_dict(self) -> dict[str, tuple[float, float]]:
        """Character → sum and showings."""
        return dict(zip(self._names, zip(self._sums, self._showings, strict=True), strict=True))

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Of the same pictures; a character that the state does not know begins at nothing."""
        for at, name in enumerate(self._names):
            self._sums[at], self._showings[at] = map(float, state.get(name, (0.0, 0.0)))
