"""Batches: which pictures, in which order, with which caption, flipped or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..randomness import stream
from ..settings.hyper_parameters import KOHYA
from ..settings.pictures import DataOptions
from .buckets import Size, placed
from .captions import varied
from .index import PictureIndex
from .pictures import PictureError, covered, fitted, read_layers, read_pixels
from .regularisation import showings

_THREADS = 4


@dataclass(frozen=True)
class Item:
    """One showing of a picture: its position in the index, and which of its repeats this is."""

    picture: int
    repeat: int


@dataclass(frozen=True)
class Batch:
    """Pictures of one size that go through the U-Net together.

    Args:
        epoch: from 0.
        position: within its epoch, from 0.
        size: (width, height) in pixels.
        items: at most `batch_size` times the number of processes.
    """

    epoch: int
    position: int
    size: Size
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def part(self, rank: int, processes: int) -> Batch:
        """What process `rank` of `processes` computes: parts differ by one picture at most.

        A part of a small last batch may be empty. Weigh each part by its length: the mean over the
        whole batch is then what one process would get.
        """
        share, extra = divmod(len(self.items), processes)
        start = rank * share + min(rank, extra)
        items = self.items[start:start + share + (rank < extra)]
        return Batch(self.epoch, self.position, self.size, items)


class TrainingData:
    """The pictures of a run. Keeps no state between calls: everything follows from the arguments.

    Args:
        index: the pictures to train on.
        validation: those that are set apart, where some are; see `training_data`.
    """

    def __init__(self, index: PictureIndex, options: DataOptions, validation: TrainingData | None = None) -> None:
        self.index = index
        self.options = options
        self.validation = validation
        self._repeats = showings(index)

    def __len__(self) -> int:
        """Pictures shown in an epoch, repeats counted."""
        return sum(self._repeats)

    def options_of(self, picture: int) -> DataOptions:
        """What counts for a picture: its dataset's options, where datasets differ."""
        return self.options.of(self.index.folder(picture).options)

    def bucket_counts(self) -> dict[Size, int]:
        """Pictures shown in an epoch by (width, height), smallest first."""
        counts: dict[Size, int] = defaultdict(int)
        for (_, size), pictures in self._together().items():
            counts[size] += sum(self._repeats[picture] for picture in pictures)
        return dict(sorted(counts.items()))

    def _together(self) -> dict[tuple[int, Size], list[int]]:
        """Pictures that may share a batch, by dataset and size; those that are never shown are left out."""
        found: dict[tuple[int, Size], list[int]] = defaultdict(list)
        for picture, repeats in enumerate(self._repeats):
            if repeats:
                found[self.index.folder(picture).options.dataset, self.index.bucket(picture)].append(picture)
        return dict(sorted(found.items()))

    def batches_per_epoch(self, processes: int = 1) -> int:
        """The same in every epoch: each bucket's last batch may be smaller."""
        batches = 0
        for pictures in self._together().values():
            whole = self.options_of(pictures[0]).batch_size * processes
            batches += -(-sum(self._repeats[picture] for picture in pictures) // whole)
        return batches

    def epoch(self, seed: int, epoch: int, processes: int = 1) -> tuple[Batch, ...]:
        """All batches of an epoch in their order, which follows from the arguments alone.

        Every picture is shown once for each of its repeats. A bucket that does not divide leaves
        one smaller batch: nothing is dropped and nothing shown twice. With several processes these
        are the batches of all together: take each one's `part`.
        """
        chunks: list[tuple[Size, tuple[Item, ...]]] = []
        for (dataset, size), pictures in self._together().items():
            whole = self.options_of(pictures[0]).batch_size * processes
            items = [Item(picture, repeat) for picture in pictures for repeat in range(self._repeats[picture])]
            stream(seed, "order", epoch, *size, *([dataset] if dataset else [])).shuffle(items)
            chunks += ((size, tuple(items[at:at + whole])) for at in range(0, len(items), whole))
        stream(seed, "batches", epoch).shuffle(chunks)
        return tuple(Batch(epoch, at, size, items) for at, (size, items) in enumerate(chunks))

    def captions(self, batch: Batch, seed: int, *, step: int = 0, total_steps: int = 0) -> list[str]:
        """The batch's captions as they are trained this time, at `step` of the run."""
        return [
            varied(
                self.index.captions[item.picture],
                self.index.folder(item.picture).options.captions,
                stream(seed, "caption", batch.epoch, item.picture, item.repeat),
                epoch=batch.epoch, step=step, total_steps=total_steps,
            )
            for item in batch.items
        ]

    def is_flipped(self, batch: Batch, seed: int) -> list[bool]:
        """Which of the batch's pictures are mirrored this time."""
        return [
            self.index.folder(item.picture).options.flip
            and stream(seed, "flip", batch.epoch, item.picture, item.repeat).random() < 0.5
            for item in batch.items
        ]

    def showings(self, picture: int) -> int:
        """Times that a picture is shown in an epoch."""
        return self._repeats[picture]

    def weight(self, picture: int) -> float:
        """How much a picture counts in the loss."""
        return self.options.prior_loss_weight if self.index.folder(picture).options.is_reg else 1.0

    def has_mask(self, picture: int) -> bool:
        return self.index.mask(picture) is not None or self.index.folder(picture).options.alpha_mask

    def pixels(self, batch: Batch, seed: int) -> Tensor:
        """The batch's pictures: (batch, 3, height, width) float32 in 0 … 1 on the CPU. Raises as `picture`."""
        pictures = (item.picture for item in batch.items)
        return torch.stack(self.pictures(
            list(zip(pictures, self.is_flipped(batch, seed), self.cuts(batch, seed), strict=True))))

    def cuts(self, batch: Batch, seed: int) -> list[Random | None]:
        """Of each of the batch's pictures what decides where it is cut this time; None for its middle."""
        return [stream(seed, "crop", batch.epoch, item.picture, item.repeat)
                if self.index.folder(item.picture).options.random_crop else None for item in batch.items]

    def pictures(self, wanted: Sequence[tuple[int, bool] | tuple[int, bool, Random | None]]) -> list[Tensor]:
        """What `picture` gives for each (picture, flipped[, cut]), read by threads. Raises as `picture`."""
        # Decoding and scaling leave Python's lock: a batch is there in the time of its slowest picture.
        with ThreadPoolExecutor(_THREADS, "pictures") as pool:
            return list(pool.map(self.picture, *zip(*wanted, strict=True))) if wanted else []

    def picture(self, picture: int, flipped: bool, cut: Random | None = None) -> Tensor:
        """One picture at its bucket's size: (3, height, width) float32 in 0 … 1.

        Args:
            cut: where to cut it to its bucket; None: evenly.

        Raises:
            PictureError: it broke or vanished since it was indexed.
        """
        path = self.index.path(picture)
        image = read_layers(path)[0] if self.index.folder(picture).options.alpha_mask else read_pixels(path)
        array = self._fitted(picture, image, flipped, cut)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).float().div_(255.0)

    def mask(self, picture: int, flipped: bool, cut: Random | None = None) -> np.ndarray:
        """How much each pixel of `picture` counts: (height, width) uint8, scaled and cut as the picture is.

        Args:
            cut: as new as the picture's was.

        Raises:
            PictureError: the mask broke or vanished since it was looked at.
        """
        mask = self.index.mask(picture)
        if mask is None:
            layer = read_layers(self.index.path(picture))[1]
        else:
            layer = read_layers(mask.path)[0].getchannel("R")
            if layer.size != tuple(self.index.sizes[picture]):
                raise PictureError(mask.path, "its size has changed since it was looked at")
        return np.ascontiguousarray(self._fitted(picture, layer.convert("RGB"), flipped, cut)[..., 0])

    def _fitted(self, picture: int, image: Image.Image, flipped: bool, cut: Random | None) -> np.ndarray:
        bucket, options = self.index.bucket(picture), self.options_of(picture)
        if options.bucketing != KOHYA:
            return fitted(ImageOps.mirror(image) if flipped else image, bucket, options.fit)
        now, scaled = placed(*image.size, options)
        if now != bucket:
            raise PictureError(self.index.path(picture), f"its size has changed to {image.width}×{image.height} since "
                               "it was looked at: start anew")
        array = covered(image, scaled, bucket, cut)
        return array[:, ::-1] if flipped else array  # mirrored last: of an odd pixel the same side is cut
