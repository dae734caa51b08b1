"""What a tagger has seen already, so that a report that was broken off goes on where it was."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from PIL import Image

from ..loha.files.opening import file_stamp
from .tagger import Tagger

_MOST_BYTES = 64_000_000
_MOST_TAGS = 5_000


class Ledger:
    """Tags by picture, for one tagger at one threshold, in one file of lines; a line cut short does not count.

    Args:
        folder: where the ledgers are; made when something is written.
    """

    def __init__(self, folder: Path, tagger: Tagger, threshold: float) -> None:
        stamps = [file_stamp(path)[1:] for path in tagger.files.all]
        name = hashlib.sha256(json.dumps([tagger.files.model.name, stamps, threshold]).encode()).hexdigest()[:16]
        self._path = folder / f"{name}.jsonl"
        self._known: dict[str, tuple[str, ...]] = {}
        with suppress(OSError):
            if self._path.stat().st_size > _MOST_BYTES:
                self._path.unlink()
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):
                    key, tags = json.loads(line)
                    if isinstance(tags, list) and len(tags) <= _MOST_TAGS and all(isinstance(tag, str) for tag in tags):
                        self._known[key] = tuple(tags)

    def get(self, picture: Image.Image) -> tuple[str, ...] | None:
        return self._known.get(_key(picture))

    def put(self, picture: Image.Image, tags: tuple[str, ...]) -> None:
        """Note the tags. A disk that is full costs the next run time, not this one its result."""
        key = _key(picture)
        self._known[key] = tags
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([key, tags])}")


def _key(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
