"""The hashes that kohya's trainer writes and A1111's lists of models and LoRAs look for.

Defined by kohya-ss/sd-scripts (library/train_util.py): model_hash and calculate_sha256 of a model's file;
precalculate_safetensors_hashes of a trained one, both over the file as it would be with only its `ss_*` metadata, so
that later notes in the metadata do not change them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...text import show
from ..errors import FileError
from .atomic import write_whole
from .container import Entry, format_header
from .opening import file_stamp, open_regular, reason

OnBlock = Callable[[int, int], None]

_LEGACY_START = 0x100000
_LEGACY_LENGTH = 0x10000
_BLOCK = 1 << 22
_LAYOUT = 1
_SETTLED = 2_500_000_000  # nanoseconds


def kohya_hashes(entries: Iterable[Entry], metadata: Mapping[str, str], data: memoryview) -> dict[str, str]:
    """Return `sshs_model_hash` (sha256 of the data) and `sshs_legacy_hash` (8 hex digits) of a file."""
    header = format_header(entries, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    end = _LEGACY_START + _LEGACY_LENGTH
    start_in_data = max(0, _LEGACY_START - len(header))
    sample = header[_LEGACY_START:end] + bytes(data[start_in_data:max(0, end - len(header))])
    return {
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(sample).hexdigest()[:8],
    }


class HashLedger:
    """Hashes of models' files in a file of the user's: each is read once, until it changes.

    A file counts as the same while its size, its times and its place on the disk (inode) are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def hashes(self, file: Path, on_block: OnBlock = lambda done, total: None) -> tuple[str, str]:
        """As `file_hashes`."""
        where, *stamp = file_stamp(file)
        rows = self._rows()
        if rows.get(where, [])[:-2] == stamp:
            legacy, whole = rows[where][-2:]
            return legacy, whole
        began = time.time_ns()
        found = file_hashes(file, on_block)
        # A file changed this little before it was read may change again without a new time: some disks count in 2 s.
        if [where, *stamp] == list(file_stamp(file)) and max(stamp[1], stamp[3]) < began - _SETTLED:
            kept = {one: row for one, row in rows.items() if one != where and os.path.isfile(one)}
            document = {"layout": _LAYOUT, "files": kept | {where: [*stamp, *found]}}
            with suppress(FileError):  # then it is read again
                write_whole(self._path, [json.dumps(document).encode("ascii")], overwrite=True)
        return found

    def _rows(self) -> dict[str, list]:
        """What was kept; empty where nothing was, or what is there is something else."""
        try:
            document = json.loads(self._path.read_bytes())
            rows = document["files"] if document["layout"] == _LAYOUT else {}
            return {where: row for where, row in rows.items() if _is_row(row)}
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return {}


def _is_row(row: object) -> bool:
    return (isinstance(row, list) and len(row) == 6 and all(type(number) is int for number in row[:4])
            and all(isinstance(text, str) and re.fullmatch(form, text)
                    for form, text in zip(("[0-9a-f]{8}", "[0-9a-f]{64}"), row[4:], strict=True)))


def file_hashes(path: Path, on_block: OnBlock = lambda done, total: None) -> tuple[str, str]:
    """The web UI's old hash of a model's file (8 hex digits of its second MiB's first 64 KiB), and its sha256.

    Args:
        on_block: called with (bytes read, bytes in all) as it goes; what it raises passes through.

    Raises:
        FileError: it is no regular file, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            total, done = os.fstat(file.fileno()).st_size, 0
            file.seek(_LEGACY_START)
            legacy = hashlib.sha256(_read(file, _LEGACY_LENGTH)).hexdigest()[:8]
            file.seek(0)
            whole = hashlib.sha256()
            while block := file.read(_BLOCK):
                whole.update(block)
                done += len(block)
                on_block(done, total)
    except OSError as error:
        raise FileError(f"{show(path.name)}: cannot be read ({reason(error)}).") from error
    return legacy, whole.hexdigest()


def _read(file: BinaryIO, length: int) -> bytes:
    """`length` bytes or all that are left: a read without a buffer may give fewer."""
    blocks = []
    while length and (block := file.read(length)):
        blocks.append(block)
        length -= len(block)
    return b"".join(blocks)
