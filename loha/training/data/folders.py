"""Which folders hold pictures, how often each counts, and which files lie in them."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ....text import show
from ...errors import FileError, SettingsError
from ...files.opening import reason
from ..settings.pictures import MAX_REPEATS, DataOptions, FolderOptions
from .captions import CAPTION_ENDINGS
from .pictures import PICTURE_ENDINGS

_REPEATS = re.compile(r"(\d+)_(.+)", re.DOTALL)
_OTHER_JPEGS = (".jfif", ".jif", ".jpe", ".pjp", ".pjpeg")
_OTHER_PICTURES = (
    ".apng", ".arw", ".avif", ".avifs", ".bmp", ".clip", ".cr2", ".cr3", ".dds", ".dib", ".dng", ".eps", ".exr", ".gif",
    ".heic", ".heif", ".hif", ".ico", ".j2k", ".jng", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr", ".kra", ".mng", ".nef",
    ".orf", ".pcx", ".pgm", ".ppm", ".psb", ".psd", ".qoi", ".raf", ".rw2", ".sai", ".sai2", ".svg", ".tga", ".tif",
    ".tiff", ".wdp", ".xcf")


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
    """File names in one folder.

    Args:
        pictures: in order.
        captions: the caption's file of each picture, or "".
        refused: name and reason of what looks like a picture and is not read.
        folders: in it, hidden ones left out.
        lone_captions: files with a caption's ending and no picture's name.
        others: how many files have each other ending, which nothing reads.
    """

    pictures: tuple[str, ...]
    captions: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    lone_captions: tuple[str, ...]
    others: Counter[str]


LEADS_OUT = "a link to where nothing may be read"
# Whether what lies at a path may be read.
MayRead = Callable[[Path], bool]


def anywhere(path: Path) -> bool:
    """May be read wherever it lies: for what a person's own command line names."""
    return True


def image_folders(options: DataOptions, may_read: MayRead = anywhere) -> tuple[ImageFolder, ...]:
    """All folders to look into, in an order that the disk has no say in.

    Args:
        may_read: asked of the folders below those of the options, which may be links.

    Raises:
        SettingsError: no folder was given, or repeats beyond 10 000.
        FileError: a folder is missing or cannot be listed.
    """
    if not options.folders:
        raise SettingsError("no folder of pictures was given")
    return tuple(found for chosen in options.folders for found in _of(chosen, may_read))


def list_folder(folder: ImageFolder, may_read: MayRead = anywhere) -> Listing:
    """What lies in one folder, one level deep; hidden files are passed over.

    A caption is called as its picture with another ending (a.txt) or one more (a.png.txt, as downloaders write it).

    Args:
        may_read: asked of links. Of those that lead out nothing is found out, but captions are listed: a picture must
            not seem to have none.

    Raises:
        FileError: the folder cannot be listed.
    """
    with _scanned(folder.path) as entries:
        kinds = {entry.name: _kind(entry, may_read) for entry in entries if not entry.name.startswith(".")}
    folders = tuple(sorted(name for name, kind in kinds.items() if kind == "folder"))
    files = sorted(kinds.keys() - set(folders))
    wanted = folder.options.captions.extension
    endings = (wanted.lower(),) if wanted else CAPTION_ENDINGS
    captions: dict[str, dict[str, str]] = {
        ending: {name[:-len(ending)]: name for name in files if name.lower().endswith(ending)} for ending in endings}
    pictures, refused, rest = [], [], set()
    for name in files:
        ending = _ending(name)
        if ending in PICTURE_ENDINGS and kinds[name] == "file":
            pictures.append(name)
        elif kinds[name] == "out" and ending not in endings:
            refused.append((name, LEADS_OUT))
        elif ending in PICTURE_ENDINGS:
            refused.append((name, "not a regular file"))
        elif ending in _OTHER_JPEGS:
            refused.append((name, f"{ending[1:]} is not read: rename it to .jpg"))
        elif ending in _OTHER_PICTURES:
            refused.append((name, f"{ending[1:]} is not supported: convert it to PNG, JPEG or WebP"))
        else:
            rest.add(name)
    owners = {name: _caption_of(name, captions) for name in (*pictures, *(name for name, _ in refused))}
    known = {called for name in owners for called in _called(name)}
    lone = tuple(name for named in captions.values() for called, name in named.items() if called not in known)
    others = Counter(map(_ending, sorted(rest - {*owners.values(), *lone})))
    return Listing(tuple(pictures), tuple(owners[name] for name in pictures), tuple(refused), folders, lone, others)


def folders_digest(options: DataOptions, may_read: MayRead = anywhere) -> str:
    """Changes when a file in the folders is added, taken away or written: 64 hex digits.

    Looks at names, sizes and times, not into the files. Takes and raises as `image_folders`.
    """
    digest = sha256(repr(options).encode("utf-8", "surrogatepass"))
    paths = [folder.path for folder in image_folders(options, may_read)]
    for path in [*paths, *(folder.masks for folder in options.folders if folder.masks)]:
        with _scanned(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _kind(entry, may_read) == "out":
                    continue
                try:
                    found = entry.stat()
                except OSError:  # gone meanwhile, or a link to nothing
                    continue
                # The change time too: a file may be written over and its own time put back.
                line = f"{path}/{entry.name}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\n"
                digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _of(chosen: FolderOptions, may_read: MayRead) -> Iterator[ImageFolder]:
    root = Path(chosen.path)
    try:
        is_folder = stat.S_ISDIR(os.stat(root).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except (OSError, ValueError) as error:  # too long, not permitted, a name that this system cannot have
        raise FileError(f"{show(root, 200)}: cannot be read ({show(reason(error))}). Give the folder that holds the "
                        "pictures.") from error
    if not is_folder:
        raise FileError(f"{show(root, 200)}: no such folder. Give the folder that holds the pictures.")
    yield _image_folder(root, chosen)
    if chosen.repeats is None:
        with _scanned(root) as entries:
            below = sorted(entry.name for entry in entries if _kind(entry, may_read) == "folder")
        yield from (_image_folder(root / name, chosen) for name in below
                    if not name.startswith(".") and may_read(root / name))


def _image_folder(path: Path, chosen: FolderOptions) -> ImageFolder:
    label = path.name or path.resolve().name
    parsed = _REPEATS.fullmatch(label)
    repeats = chosen.repeats or (int(parsed[1][:9]) if parsed else 1)
    if not 1 <= repeats <= MAX_REPEATS:
        raise SettingsError(
            f"the name of {show(path, 200)} asks for {repeats} repeats, outside 1 to {MAX_REPEATS}: rename it"
        )
    # Bytes of a name that are no UTF-8 can be opened, and cannot be read as a caption.
    readable = (parsed[2].strip() if parsed else label).encode("utf-8", "replace").decode("utf-8")
    name = chosen.name or readable
    return ImageFolder(path, label, name, bool(chosen.name or parsed), repeats, chosen)


def _scanned(path: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(path)
    except OSError as error:
        raise FileError(f"{show(path, 200)} cannot be listed: {error.strerror}") from error


def _kind(entry: os.DirEntry[str], may_read: MayRead) -> str:
    """What lies there, links followed: "folder", "file", "out" where a link leads to what may not be read, or ""."""
    try:
        if entry.is_symlink() and not may_read(Path(entry.path)):
            return "out"
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:  # a link to itself, or into a folder that may not be entered
        return ""


def _called(name: str) -> tuple[str, str]:
    """What a picture's caption is called, without its ending."""
    return os.path.splitext(name)[0], name


def _caption_of(picture: str, captions: Mapping[str, Mapping[str, str]]) -> str:
    found = (files[called] for files in captions.values() for called in _called(picture) if called in files)
    return next(found, "")


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
