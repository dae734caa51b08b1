"""Which folders hold pictures, how often each counts, and which files lie in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ....text import show
from ...errors import FileError, SettingsError
from ..settings.pictures import MAX_REPEATS, DataOptions, FolderOptions
from .captions import CAPTION_ENDINGS
from .pictures import PICTURE_ENDINGS

_REPEATS = re.compile(r"(\d+)_(.+)", re.DOTALL)
_OTHER_PICTURES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jxl", ".tga", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageFolder:
    """One folder with pictures directly in it.

    Args:
        path: the folder.
        label: its name on disk, as in the metadata's `ss_dataset_dirs`.
        name: what pictures without a caption are called.
        is_named: whether the name was meant as one: from `N_name`, or given.
        repeats: times each picture is seen in an epoch.
        options: what was chosen for it.
    """

    path: Path
    label: str
    name: str
    is_named: bool
    repeats: int
    options: FolderOptions


@dataclass(frozen=True)
class Listing:
    """File names in one folder: pictures in order, the caption's file of each (or ""), the refused."""

    pictures: tuple[str, ...]
    captions: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def image_folders(options: DataOptions) -> tuple[ImageFolder, ...]:
    """All folders to look into, in an order that the disk has no say in.

    Raises:
        SettingsError: no folder was given, or repeats beyond 10 000.
        FileError: a folder is missing or cannot be listed.
    """
    if not options.folders:
        raise SettingsError("no folder of pictures was given")
    return tuple(found for chosen in options.folders for found in _of(chosen))


def list_folder(folder: ImageFolder) -> Listing:
    """The files of one folder, one level deep; hidden files are passed over.

    Raises:
        FileError: the folder cannot be listed.
    """
    with _scanned(folder.path) as entries:
        files = {entry.name: entry.is_file() for entry in entries if not entry.name.startswith(".")}
    wanted = folder.options.captions.extension
    endings = (wanted.lower(),) if wanted else CAPTION_ENDINGS
    captions: dict[str, str] = {}
    for ending in reversed(endings):  # so that the first ending has the last word
        captions |= {name[:-len(ending)]: name for name in files if name.lower().endswith(ending)}
    pictures, refused = [], []
    for name in sorted(files):
        ending = os.path.splitext(name)[1].lower()
        if ending in PICTURE_ENDINGS and files[name]:
            pictures.append(name)
        elif ending in PICTURE_ENDINGS:
            refused.append((name, "not a regular file"))
        elif ending in _OTHER_PICTURES:
            refused.append((name, f"{ending[1:]} is not supported: convert it to PNG, JPEG or WebP"))
    found = tuple(captions.get(os.path.splitext(name)[0], "") for name in pictures)
    return Listing(tuple(pictures), found, tuple(refused))


def folders_digest(options: DataOptions) -> str:
    """Changes when a file in the folders is added, taken away or written: 64 hex digits.

    Looks at names, sizes and times, not into the files. Raises as `image_folders`.
    """
    digest = sha256(repr(options).encode("utf-8", "surrogatepass"))
    for folder in image_folders(options):
        with _scanned(folder.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    stat = entry.stat()
                except OSError:  # gone meanwhile, or a link to nothing
                    continue
                # The change time too: a file may be written over and its own time put back.
                line = f"{folder.path}/{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
                digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _of(chosen: FolderOptions) -> Iterator[ImageFolder]:
    root = Path(chosen.path)
    if not root.is_dir():
        raise FileError(f"{show(root, 200)}: no such folder. Give the folder that holds the pictures.")
    yield _image_folder(root, chosen)
    if chosen.repeats is None:
        with _scanned(root) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir())
        yield from (_image_folder(root / name, chosen) for name in below if not name.startswith("."))


def _image_folder(path: Path, chosen: FolderOptions) -> ImageFolder:
    label = path.name or path.resolve().name
    parsed = _REPEATS.fullmatch(label)
    repeats = chosen.repeats or (int(parsed[1][:9]) if parsed else 1)
    if not 1 <= repeats <= MAX_REPEATS:
        raise SettingsError(
            f"the name of {show(path, 200)} asks for {repeats} repeats, outside 1 to {MAX_REPEATS}: rename it"
        )
    name = chosen.name or (parsed[2].strip() if parsed else label)
    return ImageFolder(path, label, name, bool(chosen.name or parsed), repeats, chosen)


def _scanned(path: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(path)
    except OSError as error:
        raise FileError(f"{show(path, 200)} cannot be listed: {error.strerror}") from error
