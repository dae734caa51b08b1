"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...text import show
from ..errors import FileError
from .opening import reason

_LEFTOVER = re.compile(r"\.shinymas-[0-9a-f]{16}\.tmp")
_LEFTOVER_AGE = 3600  # seconds: no save takes as long


def write_whole(target: Path, chunks: Iterable[bytes | memoryview], overwrite: bool, *,
                tidy: bool = True) -> os.stat_result:
    """Write `chunks` to `target`, whole and flushed to disk, with the umask's mode.

    Whatever ends this early, even a killed process, leaves `target` as it was; leftovers of killed
    processes are swept by the next save into the folder, unless `tidy` is false: whoever writes
    thousands of files into one folder calls `sweep` once, which looks through all of it.

    Raises:
        FileError: `target` is a symlink, exists and `overwrite` is false, or cannot be written.
    """
    _require_free(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            sweep(target.parent)
        temporary = target.parent / f".shinymas-{secrets.token_hex(8)}.tmp"
        try:
            written = _write(temporary, chunks)
            _put(temporary, target, overwrite)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _flush_folder(target.parent)
    except OSError as error:
        raise FileError(f"{show(target.name)}: cannot be written ({reason(error)}); nothing was changed. "
                        f"Check the free space and the permissions of {show(target.parent, 200)}.") from error
    return written


def _require_free(target: Path, overwrite: bool) -> None:
    try:
        mode = os.lstat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise FileError(f"{show(target.name)}: cannot be written ({reason(error)}).") from error
    if stat.S_ISLNK(mode):
        raise FileError(f"{show(target.name)}: is a symbolic link, which is not written through; "
                        "choose another name, or remove the link.")
    if not stat.S_ISREG(mode):
        raise FileError(f"{show(target.name)}: is not a regular file and is not replaced; choose another name.")
    if not overwrite:
        raise _exists(target)


def _exists(target: Path) -> FileError:
    return FileError(f"{show(target.name)}: exists already and is not replaced; choose another name.")


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> os.stat_result:
    # 0o666 less the umask, as any program's file; O_EXCL so that a planted link is not followed.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return os.stat(path)


def _put(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename on POSIX, fails if somebody made the target meanwhile
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:  # a file system without hard links
        _require_free(target, overwrite)
        os.rename(temporary, target)
    else:
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot and need not
        return
    with suppress(OSError):  # some network file systems refuse; the file itself is flushed
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Take away what killed processes left in `folder`. Raises OSError where it cannot be listed."""
    oldest = time.time() - _LEFTOVER_AGE
    with os.scandir(folder) as found:
        for entry in found:
            with suppress(OSError):
                if (_LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                        and entry.stat(follow_symlinks=False).st_mtime < oldest):
                    os.unlink(entry.path)
