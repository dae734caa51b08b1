"""Caption files: how they are read, and how a caption is varied."""

from __future__ import annotations

import random
import re
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ....text import show
from ...errors import FileError
from ..settings.pictures import CaptionOptions

CAPTION_ENDINGS = (".txt", ".caption")
_MAX_BYTES = 1 << 20
_WORDS = 3  # of a tag, on average: sentences have more
_JOINED = re.compile(r"\w_\w")


class CaptionError(FileError):
    """A caption file cannot be read; `reason` says why, without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{show(path, 200)}: {reason}")
        self.reason = reason


class Layout(Enum):
    """How the text of a caption file was understood."""

    LINE = "one line"
    LIST = "one tag a line"
    FIRST = "several lines"
    SPACED = "tags between spaces"


class Caption(NamedTuple):
    """A caption, and how its file was understood."""

    text: str
    layout: Layout


def read_caption(path: Path | str) -> str:
    """The caption in a UTF-8 file, as `understood`. Raises as `read_text`."""
    return understood(read_text(path)).text


def read_text(path: Path | str) -> str:
    """What stands in a caption's UTF-8 file, a byte order mark left out.

    Raises:
        CaptionError: over 1 MB, not UTF-8 (with a guess what it is), or not readable.
    """
    try:
        if Path(path).is_fifo():  # opening one would wait for ever
            raise CaptionError(path, "not a regular file")
        with open(path, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CaptionError(path, f"cannot be read ({show(error.strerror or error)})") from error
    if len(raw) > _MAX_BYTES:
        raise CaptionError(path, "over 1 MB: not a caption")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError(
            path, f"not UTF-8 (byte {error.start}), it looks like {_guess(raw)}: save it as UTF-8"
        ) from error
    if "\0" in text:
        raise CaptionError(path, f"holds zero bytes, it looks like {_guess(raw)}: save it as UTF-8")
    return text


def understood(text: str) -> Caption:
    """The caption that a file's text stands for: one line, with single spaces.

    Of several lines the first that is not empty counts, as in kohya's scripts; the others are variants or notes. But
    downloaders (gallery-dl, Hydrus) write one tag a line, and people break a list of tags behind a comma: those are
    one list. A line of tags as Danbooru's own lists have them, with underscores and spaces between, is one too.
    """
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        line = lines[0] if lines else ""
        return Caption(", ".join(line.split()), Layout.SPACED) if _is_spaced(line) else Caption(line, Layout.LINE)
    if _is_list(lines):
        return Caption(", ".join(tag for line in lines if (tag := line.rstrip(" ,"))), Layout.LIST)
    return Caption(lines[0], Layout.FIRST)


def tags_of(caption: str) -> list[str]:
    """The comma-separated tags, trimmed, empty ones left out."""
    return [tag for part in caption.split(",") if (tag := part.strip())]


def varied(caption: str, options: CaptionOptions, draw: random.Random) -> str:
    """A caption as it is trained this time: dropped, shuffled, thinned and prefixed as chosen.

    A dropped caption is empty, prefix and all. The first `keep_tokens` tags keep their places.
    Draws nothing that the options do not ask for.
    """
    if options.caption_dropout and draw.random() < options.caption_dropout:
        return ""
    if options.shuffle or options.tag_dropout:
        tags = tags_of(caption)
        fixed, free = tags[:options.keep_tokens], tags[options.keep_tokens:]
        if options.shuffle:
            draw.shuffle(free)
        if options.tag_dropout:
            free = [tag for tag in free if draw.random() >= options.tag_dropout]
        caption = ", ".join(fixed + free)
    return f"{options.prefix} {caption}".strip() if options.prefix else caption


def _is_list(lines: list[str]) -> bool:
    if all(line.endswith(",") for line in lines[:-1]):
        return True
    words = sum(len(line.split()) for line in lines)
    # One tag in ten may be a strange one: titles of films are tags too.
    return words <= _WORDS * len(lines) and 10 * sum(map(_is_tag, lines)) >= 9 * len(lines)


def _is_tag(line: str) -> bool:
    inner = line.rstrip(" ,")
    if any(mark in inner for mark in ",，、。") or inner.lower().startswith(("a ", "an ")):
        return False
    return " " not in inner or not inner.endswith(".")


def _is_spaced(line: str) -> bool:
    words = line.split()
    joined = sum(bool(_JOINED.search(word)) for word in words)
    return len(words) >= 4 and "," not in line and 2 * joined >= len(words)


def _guess(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:64]:
        return "UTF-16"
    for encoding, name in (("cp932", "Shift-JIS"), ("gb18030", "GB 18030")):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        # Half-width kana are what other encodings' bytes turn into under Shift-JIS.
        if not any("\uff61" <= char <= "\uff9f" for char in text):
            return name
    return "Latin-1 or another one-byte encoding"
