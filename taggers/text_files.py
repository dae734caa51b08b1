"""Text and JSON of strangers, read behind limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..loha.errors import FileError
from ..loha.files.opening import open_regular
from ..text import show

_MAX_BYTES = 64 << 20  # camie's 70 000 tags take 8 MB


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        FileError: over 64 MB, no regular file, not UTF-8. Its text begins with the file's name.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise FileError(f"is over {_MAX_BYTES >> 20} MB, which no list of tags is.")
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise FileError("holds zero bytes, as UTF-16 does: save it as UTF-8.")
        return text
    except FileError as error:
        raise FileError(f"{show(path.name)} {error}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{show(path.name)} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except OSError as error:
        raise FileError(f"{show(path.name)} cannot be read ({show(error.strerror or error)}).") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises FileError as `read_text`, or where it is no JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{show(path.name)} is not JSON ({show(error, 120)}); get the file anew.") from error
