"""How a stranger's text is shown in a message, whoever writes the message, and on whatever console."""

from __future__ import annotations

import logging
import sys
import unicodedata
from io import TextIOWrapper

_SHOWN = 80


def show(name: object, limit: int = _SHOWN) -> str:
    """Return `name` fit for a message: controls, bidi marks and newlines escaped, cut to `limit`.

    File, module and tensor names come from strangers: shown raw they could forge lines of a
    report or turn the text around.
    """
    text = str(name)
    cut = len(text) > limit
    shown = "".join(
        char if unicodedata.category(char)[0] not in "CZ" or char == " " else _escape(char)
        for char in text[:limit]
    )
    return f"{shown}… ({len(text)} characters)" if cut else shown


def let_consoles_escape() -> None:
    """Make the console, and what logs to it, escape letters that its encoding lacks instead of raising.

    Windows' old code pages know no kanji: logging one name there ends a run, and in ComfyUI the thread that all later
    prompts wait for.
    """
    logged = (getattr(handler, "stream", None) for handler in logging.getLogger().handlers)
    for stream in (sys.stdout, sys.stderr, *logged):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
