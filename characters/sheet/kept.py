"""Pictures of a sheet kept in a folder, so that a sheet grows over several runs and outlives a cancelled one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ...text import show
from ..errors import CastError

_LABEL, _TITLE = "sheet label", "sheet title"


def read_label(path: Path) -> tuple[str, str]:
    """The label and the title of a kept picture, "" both of one that is none of ours."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {})
    except (OSError, ValueError, SyntaxError):
        return "", ""
    return text.get(_LABEL, ""), text.get(_TITLE, "")


class Kept:
    """The kept pictures of one sheet: label → file, in the order in which the labels first came.

    Only pictures of this `title` count: one drawn with another model or strength is not hers of today.

    Raises CastError where the folder cannot be read.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title
        self.paths: dict[str, Path] = {}
        self.others = 0  # pictures under other titles
        try:
            for path in sorted(folder.glob("[0-9][0-9][0-9][0-9].png")):
                self._take(path)
        except OSError as error:
            raise CastError(f"keep_in: {show(folder.name)} cannot be read: {error.strerror}") from error

    def _take(self, path: Path) -> None:
        label, title = read_label(path)
        if label and title == self.title:
            self.paths[label] = path
        self.others += bool(label) and title != self.title

    def put(self, label: str, picture: np.ndarray, write) -> None:
        """Keep a picture, (height, width, 3) uint8, in the place of an earlier one with this label.

        Args:
            write: `(path, bytes)`, puts the file there whole, over an earlier one.
        """
        path = self.paths.get(label) or self.folder / f"{self._next():04d}.png"
        text = PngImagePlugin.PngInfo()
        text.add_itxt(_LABEL, label)
        text.add_itxt(_TITLE, self.title)
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "PNG", pnginfo=text)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CastError(f"keep_in: {show(self.folder.name)} cannot be made: {error.strerror}") from error
        write(path, data.getvalue())
        self.paths[label] = path

    def _next(self) -> int:
        taken = [int(path.stem) for path in self.folder.glob("[0-9][0-9][0-9][0-9].png")]
        return max(taken, default=0) + 1

    def read(self, label: str) -> np.ndarray:
        """The kept picture, (height, width, 3) uint8."""
        with Image.open(self.paths[label]) as image:
            return np.asarray(image.convert("RGB"))
