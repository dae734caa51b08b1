"""ComfyUI's prompt syntax, taken apart into tags and put together again.

`(a, b:1.2)` weighs a and b by 1.2, `(a)` by 1.1, nested brackets multiply, a weight that is written out
replaces the outer one, and `\\(` is a bracket that is meant: as ComfyUI's own CLIP tokenizer reads them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_IMPLICIT = 1.1
_WEIGHT = re.compile(r":\s*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*$", re.IGNORECASE)
_TOKEN = re.compile(r"\\[()]|[(),\n\r]|[^\\(),\n\r]+|\\")


@dataclass(frozen=True)
class Tag:
    """One comma-separated piece of a prompt: runs of text, each with its weight."""

    runs: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.runs)

    @property
    def key(self) -> str:
        """What two spellings of one tag have in common."""
        return tag_key(self.text)

    def __str__(self) -> str:
        return "".join(text if weight == 1 else f"({text}:{weight:g})" for text, weight in self.runs)


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
    # A line break between a weight and its bracket belongs to neither.
    tokens = _TOKEN.findall(re.sub(r"\s+\)", ")", prompt))
    partner = _partners(tokens)
    tags: list[Tag] = []
    runs: list[tuple[str, float]] = []
    weights = [1.0]
    whole = len(prompt)
    ends: list[tuple[int, int]] = []  # of the open groups: closing token, and where in the one before its weight is
    for at, token in enumerate(tokens):
        if token == "(" and at in partner:
            close = partner[at]
            explicit = _WEIGHT.search(tokens[close - 1])
            value = float(explicit[1]) if explicit else math.inf
            use = explicit is not None and math.isfinite(value) and close - 1 > at
            weights.append(value if use else weights[-1] * _IMPLICIT)
            ends.append((close, explicit.start() if use else whole))
        elif ends and at == ends[-1][0]:
            ends.pop()
            weights.pop()
        elif token in ",\n\r":
            _finish(runs, tags)
        else:
            text = f"\\{token}" if token in "()" else token
            cut = ends[-1][1] if ends and at == ends[-1][0] - 1 else len(text)
            runs.append((text[:cut], weights[-1]))
    _finish(runs, tags)
    return tags


def _partners(tokens: list[str]) -> dict[int, int]:
    """Opening bracket → closing bracket, by position; unmatched ones are left out."""
    partner, opened = {}, []
    for at, token in enumerate(tokens):
        if token == "(":
            opened.append(at)
        elif token == ")" and opened:
            partner[opened.pop()] = at
    return partner


def _finish(runs: list[tuple[str, float]], tags: list[Tag]) -> None:
    """Turn the runs gathered so far into a tag, neighbours of one weight joined, blanks tidied."""
    joined: list[tuple[str, float]] = []
    for text, weight in runs:
        text = re.sub(r"\s+", " ", text)
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
        tags.append(Tag(tuple(joined)))
