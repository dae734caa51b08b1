"""A second measure, by the embeddings of an identity model: whose reference pictures each picture is nearest to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import roster
from ..catalogue import Cast, Character
from ..tags import tag_key
from .table import BASE, named

# What a tagger says of one person, and what it says of others beside her.
ONE_PERSON = ("solo", "1girl", "1boy", "1other")
_OTHERS = re.compile(r"(([2-9]|\d\d+)\+?|multiple) ?(girls|boys|others)|solo focus|no humans|crowd|people|everyone")


@dataclass(frozen=True)
class Embedded:
    """One picture of one person: who was asked for, at which strength of the LoHa, and its embedding.

    Args:
        embedding: (d,) of length 1.
    """

    name: str
    strength: float
    embedding: np.ndarray


@dataclass(frozen=True)
class Nearness:
    """The pictures of one character at one strength. A picture is as similar to someone as to the most similar of her
    references, by the cosine.

    Attributes:
        nearest: name → share of the pictures that are most similar to her; one as similar to n counts 1/n for each.
        similarity: name → mean similarity, from -1 to 1.
        margin: the mean of the similarity to who was asked for, less that to the most similar other.
    """

    pictures: int
    nearest: Mapping[str, float]
    similarity: Mapping[str, float]
    margin: float


def one_person(tags: Iterable[str]) -> bool:
    """Whether a tagger says that there is exactly one person on a picture."""
    keys = {tag_key(tag) for tag in tags}
    kinds = len(keys.intersection(ONE_PERSON[1:]))
    return (kinds == 1 or not kinds and "solo" in keys) and not any(map(_OTHERS.fullmatch, keys))


class Identity:
    """Whose references the pictures of a cast are nearest to.

    Args:
        cast: in whose order all is told.
        pictures: of one person each, and of those alone who have references.
        references: name → (n, d), the embeddings of her reference pictures, each of length 1; n ≥ 1, two names or more.
    """

    COLUMNS = ("one_person", "nearest", "nearest_change", "similarity", "similarity_change", "margin", "margin_change")

    def __init__(self, cast: Cast, pictures: Iterable[Embedded], references: Mapping[str, np.ndarray]) -> None:
        self._pictures, self._references = list(pictures), references
        self.compared = tuple(who for who in cast.characters if who.name in references)
        names = {one.name for one in self._pictures}
        self.drawn = tuple(who for who in cast.characters if who.name in names)

    @cached_property
    def rows(self) -> dict[tuple[float, str], Nearness]:
        """(strength, name) → what her pictures are near to; only where there are pictures."""
        groups: dict[tuple[float, str], list[np.ndarray]] = {}
        for one in self._pictures:
            groups.setdefault((one.strength, one.name), []).append(one.embedding)
        return {key: self._row(key[1], np.stack(found).astype(np.float64)) for key, found in sorted(groups.items())}

    def change(self, strength: float, name: str) -> Nearness | None:
        """The row less that of the base model; None where there is none."""
        base, row = self.rows.get((BASE, name)), self.rows[strength, name]
        if base is None or strength == BASE:
            return None
        return Nearness(row.pictures, _less(row.nearest, base.nearest), _less(row.similarity, base.similarity),
                        row.margin - base.margin)

    def lines(self) -> list[str]:
        """`key: value` lines: how many references there are, the means of each strength, then each character."""
        counts = [len(self._references[who.name]) for who in self.compared]
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        said = [f"identity, references: {sum(counts)} pictures of {len(self.compared)} characters, {each} of each"]
        for strength in sorted({strength for strength, _ in self.rows}):
            names = [name for at, name in self.rows if at == strength]
            nearest, margin = self._own(strength, names)
            said.append(f"identity, {named(strength)}: {nearest} of the pictures are nearest to a reference of who was "
                        f"asked for, more similar by {margin} than to the best other")
        return said + [f"identity, {roster.label(who)}: {self._of(who)}" for who in self.drawn]

    def cells(self, strength: float, name: str, of: str) -> list[str]:
        """What belongs below COLUMNS for the pictures of `name` and the references of `of`; "" where there is none."""
        row = self.rows.get((strength, name))
        if row is None:
            return ["0", *[""] * (len(self.COLUMNS) - 1)]
        change = self.change(strength, name)
        cells = [one and values(one).get(of) for values in (lambda one: one.nearest, lambda one: one.similarity)
                 for one in (row, change)]
        cells += [row.margin, change and change.margin]
        return [f"{row.pictures}", *("" if cell is None else f"{_rounded(cell, 4):.4f}" for cell in cells)]

    def _of(self, who: Character) -> str:
        strengths = [strength for strength, name in self.rows if name == who.name]
        parts = [f"{strength:g}: {' by '.join(self._own(strength, [who.name]))}" for strength in strengths]
        others = {name: value for name, value in self.rows[strengths[-1], who.name].similarity.items()
                  if name != who.name}
        return f"{', '.join(parts)}; at {strengths[-1]:g} then {max(others, key=others.get)}"

    def _own(self, strength: float, names: list[str]) -> tuple[str, str]:
        """Means over `names` as they are told: share nearest to their own references, and margin; each with its change
        over those who have a base."""
        rows = [(self.rows[strength, name], name) for name in names]
        changes = [(change, name) for name in names if (change := self.change(strength, name))]
        told = []
        for form, digits, value in (("{:.0%}", 2, lambda row, name: row.nearest[name]),
                                    ("{:+.3f}", 3, lambda row, name: row.margin)):
            mean, *less = (sum(value(*one) for one in some) / len(some) for some in (rows, changes) if some)
            signed = form.replace(":.", ":+.")
            told.append(form.format(_rounded(mean, digits))
                        + "".join(f" ({signed.format(_rounded(one, digits))})" for one in less))
        return told[0], told[1]

    def _row(self, name: str, embeddings: np.ndarray) -> Nearness:
        """Of (pictures, d)."""
        names = [who.name for who in self.compared]
        similar = np.stack([(embeddings @ self._references[one].T).max(axis=1) for one in names], axis=1)
        first = similar == similar.max(axis=1, keepdims=True)
        nearest = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
        own = names.index(name)
        margins = similar[:, own] - np.delete(similar, own, axis=1).max(axis=1)
        return Nearness(len(embeddings), dict(zip(names, nearest.tolist(), strict=True)),
                        dict(zip(names, similar.mean(axis=0).tolist(), strict=True)), float(margins.mean()))


def _less(values: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    return {name: value - base[name] for name, value in values.items()}


def _rounded(value: float, digits: int) -> float:
    """Without the sign that a zero may have."""
    return round(value, digits) + 0.0
