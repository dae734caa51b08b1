"""The index: every usable picture's size and caption, and why the others were left out."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from ....text import show
from ...errors import FileError
from ..settings.pictures import DataOptions
from .buckets import Size, bucket_for
from .captions import Caption, CaptionError, Layout, read_text, understood
from .contents import HASH_BYTES, Examined, Ledger, examine
from .folders import LEADS_OUT, ImageFolder, Listing, MayRead, anywhere, image_folders, list_folder
from .masks import Mask, mask_files, mask_of, refuse_unmasked
from .pictures import PictureError

# Up to this many pictures are decoded once, which takes seconds and finds damage inside of them;
# beyond it headers and file ends must do.
DECODE_UP_TO = 2000
_CHUNK = 512
_THREADS = 4
_SHOWN = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PassedOver:
    """What lies in the folders and is not used, pictures apart.

    Args:
        folders: deeper than where pictures are looked for.
        captions: of no picture.
        endings: how many files have each ending that is read for nothing, in lower case.
    """

    folders: tuple[Path, ...]
    captions: tuple[Path, ...]
    endings: Counter[str]


@dataclass(frozen=True, eq=False)
class PictureIndex:
    """The usable pictures in the order of their folders and names. Holds no pixels.

    Args:
        folders: where they lie.
        folder_of: (pictures,) uint32, position in `folders`.
        names: file names.
        captions: as written, or the folder's name; not yet varied.
        sizes: (pictures, 2) uint32, width and height as seen.
        buckets: (pictures, 2) uint32, width and height at which each is trained.
        contents: (pictures, 16) uint8, a hash of each file's bytes.
        left_out: path and reason of every file that looks like a picture and is not used.
        caption_sources: how many captions came from a "file", from the "folder", and were "empty".
        layouts: pictures by how their caption's file was understood; those of one line are not in it.
        passed_over: what else lies in the folders.
        was_decoded: whether every picture was decoded, not its header alone.
        masks: of each picture the file of its mask; empty where there are none at all.
    """

    folders: tuple[ImageFolder, ...]
    folder_of: np.ndarray
    names: tuple[str, ...]
    captions: tuple[str, ...]
    sizes: np.ndarray
    buckets: np.ndarray
    contents: np.ndarray
    left_out: tuple[tuple[Path, str], ...]
    caption_sources: Counter[str]
    layouts: Mapping[Layout, tuple[int, ...]]
    passed_over: PassedOver
    was_decoded: bool
    masks: tuple[Mask | None, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def folder(self, picture: int) -> ImageFolder:
        return self.folders[self.folder_of[picture]]

    def path(self, picture: int) -> Path:
        return self.folder(picture).path / self.names[picture]

    def mask(self, picture: int) -> Mask | None:
        return self.masks[picture] if self.masks else None

    def bucket(self, picture: int) -> Size:
        width, height = self.buckets[picture]
        return int(width), int(height)

    def part(self, pictures: Sequence[int]) -> PictureIndex:
        """An index of these pictures alone. What was left out and where captions came from stays as it was."""
        rows = np.asarray(pictures, np.intp)
        place = {picture: at for at, picture in enumerate(pictures)}
        return replace(
            self, folder_of=self.folder_of[rows], sizes=self.sizes[rows], buckets=self.buckets[rows],
            contents=self.contents[rows], names=tuple(self.names[row] for row in rows),
            captions=tuple(self.captions[row] for row in rows),
            masks=tuple(self.masks[row] for row in rows) if self.masks else (),
            layouts={layout: found for layout, of in self.layouts.items()
                     if (found := tuple(place[picture] for picture in of if picture in place))})


@dataclass(frozen=True)
class _Found:
    folder: int
    name: str
    caption_file: str
    mask: Path | None


def index_pictures(options: DataOptions, progress: Progress | None = None, *, ledgers: Path | None = None,
                   may_read: MayRead = anywhere) -> PictureIndex:
    """Look at every picture and caption of the folders; threads read, nothing is kept open.

    Args:
        ledgers: folder for what is found in more than `DECODE_UP_TO` files: unchanged ones are read through once.
        may_read: asked of links and folders in the folders, which themselves are taken as given.
        progress: called with (done, total) every few hundred pictures; what it raises passes through.

    Raises:
        FileError: a folder is missing; no usable picture; captions that cannot be read, or masks that are
            missing, broken or of another size (all are named).
        SettingsError: no folder, or repeats beyond their range.
    """
    folders = image_folders(options, may_read)
    listings = [list_folder(folder, may_read) for folder in folders]
    masks = [mask_files(folder, may_read) for folder in folders]
    found = [_Found(position, name, caption, masks[position].get(os.path.splitext(name)[0]))
             for position, listing in enumerate(listings)
             for name, caption in zip(listing.pictures, listing.captions, strict=True)]
    left_out = [(folder.path / name, reason) for folder, listing in zip(folders, listings, strict=True)
                for name, reason in listing.refused]
    decode = len(found) <= DECODE_UP_TO
    # Few pictures are decoded each time, and remembering them would only litter.
    books = [Ledger(folder.path, None if decode else ledgers) for folder in folders]

    def look(one: _Found) -> tuple[Examined | PictureError, Caption | CaptionError, Examined | PictureError | None]:
        path, has_variants = folders[one.folder].path, folders[one.folder].options.captions.wildcards
        return (_picture(path / one.name, books[one.folder], decode),
                _caption(path / one.caption_file, may_read, has_variants) if one.caption_file
                else Caption("", Layout.LINE),
                _picture(one.mask, Ledger(one.mask.parent, None), decode) if one.mask else None)

    buckets_of = [cache(partial(bucket_for, options=options.of(folder.options))) for folder in folders]
    usable: list[_Found] = []
    sizes: list[Size] = []
    contents: list[bytes] = []
    captions: list[str] = []
    unread: list[CaptionError] = []
    masked: list[Mask | None] = []
    unmasked: list[str] = []
    sources: Counter[str] = Counter()
    layouts: dict[Layout, list[int]] = defaultdict(list)
    for one, (picture, caption, mask) in zip(found, _looked_at(look, found, progress, books), strict=True):
        folder = folders[one.folder]
        if isinstance(caption, CaptionError):
            unread.append(caption)
        elif isinstance(picture, PictureError):
            left_out.append((folder.path / one.name, picture.reason))
        elif not all(buckets_of[one.folder](picture.width, picture.height)):
            left_out.append((folder.path / one.name, f"{picture.width}×{picture.height}, a side would be shorter than "
                             f"a bucket's step of {options.of(folder.options).bucket_step} pixels"))
        else:
            if caption.layout is not Layout.LINE:
                layouts[caption.layout].append(len(usable))
            usable.append(one)
            fitting = mask_of(folder.path / one.name, (picture.width, picture.height), one.mask, mask) if (
                folder.options.masks) else None
            (unmasked if isinstance(fitting, str) else masked).append(fitting)
            sizes.append((picture.width, picture.height))
            contents.append(picture.content)
            captions.append(caption.text if one.caption_file else folder.name)
            sources["folder" if not one.caption_file else "file" if caption.text else "empty"] += 1
    _refuse_unread(unread)
    refuse_unmasked(unmasked)
    passed_over = _passed_over(folders, listings)
    if not usable:
        raise FileError(_nothing(options, left_out, passed_over))
    return PictureIndex(
        folders=folders,
        folder_of=np.array([one.folder for one in usable], np.uint32),
        names=tuple(one.name for one in usable),
        captions=tuple(captions),
        sizes=np.array(sizes, np.uint32),
        buckets=np.array([buckets_of[one.folder](*size) for one, size in zip(usable, sizes, strict=True)], np.uint32),
        contents=np.frombuffer(b"".join(contents), np.uint8).reshape(-1, HASH_BYTES),
        left_out=tuple(left_out),
        caption_sources=sources,
        layouts={layout: tuple(pictures) for layout, pictures in layouts.items()},
        passed_over=passed_over,
        was_decoded=decode,
        masks=tuple(masked) if any(masked) else (),
    )


def _passed_over(folders: tuple[ImageFolder, ...], listings: list[Listing]) -> PassedOver:
    looked_into = {folder.path for folder in folders}
    both = list(zip(folders, listings, strict=True))
    below = (folder.path / name for folder, listing in both for name in listing.folders)
    return PassedOver(
        folders=tuple(path for path in below if path not in looked_into),
        captions=tuple(folder.path / name for folder, listing in both for name in listing.lone_captions),
        endings=sum((listing.others for listing in listings), Counter()))


def _looked_at(look: Callable, found: list[_Found], progress: Progress | None,
               books: list[Ledger]) -> Iterator[tuple]:
    """`look` at each, in order; a chunk at a time, so that cancelling in `progress` is prompt."""
    waiting = iter(found)
    done = 0
    try:
        with ThreadPoolExecutor(_THREADS, "pictures") as pool:
            while chunk := list(islice(waiting, _CHUNK)):
                yield from pool.map(look, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, len(found))
    finally:
        for book in books:
            book.write(is_whole=done == len(found))


def _picture(path: Path, ledger: Ledger, decode: bool) -> Examined | PictureError:
    try:
        return examine(path, ledger, decode=decode)
    except PictureError as error:
        return error


def _caption(path: Path, may_read: MayRead, has_variants: bool) -> Caption | CaptionError:
    if path.is_symlink() and not may_read(path):
        return CaptionError(path, LEADS_OUT)
    try:
        return understood(read_text(path), has_variants=has_variants)
    except CaptionError as error:
        return error


def _refuse_unread(unread: list[CaptionError]) -> None:
    if not unread:
        return
    more = f"\n… and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
    named = "\n".join(str(error) for error in unread[:_SHOWN])
    raise FileError(f"{len(unread)} caption file(s) cannot be used:\n{named}{more}")


def _nothing(options: DataOptions, left_out: list[tuple[Path, str]], passed_over: PassedOver) -> str:
    where = ", ".join(show(folder.path, 200) for folder in options.folders)
    lines = [f"{show(path.name, 120)}: {reason}" for path, reason in left_out[:_SHOWN]]
    lines += [f"{show(path, 200)}: not looked into, it lies too deep" for path in passed_over.folders[:_SHOWN]]
    what = f"none of {len(left_out)} picture(s) can be used" if left_out else (
        "no JPEG, PNG or WebP picture in it or one folder below")
    return "\n".join([f"{where}: {what}{':' if lines else ''}", *lines])
