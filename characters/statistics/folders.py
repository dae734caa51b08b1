"""The captions below a folder, found without holding their names: a folder may have a million."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ...text import show
from ..errors import CastError
from .captions import ENDINGS

# As the trainer takes them.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_REPEATS = re.compile(r"(\d{1,9})_(.+)", re.DOTALL)
_MOST_FOLDERS = 100_000

# Whether what lies at a path may be read.
MayRead = Callable[[Path], bool]


@dataclass(frozen=True)
class CaptionFolder:
    """A folder with captions or pictures directly in it.

    Args:
        path: where it is.
        top: the name of the folder of the first level that it is or lies in; "" for the chosen folder itself.
        captions: how many files end as captions do.
        pictures: how many end as pictures do.
        endings: of the pictures, as they are spelt.
    """

    path: str
    top: str
    captions: int
    pictures: int
    endings: frozenset[str]


def split_label(label: str) -> tuple[int | None, str]:
    """(repeats, name) of a folder's name: kohya's `10_name`, or the name alone."""
    found = _REPEATS.fullmatch(label)
    return (int(found[1]), found[2].strip()) if found else (None, label)


def folders_of(root: Path, may_read: MayRead = lambda path: True) -> list[CaptionFolder]:
    """The folder and all below it that hold anything, in order. Hidden ones are passed over; one that links lead to
    by two ways is entered once, one that they lead to where nothing may be read is not.

    Raises CastError where `root` is no folder or one of them cannot be listed.
    """
    if not os.path.isdir(root):  # Path.is_dir raises for names that no system has
        raise CastError(f"{show(root, 200)}: no such folder. Give the folder that holds the captions")
    found: list[CaptionFolder] = []
    waiting, links, entered = [(str(root), "", 0)], [], set()
    while waiting or links:
        # Where links lead to comes last: what stands here itself is not moved elsewhere by one.
        path, top, depth = waiting.pop() if waiting else links.pop(0)
        with _scanned(path) as entries:
            stat = os.stat(path)
            if (stat.st_dev, stat.st_ino) in entered:
                continue
            entered.add((stat.st_dev, stat.st_ino))
            folder, below = _look(path, top, entries)
        if len(entered) > _MOST_FOLDERS:
            raise CastError(f"{show(root, 200)}: over {_MOST_FOLDERS} folders; choose one further down")
        if folder.captions or folder.pictures:
            found.append(folder)
        for entry in sorted(below, key=lambda entry: entry.name):
            if entry.is_symlink() and not may_read(Path(entry.path)):
                continue
            queue = links if entry.is_symlink() else waiting
            queue.append((entry.path, top if depth else entry.name, depth + 1))
    return sorted(found, key=lambda folder: folder.path)


def _look(path: str, top: str, entries: Iterable[os.DirEntry[str]]) -> tuple[CaptionFolder, list[os.DirEntry[str]]]:
    captions = pictures = 0
    endings, below = set(), []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            below.append(entry)
            continue
        ending = os.path.splitext(entry.name)[1]
        if ending.lower() in ENDINGS:
            captions += 1
        elif ending.lower() in _PICTURES:
            pictures += 1
            endings.add(ending)
    return CaptionFolder(path, top, captions, pictures, frozenset(endings)), below


@dataclass
class Passed:
    """What `captions_in` passed over."""

    without_picture: int = 0
    not_files: int = 0


def captions_in(folder: CaptionFolder, passed: Passed) -> Iterator[str]:
    """The paths of the captions that count, in the disk's order: those of a picture beside them, `a.txt` or
    `a.png.txt` of `a.png`, or all where the folder has no picture. Of several of one picture the first counts."""
    with _scanned(folder.path) as entries:
        for entry in entries:
            stem, ending = os.path.splitext(entry.path)
            if ending.lower() not in ENDINGS or entry.name.startswith(".") or _is_folder(entry):
                continue
            if not _is_file(entry):  # a FIFO would be waited on for ever; a link to nothing
                passed.not_files += 1
                continue
            called = _called(stem, folder.endings)
            if not called:
                passed.without_picture += 1
            elif not any(map(os.path.exists, _before(entry.path, called))):
                yield entry.path


def _called(stem: str, endings: frozenset[str]) -> tuple[str, ...]:
    """What captions of the picture that this one is of may be called, without their endings; none without picture."""
    bare, ending = os.path.splitext(stem)
    if ending in endings and os.path.exists(stem):
        return bare, stem
    found = next((stem + one for one in endings if os.path.exists(stem + one)), None)
    return (stem, found) if found else () if endings else (stem,)


def _before(path: str, called: tuple[str, ...]) -> Iterator[str]:
    """The captions that would count in this one's stead."""
    for one in (name + ending for ending in ENDINGS for name in called):
        if one.lower() == path.lower():  # whatever the case of its ending
            return
        yield one


def folder_stamp(root: Path, may_read: MayRead = lambda path: True) -> str:
    """Changes when a file below the folder is added, taken away or written: 64 hex digits, for this process alone.
    Looks into no file. Raises as `folders_of`.
    """
    digest = sha256()
    for folder in folders_of(root, may_read):
        digest.update(repr(folder.path).encode() + b"%d" % folder.pictures)
        total = 0
        with _scanned(folder.path) as entries:
            for entry in entries:
                if os.path.splitext(entry.name)[1].lower() in ENDINGS:
                    try:
                        stat = entry.stat()
                    except OSError:  # gone meanwhile, or a link to nothing
                        continue
                    # The change time too: a file may be written over and its own time put back.
                    seen = (entry.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                    total = (total + hash(seen)) % 2**64  # in whatever order the disk lists them
        digest.update(b"%d" % total)
    return digest.hexdigest()


def _scanned(path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(path)
    except OSError as error:
        raise CastError(f"{show(path, 200)} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
