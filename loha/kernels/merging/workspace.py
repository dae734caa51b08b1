"""Memory that the merges of one load share, from the first weight to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor


class Workspace:
    """Memory on the CPU that one merge leaves to the next, until `release`.

    Allocated anew for each weight it is paged in anew wherever malloc has given it back to the system in between,
    which in a process that has used large temporaries is every time. Threads may share one: whoever finds it lent
    takes memory of its own.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: Tensor | None = None
        self._releases = 0

    @property
    def nbytes(self) -> int:
        """Of what is kept at this moment."""
        kept = self._kept
        return 0 if kept is None else kept.nbytes

    @contextmanager
    def lend(self, size: int) -> Iterator[Tensor]:
        """At least `size` bytes, uint8, whatever they hold; for the length of the block."""
        with self._lock:
            memory, self._kept, releases = self._kept, None, self._releases
        if memory is None or memory.numel() < size:
            memory = None  # before the larger one is there, not after
            memory = torch.empty(size, dtype=torch.uint8)
        try:
            yield memory
        finally:
            with self._lock:
                # What was lent before a release is not kept after it.
                if self._releases == releases:
                    self._kept = memory

    def release(self) -> None:
        """Give the memory back. The next merge takes anew what it needs."""
        with self._lock:
            self._kept = None
            self._releases += 1
