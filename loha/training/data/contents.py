"""Looking a picture file through: its size, whether it is whole, and a hash of its bytes. Each file once.

What was found is kept in a folder of the user's, so that 100 000 pictures are read through the first time alone. A
file counts as the same while its size, its times and its place on the disk (inode) are: whoever writes to a file
changes one of them, and no program can put a Unix file's change time back.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ...errors import FileError
from ...files.atomic import write_whole
from .pictures import PictureError, check_decodes, read_header

HASH_BYTES = 16
_LAYOUT = 2  # Raise it when what `examine` refuses or finds changes.
_BLOCK = 1 << 20
# A file changed this little before it was read may change again without a new time: some disks count in 2 s.
_SETTLED = 2_500_000_000  # nanoseconds


@dataclass(frozen=True)
class Examined:
    """A usable picture file.

    Args:
        width, height: as seen.
        content: the first 16 bytes of the sha256 of the file.
    """

    width: int
    height: int
    content: bytes


class Ledger:
    """What was found in one folder's files, from one look to the next.

    Args:
        folder: with the pictures.
        kept: folder that ledgers are kept in; None remembers nothing.
    """

    def __init__(self, folder: Path, kept: Path | None) -> None:
        where = os.path.abspath(folder)
        name = sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:2 * HASH_BYTES]
        self._path = None if kept is None else kept / f"{name}.json"
        self._found = _read(self._path, where)
        self._where, self._now = where, {}

    def find(self, name: str, stat: os.stat_result) -> Examined | None:
        """What was found in the file when it was as it is now."""
        row = self._found.get(name)
        if row is None or row[:4] != _stamp(stat):
            return None
        self._now[name] = row
        return Examined(row[4], row[5], bytes.fromhex(row[6]))

    def note(self, name: str, stat: os.stat_result, found: Examined) -> None:
        """Remember what was found in the file, which was like this before and after the look."""
        self._now[name] = [*_stamp(stat), found.width, found.height, found.content.hex()]

    def write(self, *, is_whole: bool) -> None:
        """Keep what was found, and after a whole look forget files that are gone. Where it fails nothing is lost."""
        pictures = self._now if is_whole else self._found | self._now
        if self._path is not None and pictures != self._found:
            document = {"layout": _LAYOUT, "folder": self._where, "pictures": pictures}
            with suppress(FileError):
                write_whole(self._path, [json.dumps(document).encode("ascii")], overwrite=True)


def examine(path: Path, ledger: Ledger, *, decode: bool) -> Examined:
    """Look a picture file through, unless the ledger knows it. Threads may do so at once.

    Args:
        decode: whether all its pixels must be found to decode; otherwise a header and a good end do.

    Raises:
        PictureError: it cannot be used.
    """
    try:
        before = os.stat(path)
        known = ledger.find(path.name, before)
        if known is not None and not decode:
            return known
        began = time.time_ns()
        header = read_header(path)
        if decode or not header.ends_well:
            check_decodes(path)
        found = Examined(header.width, header.height, _hash(path))
        if _stamp(os.stat(path)) == _stamp(before) and _changed(before) < began - _SETTLED:
            ledger.note(path.name, before, found)
        return found
    except OSError as error:
        raise PictureError.unreadable(path, error) from error


def _hash(path: Path) -> bytes:
    digest, block = sha256(), bytearray(_BLOCK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.digest()[:HASH_BYTES]


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _changed(stat: os.stat_result) -> int:
    # Windows has the time of the file's making there.
    return stat.st_mtime_ns if os.name == "nt" else stat.st_ctime_ns


def _read(path: Path | None, where: str) -> dict[str, list]:
    """A ledger as `write` left it; empty where there is none, or what is there is not one."""
    try:
        document = json.loads(path.read_bytes()) if path else {}
        if document.get("layout") != _LAYOUT or document.get("folder") != where:
            return {}
        return {name: row for name, row in document["pictures"].items() if _is_row(row)}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {}


def _is_row(row: object) -> bool:
    if not (isinstance(row, list) and len(row) == 7 and isinstance(row[6], str)):
        return False
    with suppress(ValueError):
        return all(type(value) is int for value in row[:6]) and len(bytes.fromhex(row[6])) == HASH_BYTES
    return False
