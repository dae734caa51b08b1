"""Paths that a person types into a node, and where they may lead.

Anywhere, on a server that only this machine reaches. Where others reach it too, whoever types may be anyone: then
ComfyUI's input folder, its models folders, and what its owner lists in a small file. ComfyUI lets nobody write that
file over the network: what a browser stores lies in a folder for each user, beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths

from ..loha import FileError
from ..patcher.comfyui import listens_beyond
from ..text import show

_ALLOWED = Path("shinymas", "allowed_folders.txt")
_MAX_BYTES = 1 << 16


def bare(text: str) -> str:
    """A path without spaces around it, and without the quotes that Windows' "Copy as path" puts there."""
    text = text.strip()
    return text[1:-1] if text[:1] == text[-1:] == '"' else text


def typed_path(path: str | os.PathLike[str]) -> Path:
    """The path itself; one that is not absolute lies in ComfyUI's input folder.

    Raises:
        FileError: nodes of this server read nothing there. The sentence is the same whatever is there, or not.
    """
    found = Path(folder_paths.get_input_directory(), path)
    if not reach()(found):
        raise FileError(
            f"'{show(path, 200)}' is not read: other machines can reach this server, so what nodes read lies in "
            "ComfyUI's input folder, in a models folder, or in a folder that stands on a line of "
            f"{_ALLOWED.as_posix()} in ComfyUI's user directory.")
    return found


def reach() -> Callable[[Path], bool]:
    """Tells of an absolute path whether nodes may read it, as the server and the small file are now."""
    if not listens_beyond():
        return lambda path: True
    places = {Path(one(place)) for place in _places() for one in (os.path.abspath, os.path.realpath)}

    def may_read(path: Path) -> bool:
        try:
            # As it is written first: of a path that leads out, nothing is looked up on the disk.
            return all(any(Path(one(path)).is_relative_to(place) for place in places)
                       for one in (os.path.abspath, os.path.realpath))
        except ValueError:  # no path on this system
            return False

    return may_read


def _places() -> Iterator[str | Path]:
    yield folder_paths.get_input_directory()
    yield folder_paths.models_dir
    for kind, (folders, _) in folder_paths.folder_names_and_paths.items():
        if kind != "custom_nodes":
            yield from folders
    try:
        with open(Path(folder_paths.get_user_directory()) / _ALLOWED, "rb") as file:
            lines = file.read(_MAX_BYTES).decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError:  # there is none
        return
    for line in map(bare, lines):
        if line and not line.startswith("#"):
            yield Path(folder_paths.get_input_directory(), os.path.expanduser(line))
