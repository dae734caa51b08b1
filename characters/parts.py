"""Typed prompt text on its way into a prompt: what of it stays, and what stands between it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..text import show
from .people import count_word, mend
from .syntax import NETWORK
from .tags import Piece, Tag, pieces
from .withheld import holds_any

_COMMA = ", "


@dataclass
class Entry:
    """A piece and the field it was typed in, with what goes into the prompt for each of its tags, None for nothing."""

    field: str
    piece: Piece
    kept: list[Tag | None]

    def __str__(self) -> str:
        """As it was typed, unless something in it changed."""
        if all(kept is tag for kept, tag in zip(self.kept, self.piece.tags, strict=True)):
            return self.piece.text
        return _COMMA.join(str(tag) for tag in self.kept if tag is not None)


@dataclass
class Part:
    """The entries up to a `BREAK` or what else divides a prompt: in a part, a tag stands once."""

    entries: list[Entry] = field(default_factory=list)

    def tags(self) -> Iterator[tuple[Entry, int, Tag]]:
        """What is still kept: each tag, its entry, and its place in that."""
        for entry in self.entries:
            for at, tag in enumerate(entry.kept):
                if tag is not None:
                    yield entry, at, tag

    def said(self) -> dict[str, list[Tag]]:
        """The tags that are ours to read, by the field they were typed in."""
        said: dict[str, list[Tag]] = {}
        for entry, _, tag in self.tags():
            if not tag.foreign:
                said.setdefault(entry.field, []).append(tag)
        return said

    def keys(self) -> set[str]:
        return {tag.key for _, _, tag in self.tags() if not tag.foreign}

    def settle(self, people: int, excluded: frozenset[str], withheld: Iterable[str]) -> list[str]:
        """Mend count tags, take out what is excluded or withheld, let each tag stand once. Returns notes."""
        word = count_word(people, [tag for tags in self.said().values() for tag in tags])
        notes = []
        for entry, at, tag in self.tags():
            mended = tag if tag.foreign else mend(tag, people, word)
            if mended is None or {tag.key, mended.key} & excluded:
                entry.kept[at] = None
            elif holds_any(tag.text, withheld):
                entry.kept[at] = None
                notes.append(f"withheld: '{show(tag.text)}' left out")
            else:
                entry.kept[at] = mended
        return notes + self._once()

    def _once(self) -> list[str]:
        """Keep one of the tags of a key: the first, or where weights differ the last, which is noted."""
        stands: dict[str, tuple[Entry, int]] = {}
        typed: dict[str, list[Tag]] = {}
        for entry, at, tag in self.tags():
            if tag.foreign:
                continue
            if tag.key in stands and typed[tag.key][-1].weights == tag.weights:
                entry.kept[at] = None
                continue
            if tag.key in stands:
                former, place = stands[tag.key]
                former.kept[place] = None
            stands[tag.key] = entry, at
            typed.setdefault(tag.key, []).append(tag)
        return [twice(tags[-1].text, [tag.weights for tag in tags]) for tags in typed.values() if len(tags) > 1]


def twice(text: str, weights: list[tuple[float, ...]]) -> str:
    """The note on a tag that was typed with several weights."""
    shown = ["/".join(f"{weight:g}" for weight in each) for each in weights]
    return f"twice: '{show(text)}' is typed with the weights {', '.join(shown[:-1])} and {shown[-1]}; the last counts"


def typed_entries(fields: Iterable[tuple[str, str]]) -> list[Entry]:
    """The pieces of each field, (its name, its text), in order."""
    return [Entry(name, piece, list(piece.tags)) for name, text in fields for piece in pieces(text)]


def parts_of(entries: Iterable[Entry]) -> list[Part]:
    """Entries in parts; what divides stands at the end of the part before it."""
    parts = [Part()]
    for entry in entries:
        parts[-1].entries.append(entry)
        if entry.piece.divides:
            parts.append(Part())
    return parts


def network_notes(entries: Iterable[Entry]) -> list[str]:
    """A note on each `<lora:…>`: ComfyUI's text encoder reads it as words. `previous` had its own note."""
    found = [name for entry in entries if entry.field != "previous" for name in NETWORK.findall(entry.piece.text)]
    return [f"lora: '{show(name)}' does nothing in ComfyUI; load that file with a node, such as Load LoHa"
            for name in dict.fromkeys(found)]


def join(entries: Iterable[Entry]) -> str:
    """The text of entries: commas between them, but beside foreign syntax what was typed there."""
    text, last = "", None
    for entry in entries:
        shown = str(entry)
        if not shown:
            continue
        if last is not None:
            text += _between(last.piece, entry.piece)
        text, last = text + shown, entry
    return text


def _between(left: Piece, right: Piece) -> str:
    if right.foreign and right.before is not None:
        typed = right.before
    elif left.foreign and left.after is not None:
        typed = left.after
    else:
        return " " if left.divides or right.divides else _COMMA
    return re.sub(r"[、，；]\s*", _COMMA, typed)
