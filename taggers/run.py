"""A folder of pictures to captions: decoded side by side, tagged in batches, written one by one and whole."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..loha.errors import FileError
from ..loha.files.atomic import sweep, write_whole
from ..loha.training.data.folders import ImageFolder, MayRead, anywhere, image_folders, list_folder
from ..loha.training.data.pictures import PictureError, read_pixels
from ..loha.training.settings.pictures import DataOptions, FolderOptions
from ..text import show
from .captions import CaptionWriter
from .layouts import WD
from .options import APPEND, MISSING, TaggingOptions
from .tagger import Tagger
from .text_files import read_text

_ENDING = ".txt"
_SHOWN = 50  # pictures named in a report
_THREADS = min(4, os.cpu_count() or 1)
# A square of it fits into 800 MB while it is made smaller.
_LONGEST_SIDE = 16_384


class _Job(NamedTuple):
    folder: Path
    picture: str
    caption: str  # name of the file that it goes into
    exists: bool


class TaggingRun:
    """What is to be done in a folder, and what was done so far.

    Pictures are found as LoHa Training Data finds them: in the folder and in the folders directly in it. A caption is
    the `.txt` beside its picture, or the `.caption` that is there already. Broken off at any time, a run leaves whole
    captions only, and another one goes on.

    Args:
        folder: with the pictures.
        tagger: looks at them.
        options: what was chosen.
        may_read: asked of links in the folder.

    Raises:
        FileError: the folder is missing, cannot be listed, or has no pictures.
        SettingsError: a folder in it is called `N_name` with an impossible N.
    """

    def __init__(self, folder: Path, tagger: Tagger, options: TaggingOptions, may_read: MayRead = anywhere) -> None:
        self._root, self._tagger, self._options = folder, tagger, options
        self._writers: dict[Path, CaptionWriter] = {}  # by folder: of its own name, or one for all
        self._jobs: list[_Job] = []
        self._left_out: list[tuple[str, str]] = []
        self._pictures = self._captioned = self._written = self._unchanged = 0
        for found in image_folders(DataOptions((FolderOptions(folder),)), may_read):
            self._writers[found.path] = self._writer(found.name)
            self._look_through(found, may_read)
        if not self._pictures:
            told = f"; {self._left_out[0][0]}: {self._left_out[0][1]}" if self._left_out else ""
            raise FileError(f"{show(folder, 200)}: no pictures in it, nor in the folders in it (JPEG, PNG or "
                            f"WebP){told}. Give the folder that holds them.")

    def go(self, progress: Callable[[int, int], None]) -> None:
        """Write the captions.

        Args:
            progress: told after each picture how many are done, and of how many; what it raises ends the run.

        Raises:
            FileError: the model fails, or a caption cannot be written.
        """
        size = self._tagger.batch or self._options.batch_size
        batch: list[tuple[_Job, np.ndarray]] = []
        for folder in {job.folder for job in self._jobs}:
            with suppress(OSError):
                sweep(folder)
        with closing(self._decoded(size)) as pictures:
            for done, (job, found) in enumerate(pictures, 1):
                if isinstance(found, str):
                    self._leave_out(job.folder / job.picture, found)
                else:
                    batch.append((job, found))
                if len(batch) == size or done == len(self._jobs):
                    self._tag(batch)
                    batch = []
                progress(done, len(self._jobs))

    def report(self) -> str:
        """What was done so far, one `key: value` a line."""
        tagger, (general, character) = self._tagger, next(iter(self._writers.values())).thresholds
        layout, own = tagger.files.layout, tagger.thresholds
        lines = [
            f"tagger: {show(tagger.files.model.parent.name)}/{show(tagger.files.model.name)}",
            f"layout: {layout.name}, {tagger.size} × {tagger.size} pixels, {len(tagger.labels)} tags",
            f"runs on: {tagger.provider}",
            f"thresholds: general {general:g}, character {character:g}",
            f"pictures: {self._pictures}",
            f"written: {self._written}",
            f"captioned already: {self._captioned}",
            f"unchanged: {self._unchanged}",
            f"left out: {len(self._left_out)}",
        ]
        lines += (f"left out: {name}: {reason}" for name, reason in self._left_out[:_SHOWN])
        if len(self._left_out) > _SHOWN:
            lines.append(f"left out: … and {len(self._left_out) - _SHOWN} more")
        if layout is not WD and (general, character) != own:
            lines.append(f"note: its authors advise {own[0]:g} for general tags and {own[1]:g} for characters; a "
                         "threshold of 0 takes theirs")
        return "\n".join(lines)

    def _writer(self, name: str) -> CaptionWriter:
        if not self._options.folder_name and self._writers:
            return next(iter(self._writers.values()))
        prefix = f"{name}, {self._options.prefix}" if self._options.folder_name else self._options.prefix
        return CaptionWriter(self._tagger.labels, replace(self._options, prefix=prefix), self._tagger.thresholds)

    def _look_through(self, folder: ImageFolder, may_read: MayRead) -> None:
        listing = list_folder(folder, may_read)
        self._left_out += ((show(self._relative(folder.path / name), 200), reason) for name, reason in listing.refused)
        self._pictures += len(listing.pictures)
        owners: dict[str, str] = {}
        for picture, existing in zip(listing.pictures, listing.captions, strict=True):
            caption = existing or os.path.splitext(picture)[0] + _ENDING
            owner = owners.setdefault(os.path.normcase(caption), picture)
            if existing and self._options.existing == MISSING:
                self._captioned += 1
            elif owner != picture:
                self._leave_out(folder.path / picture, f"{show(caption)} is the caption of {show(owner)}: rename one")
            else:
                self._jobs.append(_Job(folder.path, picture, caption, bool(existing)))

    def _decoded(self, size: int) -> Iterator[tuple[_Job, np.ndarray | str]]:
        """Each picture as the tagger takes it, or the reason why not, in order; a few are made ahead."""
        ahead: deque[tuple[_Job, Future]] = deque()
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tagging")
        jobs = iter(self._jobs)
        try:
            while True:
                more = islice(jobs, size + _THREADS - len(ahead))
                ahead.extend((job, pool.submit(self._decode, job)) for job in more)
                if not ahead:
                    return
                job, future = ahead.popleft()
                yield job, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, job: _Job) -> np.ndarray | str:
        if flaw := _flaw(job.folder / job.caption):
            return f"{show(job.caption)} {flaw}"
        try:
            image = read_pixels(job.folder / job.picture, any_shape=True)
        except PictureError as error:
            return error.reason
        if max(image.size) > _LONGEST_SIDE:
            return f"{image.width}×{image.height}, a side over {_LONGEST_SIDE} pixels"
        return self._tagger.prepare(image)

    def _tag(self, batch: list[tuple[_Job, np.ndarray]]) -> None:
        if not batch:
            return
        probabilities = self._tagger.predict([prepared for _, prepared in batch])
        for (job, _), row in zip(batch, probabilities, strict=True):
            self._write(job, self._writers[job.folder].tags(row))

    def _write(self, job: _Job, tags: list[str]) -> None:
        target, old = job.folder / job.caption, None
        try:
            if job.exists:
                old = read_text(target)
        except FileError as error:
            if self._options.existing == APPEND:
                self._leave_out(job.folder / job.picture, str(error))
                return
        if job.exists and self._options.existing == APPEND:
            caption = self._writers[job.folder].appended(old, tags)
        else:
            caption = self._writers[job.folder].caption(tags)
        if not caption:
            self._leave_out(job.folder / job.picture, "no tag reaches the threshold")
        elif old is not None and caption.strip() == old.strip():
            self._unchanged += 1
        else:
            write_whole(target, [f"{caption}\n".encode()], overwrite=job.exists, tidy=False)
            self._written += 1

    def _leave_out(self, path: Path, reason: str) -> None:
        self._left_out.append((show(self._relative(path), 200), reason))

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._root)


def _flaw(caption: Path) -> str | None:
    """Why a caption is not written here, if so."""
    try:
        mode = os.lstat(caption).st_mode
    except OSError:
        return None  # not there; or writing says what is wrong
    if stat.S_ISLNK(mode):
        return "is a symbolic link, which is not written through"
    return None if stat.S_ISREG(mode) else "is no regular file"
