"""How much each place of a picture counts in the loss: its mask, and the weight of regularisation pictures."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import torch
from torch import Tensor

from .dataset import Batch, TrainingData

LATENT_PIXELS = 8  # pixels of a latent's side
_CACHED = 4096  # masks: at most 100 MB of pictures of 640²


class LossWeights:
    """Of the pictures of one run with its seed. Masks are kept at the latents' size.

    The mask of a latent's place is the mean over its 8 × 8 pixels, and a picture without a mask counts everywhere
    (kohya-ss/sd-scripts, library/custom_train_functions.py, apply_masked_loss).
    """

    def __init__(self, data: TrainingData, seed: int) -> None:
        self._data, self._seed = data, seed
        self._cached: OrderedDict[tuple[int, bool], Tensor] = OrderedDict()

    def __call__(self, batch: Batch) -> Tensor | None:
        """(batch, 1, h, w) float32, or (batch, 1, 1, 1) where none has a mask; None where everything counts alike.

        Raises:
            PictureError: a mask broke or vanished since it was looked at.
        """
        data = self._data
        each = [data.weight(item.picture) for item in batch.items]
        if not any(data.has_mask(item.picture) for item in batch.items):
            return _together(each, [])
        flips, cuts = data.is_flipped(batch, self._seed), data.cuts(batch, self._seed)
        masks = [self._mask(item.picture, flipped, cut)
                 for item, flipped, cut in zip(batch.items, flips, cuts, strict=True)]
        return _together(each, masks)

    def of(self, picture: int) -> Tensor | None:
        """The same of one picture, not mirrored. Raises as a call."""
        return _together([self._data.weight(picture)], [self._mask(picture, False)])

    def _mask(self, picture: int, flipped: bool, cut: Random | None = None) -> Tensor | None:
        """(h, w) float32 in 0 … 1."""
        if not self._data.has_mask(picture):
            return None
        if cut is not None:  # another one each time
            return self._read(picture, flipped, cut)
        mask = self._cached.pop((picture, flipped), None)
        if mask is None:
            mask = self._read(picture, flipped)
            if len(self._cached) == _CACHED:
                self._cached.popitem(last=False)
        self._cached[picture, flipped] = mask
        return mask

    def _read(self, picture: int, flipped: bool, cut: Random | None = None) -> Tensor:
        pixels = torch.from_numpy(self._data.mask(picture, flipped, cut)).float().div_(255.0)
        return torch.nn.functional.avg_pool2d(pixels[None], LATENT_PIXELS)[0]


def _together(each: list[float], masks: list[Tensor | None]) -> Tensor | None:
    sizes = [mask.shape for mask in masks if mask is not None]
    if not sizes:
        return None if all(weight == 1.0 for weight in each) else torch.tensor(each).view(-1, 1, 1, 1)
    rows = [torch.full(sizes[0], weight) if mask is None else mask * weight
            for weight, mask in zip(each, masks, strict=True)]
    return torch.stack(rows)[:, None]
