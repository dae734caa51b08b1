"""The exception family of casts and prompts, and how a stranger's text is shown in it."""

from __future__ import annotations

import unicodedata

_SHOWN = 80


class CastError(Exception):
    """A cast file cannot be used; the text says which file, line and key, and what to do."""


class UnknownCharacter(CastError):
    """Nobody of that name is in the cast."""


class PromptError(CastError):
    """No prompt can be built from these settings."""


def shown(text: object) -> str:
    """Return `text` fit for a message: controls and bidi marks escaped, cut to 80 characters."""
    full = str(text)
    safe = "".join(
        char if char == " " or unicodedata.category(char)[0] not in "CZ" else f"\\u{ord(char):04x}"
        for char in full[:_SHOWN]
    )
    return safe if len(full) <= _SHOWN else f"{safe}…"
