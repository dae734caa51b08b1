"""A caption taken apart: which tags it holds, in one spelling each, and who is named."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ..catalogue import fold
from ..errors import CastError

ENDINGS = (".txt", ".caption")
_MAX_TAG = 200  # characters; what is longer is a text
_MAX_PIECE = 1000  # the same before blanks and marks are tidied
_MAX_NAME = 100
# What captions from Japanese and Chinese keyboards separate tags by.
_WIDE_COMMAS = ("，", "、", "﹐", "﹑", "︐", "︑")
_REMEMBERED = 4096  # names, of every caption anew
_WORD = re.compile(r"[^\W_]{2}")


class NotACaption(CastError):
    """A file cannot be read as a caption; the text says why, without the file's name."""


def pieces(text: str) -> list[str]:
    """What stands between commas, as it was typed."""
    if not text.isascii():
        for comma in _WIDE_COMMAS:
            text = text.replace(comma, ",")
    return text.split(",")


def tag_of(piece: str) -> str:
    """The tag that a piece is, in the one spelling by which tags are counted; "" where it is none.

    Small letters, normal width, blanks for underscores, brackets without backslashes. A tag without two letters in a
    row, such as `^_^`, is drawn and not spelt: it keeps its underscores.
    """
    if len(piece) > _MAX_PIECE:
        return ""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold())
    text = _one_line(text.replace("\\(", "(").replace("\\)", ")"))
    if _WORD.search(text):
        text = " ".join(text.replace("_", " ").split())
    return text if len(text) <= _MAX_TAG else ""


@lru_cache(maxsize=_REMEMBERED)
def name_of(text: str) -> str:
    """A name as a cast can hold it: one line without underscores and commas; "" where no letter or digit is left."""
    name = _one_line(text.replace("_", " ").replace("\\", ""))[:_MAX_NAME].strip()
    return name if fold(name) else ""


@lru_cache(maxsize=_REMEMBERED)
def name_key(name: str) -> str:
    """What the spellings of one name have in common, two words in either order as in a cast; "" for no name."""
    words = name.split()
    return min(fold(name), fold(f"{words[1]} {words[0]}")) if len(words) == 2 else fold(name)


def _one_line(text: str) -> str:
    text = text.replace(",", " ")
    if not text.isprintable():  # also what joins emoji, which a cast file may not hold
        text = "".join(letter for letter in text if letter.isprintable() or letter.isspace())
    return " ".join(text.split())


class Tags(dict[str, str]):
    """Piece → `tag_of` it, remembered: a million captions repeat a few thousand pieces."""

    MOST = 200_000

    def __missing__(self, piece: str) -> str:
        tag = tag_of(piece)
        if len(piece) > _MAX_PIECE:
            return tag
        if len(self) >= self.MOST:
            self.clear()
        # One string for all spellings: counts hold many references to it.
        self[piece] = tag = self.setdefault(tag, tag)
        return tag
