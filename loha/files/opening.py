"""Open a file that may be anything, without hanging on it and without following what it does later."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from ..errors import FileError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_stamp(path: str | os.PathLike[str]) -> tuple[str, int, int, int, int]:
    """Return (absolute path, size in bytes, mtime in ns, inode, ctime in ns): differs when the file was replaced.

    The last two tell it from one of the same size and mtime (`cp -p`, `rsync -t`, layers of an image).

    Raises:
        FileError: there is no such file, or it is not a regular one.
    """
    found = regular(path)
    return os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the status of a regular file, symlinks followed.

    Raises:
        FileError: there is no such file, or it is a folder, pipe, socket or device.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read ({reason(error)}); check the name and the permissions.") from error
    _require_regular(found)
    return found


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for unbuffered reading; the caller closes it.

    Raises:
        FileError: as `regular`, or the file may not be read.
    """
    regular(path)  # opening a device may already have an effect: look first
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        # Non-blocking, so that a pipe put in the file's place since the look above does not hang us.
        descriptor = os.open(path, flags)
    except OSError as error:
        raise FileError(f"cannot be read ({reason(error)}); check the name and the permissions.") from error
    try:
        _require_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def reason(error: Exception) -> str:
    """What the system says, without the path that it repeats."""
    return getattr(error, "strerror", None) or str(error)


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "not a regular file")
        raise FileError(f"is {kind}, where a file was expected; choose the file itself.")
