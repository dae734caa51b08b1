"""Caption files: how they are read, and how a caption is varied."""

from __future__ import annotations

import math
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
_WILDCARD = re.compile(r"\{([^}]+)\}")


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


def understood(text: str, *, has_variants: bool = False) -> Caption:
    """The caption that a file's text stands for: one line, with single spaces.

    Of several lines the first that is not empty counts, as in kohya's scripts; the others are variants or notes. But
    downloaders (gallery-dl, Hydrus) write one tag a line, and people break a list of tags behind a comma: those are
    one list. A line of tags as Danbooru's own lists have them, with underscores and spaces between, is one too.

    With `has_variants` every line is a caption of its own, and all are kept.
    """
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if has_variants:
        return Caption("\n".join(lines), Layout.LINE)
    if len(lines) < 2:
        line = lines[0] if lines else ""
        return Caption(", ".join(line.split()), Layout.SPACED) if _is_spaced(line) else Caption(line, Layout.LINE)
    if _is_list(lines):
        return Caption(", ".join(tag for line in lines if (tag := line.rstrip(" ,"))), Layout.LIST)
    return Caption(lines[0], Layout.FIRST)


def tags_of(caption: str) -> list[str]:
    """The comma-separated tags, of all lines, trimmed, empty ones left out."""
    return [tag for part in caption.replace("\n", ",").split(",") if (tag := part.strip())]


def varied(caption: str, options: CaptionOptions, draw: random.Random, *, epoch: int = 0, step: int = 0,
           total_steps: int = 0) -> str:
    """A caption as it is trained this time: dropped, prefixed, chosen, shuffled and thinned as the options say.

    A dropped caption is empty, prefix and all. Draws nothing that the options do not ask for. As in kohya's scripts
    (library/train_util.py, process_caption), but that each line of a file with several has the prefix and the suffix.

    Args:
        epoch: from 0.
        step, total_steps: of the run, for the warm-up of tags.
    """
    if options.caption_dropout and draw.random() < options.caption_dropout:
        return ""
    if options.dropout_every_n_epochs and (epoch + 1) % options.dropout_every_n_epochs == 0:
        return ""
    if options.wildcards and "\n" in caption:
        caption = draw.choice(caption.split("\n"))
    if options.prefix or options.suffix:
        caption = f"{options.prefix} {caption} {options.suffix}".strip()
    if options.wildcards:
        caption = _chosen(caption, draw)
    if options.shuffle or options.tag_dropout or options.token_warmup_step:
        first, free, last = _parts(caption, options)
        if options.token_warmup_step:
            free = free[:_warm(len(free), options, step, total_steps)]
        if options.shuffle:
            draw.shuffle(free)
        if options.tag_dropout:
            free = [tag for tag in free if draw.random() >= options.tag_dropout]
        caption = ", ".join(first + free + last)
    return caption.replace(options.secondary_separator, ",") if options.secondary_separator else caption


def _chosen(caption: str, draw: random.Random) -> str:
    """One of the words of each {a|b}; doubled braces are braces."""
    hidden = caption.replace("{{", "\0").replace("}}", "\1")
    made = _WILDCARD.sub(lambda found: draw.choice(found[1].split("|")), hidden)
    return made.replace("\0", "{").replace("\1", "}")


def _parts(caption: str, options: CaptionOptions) -> tuple[list[str], list[str], list[str]]:
    """Tags that stay in front, that may move, and that stay behind."""
    mark = options.keep_tokens_separator
    if mark and mark in caption:
        first, free, *last = (tags_of(part) for part in caption.split(mark, 2))
        return first, free, last[0] if last else []
    tags = tags_of(caption)
    return tags[:options.keep_tokens], tags[options.keep_tokens:], []


def _warm(tags: int, options: CaptionOptions, step: int, total_steps: int) -> int:
    """How many of the tags that may move are trained at `step`."""
    length = options.token_warmup_step
    if length < 1:
        length = math.floor(length * total_steps)
    if step >= length:
        return tags
    return max(0, math.floor(step * (tags - options.token_warmup_min) / length) + options.token_warmup_min)


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
