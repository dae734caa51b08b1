"""The help page of the key table: docs/kohya-keys.md."""

from __future__ import annotations

from collections.abc import Mapping

from .keys import KEYS, Key, Part
from .toml import as_toml

_HEAD = """\
# kohya's keys

Every key of kohya's `train_network.py` and of its dataset TOML, and what becomes of it here. Values that ask for
nothing (`false`, `""`, `0` where nothing is counted, `[]`, `none`, or kohya's own default) are never refused. What is
not in these tables is told as unknown and changes nothing. Where a file does not name a key, the model card's value
counts, or kohya's default where `defaults` is `kohya`; the `info` output and train.py say which.

This page is written by `python dev/write_key_page.py` out of `loha/training/kohya/keys.py`.
"""
_SECTIONS: Mapping[str, tuple[Part, ...]] = {
    "Settings of the run": (Part.RUN, Part.NETWORK),
    "Pictures and captions": (Part.PICTURES, Part.CAPTIONS, Part.FOLDER),
    "Ignored: they change nothing here": (Part.IGNORED,),
    "Refused, unless they ask for nothing": (Part.REFUSED, Part.REFUSED_PICTURES),
}


def key_page() -> str:
    """The page's text, in Markdown."""
    return "\n".join([_HEAD, *(_section(title, parts) for title, parts in _SECTIONS.items())])


def _section(title: str, parts: tuple[Part, ...]) -> str:
    rows = sorted((key, row) for key, row in KEYS.items() if row.part in parts)
    return "\n".join([f"## {title}", "", "| key | kohya's default | here |", "|---|---|---|",
                      *(f"| `{key}` | {_default(row)} | {_here(row)} |" for key, row in rows), ""])


def _default(row: Key) -> str:
    return "" if row.default is None else f"`{as_toml(row.default)}`"


def _here(row: Key) -> str:
    setting = f"`{row.field}`" if row.field else ""
    return "; ".join(text for text in (setting, row.why, row.instead[:1].lower() + row.instead[1:]) if text)
