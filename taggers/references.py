"""Reference pictures of characters: a folder for each, as Tag Statistics and the trainer have them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..characters.catalogue import Cast
from ..characters.statistics.folders import MayRead, folders_of, split_label
from ..loha.errors import FileError
from ..loha.files.opening import reason
from ..loha.training.data.pictures import PICTURE_ENDINGS
from ..text import show

MOST = 20  # of one character: with more, she would be the nearest more often by chance
_SHOWN = 5


@dataclass(frozen=True)
class References:
    """Where reference pictures are.

    Attributes:
        pictures: name → her pictures, at most MOST, evenly from all of hers by name.
        not_cast: folders that are called by nobody's name.
    """

    pictures: dict[str, tuple[Path, ...]]
    not_cast: tuple[str, ...]


def find_references(cast: Cast, root: Path, may_read: MayRead = lambda path: True) -> References:
    """The pictures in folders called by a character's name, or `N_name`; all folders below count as hers.

    Args:
        cast: whose names count, and whose other names; not those that several share.
        may_read: asked of links.

    Raises:
        CastError: a folder cannot be listed.
        FileError: no such folder, or there are pictures of fewer than two of the cast.
    """
    if not os.path.isdir(root):  # Path.is_dir raises for names that no system has
        raise FileError(f"references: {show(root, 200)}: no such folder. Give one that holds a folder for each "
                        "character.")
    found: dict[str, list[Path]] = {}
    not_cast = set()
    for folder in folders_of(root, may_read):
        if not folder.pictures:
            continue
        called = cast.called(split_label(folder.top)[1]) if folder.top else ()
        if len(called) == 1:
            found.setdefault(called[0].name, []).extend(_pictures(Path(folder.path), may_read))
        else:
            not_cast.add(folder.top or ".")
    pictures = {name: _evenly(sorted(paths)) for name, paths in found.items() if paths}
    if len(pictures) < 2:
        others = f"; called by nobody's name: {some(sorted(not_cast))}" if not_cast else ""
        raise FileError(f"references: {show(root, 200)} has pictures of {some(list(pictures)) or 'nobody'} of the cast "
                        f"'{show(cast.name)}'{others}. Give a folder that holds a folder of pictures for each of two "
                        "characters or more, called by her name or N_name.")
    return References(pictures, tuple(sorted(not_cast)))


def some(names: Sequence[str]) -> str:
    """The first few names of many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(show(name, 60) for name in names[:_SHOWN]) + more


def _pictures(folder: Path, may_read: MayRead) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries
                    if entry.name.lower().endswith(PICTURE_ENDINGS) and not entry.name.startswith(".")
                    and (not entry.is_symlink() or may_read(Path(entry.path))) and entry.is_file()]
    except OSError as error:
        raise FileError(f"references: {show(folder, 200)} cannot be listed ({show(reason(error))}).") from error


def _evenly(paths: list[Path]) -> tuple[Path, ...]:
    count = min(len(paths), MOST)
    return tuple(paths[at * len(paths) // count] for at in range(count)) if count else ()
