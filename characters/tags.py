"""A prompt taken apart into tags, each with its weight, and what two spellings of a tag have in common."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace

from .syntax import Unit, units

_IMPLICIT = 1.1
_WEIGHT = re.compile(r":\s*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """One comma-separated piece of a prompt: runs of text, each with its weight.

    `foreign` where it holds the syntax of other programs: it is no tag that could be compared with another.
    """

    runs: tuple[tuple[str, float], ...]
    foreign: bool = False

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.runs)

    @property
    def key(self) -> str:
        """What two spellings of one tag have in common."""
        return tag_key(self.text)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for _, weight in self.runs)

    def __str__(self) -> str:
        return "".join(text if weight == 1 else f"({text}:{weight:g})" for text, weight in self.runs)


@dataclass(frozen=True)
class Piece:
    """What stands between two separators outside of all brackets.

    Attributes:
        text: as it was typed, blanks tidied where it holds nothing foreign.
        tags: in it; a bracket may hold several.
        before, after: what stands between this and its neighbours in the prompt, None at an end of it.
        divides: whether a new part of the prompt begins behind it.
    """

    text: str
    tags: tuple[Tag, ...]
    before: str | None = None
    after: str | None = None
    divides: bool = False

    @property
    def foreign(self) -> bool:
        return any(tag.foreign for tag in self.tags)


def plain(text: str, weight: float = 1.0) -> Tag:
    """A tag out of data: spaces for underscores, brackets escaped, under one weight."""
    spaced = " ".join(text.replace("_", " ").split())
    bare = spaced.replace("\\(", "(").replace("\\)", ")")
    return Tag(((bare.replace("(", "\\(").replace(")", "\\)"), weight),))


def tag_key(text: str) -> str:
    """Case, width, underscores, spacing and escapes taken out: equal keys are one tag."""
    same_width = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(same_width.replace("\\", "").replace("_", " ").split())


def split(prompt: str) -> list[Tag]:
    """The tags of a prompt as typed, in order. A bracket without its partner is taken literally."""
    return [tag for piece in pieces(prompt) for tag in piece.tags]


def pieces(prompt: str) -> list[Piece]:
    """The pieces of a prompt as typed, in order; empty ones are left out."""
    found: list[Piece] = []
    gap = ""
    for group, is_gap in _groups(units(prompt)):
        raw = "".join(unit.text for unit in group)
        tags = () if is_gap else _tags(group)
        if not tags:
            gap += raw if is_gap or raw.isspace() else ""
            continue
        gap += raw[: len(raw) - len(raw.lstrip())]
        if found:
            found[-1] = replace(found[-1], after=gap)
        text = raw.strip() if any(tag.foreign for tag in tags) else _tidy(group)
        found.append(Piece(text, tags, gap if found else None, None, group[0].kind == "divider"))
        gap = raw[len(raw.rstrip()) :]
    return found


def _groups(found: list[Unit]) -> list[tuple[list[Unit], bool]]:
    """Runs of units: each a piece, or (True) a separator outside of all brackets."""
    groups: list[tuple[list[Unit], bool]] = [([], False)]
    depth = 0
    for unit in found:
        depth += (unit.kind == "open") - (unit.kind == "close")
        if depth == 0 and (unit.apart or unit.kind == "separator"):
            groups += [([unit], unit.kind == "separator"), ([], False)]
        else:
            groups[-1][0].append(unit)
    return [group for group in groups if group[0]]


def _tidy(group: list[Unit]) -> str:
    """The text of a piece of ours: one blank for several, a comma for any separator but a line's end."""
    text = "".join(
        unit.text if unit.kind != "separator" or unit.text == "," else " " if unit.text.isspace() else ", "
        for unit in group
    )
    return re.sub(r"\s+", " ", text).strip()


def _tags(group: list[Unit]) -> tuple[Tag, ...]:
    tags: list[Tag] = []
    runs: list[tuple[str, float]] = []
    weights = [1.0]
    foreign = False
    cuts: dict[int, int] = {}  # unit → where the weight of its bracket begins in it
    for at, unit in enumerate(group):
        if unit.kind == "open":
            last, explicit = _explicit_weight(group, at, at + unit.partner)
            weights.append(explicit[0] if explicit else weights[-1] * _IMPLICIT)
            if explicit:
                cuts[last] = explicit[1]
        elif unit.kind == "close":
            weights.pop()
        elif unit.kind == "separator" or unit.apart:
            _finish(runs, tags, foreign)
            foreign = False
            if unit.apart:
                tags.append(Tag(((unit.text, 1.0),), foreign=True))
        else:
            foreign = foreign or unit.foreign
            text = unit.text if unit.foreign else re.sub(r"\s+", " ", unit.text[: cuts.get(at, len(unit.text))])
            runs.append((text, weights[-1]))
    _finish(runs, tags, foreign)
    return tuple(tags)


def _explicit_weight(group: list[Unit], start: int, end: int) -> tuple[int, tuple[float, int] | None]:
    """The unit before a closing bracket, and the weight that it ends with, if any, and where in its text."""
    last = end - 1
    while last > start and group[last].text.isspace():  # a line's end between a weight and its bracket is neither's
        last -= 1
    found = _WEIGHT.search(group[last].text) if group[last].kind == "text" else None
    if found is None or not math.isfinite(float(found[1])):
        return last, None
    return last, (float(found[1]), found.start())


def _finish(runs: list[tuple[str, float]], tags: list[Tag], foreign: bool) -> None:
    """Turn the runs gathered so far into a tag, neighbours of one weight joined, blanks tidied."""
    joined: list[tuple[str, float]] = []
    for text, weight in runs:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        elif text:
            joined.append((text, weight))
    runs.clear()
    while joined and not joined[0][0].strip():
        joined.pop(0)
    while joined and not joined[-1][0].strip():
        joined.pop()
    if joined:
        joined[0] = (joined[0][0].lstrip(), joined[0][1])
        joined[-1] = (joined[-1][0].rstrip(), joined[-1][1])
        tags.append(Tag(tuple(joined), foreign))
