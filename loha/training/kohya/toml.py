"""TOML text to plain values, with whichever parser this Python has."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import FileError, SettingsError
from ...files.opening import reason

_MAX_BYTES = 1 << 20
# Python's own since 3.11; the other two often stand beside ComfyUI on 3.10.
_PARSERS = ("tomllib", "tomli", "toml")
_PLACE = re.compile(r"(?<=at )end of document|line \d+,? column \d+")


def parse(source: str) -> dict[str, Any]:
    """The tables of a TOML file, or of pasted TOML.

    Args:
        source: one line that ends in `.toml` is a file's path, everything else is TOML itself.

    Raises:
        FileError: the file is missing, over 1 MB, or not UTF-8.
        SettingsError: not TOML, or no parser is there. Of a file the line and column are told and nothing of what
            stands there: it may be no configuration at all.
    """
    text, origin = _read(source)
    if len(text) > _MAX_BYTES:
        raise SettingsError(f"{origin}: {len(text)} characters; a configuration has at most {_MAX_BYTES}")
    parser = _parser()
    # `toml` stumbles over things outside the format's grammar with errors of its own kinds.
    try:
        return parser.loads(text)
    except (ValueError, TypeError, IndexError, KeyError, RecursionError) as error:
        if not is_path(source):
            raise SettingsError(f"{origin} is not TOML: {show(error, 200)}") from error
        place = _PLACE.search(str(error))
        raise SettingsError(f"{origin} is not TOML: {f'see {place[0]}' if place else 'it cannot be read'}") from None


def is_path(source: str) -> bool:
    """Whether `parse` takes this for a file's path: one line that ends in `.toml`."""
    line = source.strip()
    return "\n" not in line and line.lower().endswith(".toml")


def flatten(tables: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Keys of all tables in one, as kohya's scripts read them: the tables' names do not matter.

    Raises:
        SettingsError: a `known` key with two different values; or none that is known: what was read is no
            configuration, and nothing of it is told.
    """
    flat: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for name, value in tables.items():
        section = value if isinstance(value, Mapping) else {name: value}
        for key, item in section.items():
            if key in known and key in flat and flat[key] != item:
                raise SettingsError(
                    f"{show(key)} is {show(repr(flat[key]))} in [{show(seen[key])}] and {show(repr(item))} in "
                    f"[{show(name)}]: keep one of them"
                )
            flat[key] = item
            seen[key] = name
    if flat and not any(key in known for key in flat):
        raise SettingsError(f"this is no configuration of kohya's scripts: none of its {len(flat)} key(s) is known")
    return flat


def _read(source: str) -> tuple[str, str]:
    if not is_path(source):
        return source.removeprefix("\ufeff"), "the pasted configuration"
    path = Path(source.strip())
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError
        if found.st_size > _MAX_BYTES:
            raise FileError(f"{show(path, 200)}: {found.st_size} bytes; a configuration has at most {_MAX_BYTES}")
        return path.read_text(encoding="utf-8-sig"), show(path, 200)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(
            f"{show(path, 200)}: no such file. Give the path of a .toml file, or paste its text.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{show(path, 200)} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (OSError, ValueError) as error:  # too long, not permitted, a name that this system cannot have
        raise FileError(f"{show(path, 200)} cannot be read: {show(reason(error))}") from error


def _parser() -> Any:
    for name in _PARSERS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SettingsError(
        "this Python has no TOML parser: use Python 3.11 or newer, or install tomli (pip install tomli)"
    )
