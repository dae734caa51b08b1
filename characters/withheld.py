"""Which tags never reach a prompt, however they are spelt."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from .tags import tag_key


def holds_any(text: str, withheld: Iterable[str]) -> bool:
    """Whether `text` contains one of these, whatever stands between the letters.

    Compared without spaces, punctuation, marks and invisible characters, so that no spelling which a
    model would still understand gets by; `huge breasts` is withheld where `breasts` is. One without
    letters, such as `^_^`, is compared as a tag.
    """
    letters = _letters(text)
    return any(_letters(tag) in letters if _letters(tag) else tag_key(tag) == tag_key(text) for tag in withheld)


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if c.isalnum())
