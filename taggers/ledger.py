"""What was seen on pictures already, so that a report that was broken off goes on where it was."""

from __future__ import annotations

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from ..loha.files.opening import file_stamp
from .identity import LONGEST, IdentityModel
from .tagger import Tagger

_MOST_BYTES = 64_000_000
_MOST_TAGS = 5_000
_Seen = TypeVar("_Seen")


class _Lines(ABC, Generic[_Seen]):
    """What was seen by picture, in one file of lines; a line cut short does not count.

    Args:
        folder: where the ledgers are; made when something is written.
        about: the files of who saw it, and what else it depends on; a ledger for each.
    """

    def __init__(self, folder: Path, files: Sequence[Path], *about: object) -> None:
        stamps = [file_stamp(path)[1:] for path in files]
        name = hashlib.sha256(json.dumps([files[0].name, stamps, *about]).encode()).hexdigest()[:16]
        self._path = folder / f"{name}.jsonl"
        self._known: dict[str, _Seen] = {}
        with suppress(OSError):
            if self._path.stat().st_size > _MOST_BYTES:
                self._path.unlink()
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):
                    key, written = json.loads(line)
                    self._known[key] = self._read(written)

    def get(self, picture: Image.Image) -> _Seen | None:
        return self._known.get(picture_key(picture))

    def put(self, picture: Image.Image, seen: _Seen) -> None:
        """Note it. A disk that is full costs the next run time, not this one its result."""
        key = picture_key(picture)
        self._known[key] = seen
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([key, self._write(seen)])}")

    @abstractmethod
    def _read(self, written: object) -> _Seen:
        """What stands in a line. Raises ValueError or TypeError where that is something else."""

    @abstractmethod
    def _write(self, seen: _Seen) -> object:
        """What `_read` reads, for JSON."""


class Ledger(_Lines[tuple[str, ...]]):
    """Tags by picture, for one tagger at one threshold."""

    def __init__(self, folder: Path, tagger: Tagger, threshold: float) -> None:
        super().__init__(folder, tagger.files.all, threshold)

    def _read(self, written: object) -> tuple[str, ...]:
        if not isinstance(written, list) or len(written) > _MOST_TAGS or not all(
                isinstance(tag, str) for tag in written):
            raise TypeError
        return tuple(written)

    def _write(self, seen: tuple[str, ...]) -> object:
        return seen


class EmbeddingLedger(_Lines[np.ndarray]):
    """Embeddings, (d,) float32 of length 1, by picture, for one identity model."""

    def __init__(self, folder: Path, model: IdentityModel) -> None:
        super().__init__(folder, model.files)

    def _read(self, written: object) -> np.ndarray:
        found = np.frombuffer(base64.b64decode(written, validate=True), "<f4")
        if not 2 <= len(found) <= LONGEST or not abs(np.linalg.norm(found) - 1) < 1e-3:  # NaN is no length either
            raise ValueError
        return found

    def _write(self, seen: np.ndarray) -> object:
        return base64.b64encode(seen.astype("<f4").tobytes()).decode()


def picture_key(picture: Image.Image) -> str:
    """Equal for pictures of equal pixels only."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
