"""A configuration's text, TOML or JSON, to plain values; TOML with whichever parser this Python has."""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import FileError, SettingsError
from ...files.opening import reason
from .strangers import named_by_text

_MAX_BYTES = 1 << 20
_ENDINGS = (".toml", ".json", ".yaml", ".yml")  # the last two to say what they are
# Python's own since 3.11; the other two often stand beside ComfyUI on 3.10.
_PARSERS = ("tomllib", "tomli", "toml")
_PLACE = re.compile(r"(?<=at )end of document|line \d+,? column \d+")


def parse(source: str) -> tuple[dict[str, Any], str]:
    """The tables of a TOML or JSON file, or of pasted text, and how to call it in a message.

    Args:
        source: one line that ends in `.toml`, `.json` or `.yaml` is a file's path, everything else is the text itself.

    Raises:
        FileError: the file is missing, over 1 MB, or not UTF-8.
        SettingsError: neither TOML nor JSON (told is what it is, where that is recognised), or no parser is there. Of
            a file the line and column are told and nothing of what stands there: it may be no configuration at all.
    """
    text, origin = _read(source)
    if len(text) > _MAX_BYTES:
        raise SettingsError(f"{origin}: {len(text)} characters; a configuration has at most {_MAX_BYTES}")
    name, loads = ("JSON", json.loads) if text.lstrip().startswith("{") else ("TOML", _parser().loads)
    # `toml` stumbles over things outside the format's grammar with errors of its own kinds.
    try:
        return loads(text), origin
    except (ValueError, TypeError, IndexError, KeyError, RecursionError) as error:
        if stranger := named_by_text(text):
            raise SettingsError(f"{origin} is {stranger}") from error
        if not is_path(source):
            raise SettingsError(f"{origin} is not {name}: {show(error, 200)}") from error
        place = _PLACE.search(str(error))
        raise SettingsError(f"{origin} is not {name}: {f'see {place[0]}' if place else 'it cannot be read'}") from None


def is_path(source: str) -> bool:
    """Whether `parse` takes this for a file's path: one line that ends in one of `_ENDINGS`."""
    line = source.strip()
    return "\n" not in line and line.lower().endswith(_ENDINGS) and not line.startswith("{")


def flatten(tables: Mapping[str, Any], known: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """Keys of all tables in one, as kohya's scripts read them: the tables' names do not matter.

    And a sentence for each `known` key that has two different values.
    """
    flat: dict[str, Any] = {}
    seen: dict[str, str] = {}
    clashes = []
    for name, value in tables.items():
        section = value if isinstance(value, Mapping) else {name: value}
        for key, item in section.items():
            if key in known and key in flat and flat[key] != item:
                clashes.append(f"{show(key)} is {as_toml(flat[key])} in [{show(seen[key])}] and {as_toml(item)} in "
                               f"[{show(name)}]: keep one of them")
            flat[key] = item
            seen[key] = name
    return flat, clashes


def as_toml(value: Any) -> str:
    """A value as one would type it, fit for a message."""
    try:
        return show(json.dumps(value, ensure_ascii=False), 120)
    except (TypeError, ValueError):  # dates are TOML's, not JSON's
        return show(value, 120)


def _read(source: str) -> tuple[str, str]:
    if not is_path(source):
        return source.removeprefix("\ufeff"), "the pasted configuration"
    path = Path(source.strip())
    return read_text(path), show(path, 200)


def read_text(path: Path) -> str:
    """What stands in a file of a person's. Raises `FileError`: missing, over 1 MB, or not UTF-8."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError
        if found.st_size > _MAX_BYTES:
            raise FileError(f"{show(path, 200)}: {found.st_size} bytes; a configuration has at most {_MAX_BYTES}")
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"{show(path, 200)}: no such file. Give the path of a .toml or .json file, or paste its "
                        "text.") from error
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
