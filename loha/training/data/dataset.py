"""Batches: which pictures, in which order, with which caption, flipped or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from ..randomness import stream
from ..settings.pictures import DataOptions
from .buckets import Size
from .captions import varied
from .index import PictureIndex
from .pictures import fitted, read_pixels

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
        self._repeats = [index.folder(picture).repeats for picture in range(len(index))]

    def __len__(self) -> int:
        """Pictures shown in an epoch, repeats counted."""
        return sum(self._repeats)

    def bucket_counts(self) -> dict[Size, int]:
        """Pictures shown in an epoch by (width, height), smallest first."""
        counts: dict[Size, int] = defaultdict(int)
        for picture, repeats in enumerate(self._repeats):
            counts[self.index.bucket(picture)] += repeats
        return dict(sorted(counts.items()))

    def batches_per_epoch(self, processes: int = 1) -> int:
        """The same in every epoch: each bucket's last batch may be smaller."""
        whole = self.options.batch_size * processes
        return sum(-(-count // whole) for count in self.bucket_counts().values())

    def epoch(self, seed: int, epoch: int, processes: int = 1) -> tuple[Batch, ...]:
        """All batches of an epoch in their order, which follows from the arguments alone.

        Every picture is shown once for each of its repeats. A bucket that does not divide leaves
        one smaller batch: nothing is dropped and nothing shown twice. With several processes these
        are the batches of all together: take each one's `part`.
        """
        whole = self.options.batch_size * processes
        by_size: dict[Size, list[Item]] = defaultdict(list)
        for picture, repeats in enumerate(self._repeats):
            by_size[self.index.bucket(picture)] += (Item(picture, repeat) for repeat in range(repeats))
        chunks: list[tuple[Size, tuple[Item, ...]]] = []
        for size, items in sorted(by_size.items()):
            stream(seed, "order", epoch, *size).shuffle(items)
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

    def pixels(self, batch: Batch, seed: int) -> Tensor:
        """The batch's pictures: (batch, 3, height, width) float32 in 0 … 1 on the CPU. Raises as `picture`."""
        pictures = (item.picture for item in batch.items)
        return torch.stack(self.pictures(list(zip(pictures, self.is_flipped(batch, seed), strict=True))))

    def pictures(self, wanted: Sequence[tuple[int, bool]]) -> list[Tensor]:
        """What `picture` gives for each (picture, flipped), read by threads. Raises as `picture`."""
        # Decoding and scaling leave Python's lock: a batch is there in the time of its slowest picture.
        with ThreadPoolExecutor(_THREADS, "pictures") as pool:
            return list(pool.map(self.picture, *zip(*wanted, strict=True))) if wanted else []

    def picture(self, picture: int, flipped: bool) -> Tensor:
        """One picture at its bucket's size: (3, height, width) float32 in 0 … 1.

        Raises:
            PictureError: it broke or vanished since it was indexed.
        """
        image = read_pixels(self.index.path(picture))
        if flipped:
            image = ImageOps.mirror(image)
        array = fitted(image, self.index.bucket(picture), self.options.fit)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).float().div_(255.0)
