"""Whose identity tags came back on pictures of whom, at each strength of a LoHa."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ...text import show
from .. import roster
from ..catalogue import Cast, Character
from ..errors import CastError
from ..tags import tag_key

if TYPE_CHECKING:
    from .identity import Identity

BASE = 0.0  # the strength at which the base model draws alone


@dataclass(frozen=True)
class Seen:
    """One picture: who was asked for, at which strength of the LoHa, and the tags that a tagger found."""

    name: str
    strength: float
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """The pictures of one character at one strength.

    Attributes:
        shares: name → share, from 0 to 1, of that character's identity tags that came back, mean over the pictures.
        recognised: share of the pictures that look most like her; one that looks as much like n others counts 1/(n+1).
    """

    pictures: int
    shares: Mapping[str, float]
    recognised: float


class Recognition:
    """The confusion table of a cast.

    Args:
        cast: whose identity tags are looked for.
        pictures: all that was drawn; names as the cast has them.
        known: whether the tagger knows a tag; what it does not know cannot come back and does not count.

    Raises:
        CastError: a name that is not in the cast, or no identity tags to look for.
    """

    def __init__(self, cast: Cast, pictures: Iterable[Seen], known: Callable[[str], bool] = lambda tag: True) -> None:
        self.cast, self._seen = cast, list(pictures)
        withheld = {tag_key(tag) for tag in cast.withheld}
        identity = {who.name: [tag for tag in who.identity if tag_key(tag) not in withheld] for who in cast.characters}
        self.not_known = tuple(sorted({tag for tags in identity.values() for tag in tags if not known(tag)}))
        self._identity = {name: frozenset(map(tag_key, filter(known, tags))) for name, tags in identity.items()}
        self.compared = tuple(who for who in cast.characters if self._identity[who.name])
        asked = {seen.name for seen in self._seen}
        self.drawn = tuple(who for who in cast.characters if who.name in asked)
        for name in asked - {who.name for who in self.drawn}:
            cast.find(name)
            raise CastError(f"'{show(name)}' is another name of {show(cast.find(name).name)}; give the cast's own")
        if lacking := [who.name for who in self.drawn if who not in self.compared]:
            raise CastError(f"the cast '{show(cast.name)}' has no identity tags that the tagger knows for "
                            f"{', '.join(map(show, lacking[:5]))}{' …' if len(lacking) > 5 else ''}: there is nothing "
                            "to look for on the pictures")

    @property
    def strengths(self) -> tuple[float, ...]:
        return tuple(sorted({seen.strength for seen in self._seen}))

    @cached_property
    def rows(self) -> dict[tuple[float, str], Row]:
        """(strength, name) → what came back; only where there are pictures."""
        groups: dict[tuple[float, str], list[dict[str, float]]] = {}
        for seen in self._seen:
            groups.setdefault((seen.strength, seen.name), []).append(self._shares(seen.tags))
        return {(strength, name): Row(
            len(found), {who.name: sum(one[who.name] for one in found) / len(found) for who in self.compared},
            sum(_most_like(name, one) for one in found) / len(found)) for (strength, name), found in groups.items()}

    def change(self, strength: float, name: str, of: str) -> float | None:
        """The share of `of`'s tags on pictures of `name`, less that of the base model; None where there is none."""
        base = self.rows.get((BASE, name))
        return None if base is None or strength == BASE else self.rows[strength, name].shares[of] - base.shares[of]

    def lines(self) -> list[str]:
        """`key: value` lines: the means of each strength, then each character."""
        said = [f"pictures: {len(self._seen)} of {len(self.drawn)} characters"]
        for strength in self.strengths:
            rows = {name: row for (at, name), row in self.rows.items() if at == strength}
            own = sum(row.shares[name] for name, row in rows.items()) / len(rows)
            changes = [self.change(strength, name, name) for name in rows]
            known = [one for one in changes if one is not None]
            said.append(f"{named(strength)}: {own:.0%} of the identity tags came back"
                        + (f" ({sum(known) / len(known):+.0%})" if known else "")
                        + f", {sum(row.recognised for row in rows.values()) / len(rows):.0%} of the pictures look most "
                        "like who was asked for")
        return said + [f"{roster.label(who)}: {self._of(who)}" for who in self.drawn]

    def csv(self, second: Identity | None = None) -> str:
        """Every cell of every table, one a line; `change` against the base model, empty where there is none.

        Args:
            second: what an identity model found on the same pictures, in columns of its own.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["strength", "drawn", "cards", "pictures", "recognised", "identity_of", "share", "change",
                         *(second.COLUMNS if second else ())])
        compared = {who.name for who in (*self.compared, *(second.compared if second else ()))}
        others = [who.name for who in self.cast.characters if who.name in compared]
        for who in self.drawn:
            for strength in self.strengths:
                if row := self.rows.get((strength, who.name)):
                    cards = "" if who.cards is None else who.cards
                    for other in others:
                        share = row.shares.get(other)
                        change = None if share is None else self.change(strength, who.name, other)
                        writer.writerow([f"{strength:g}", who.name, cards, row.pictures, f"{row.recognised:.4f}", other,
                                         *("" if one is None else f"{one:.4f}" for one in (share, change)),
                                         *(second.cells(strength, who.name, other) if second else ())])
        return text.getvalue()

    def _of(self, who: Character) -> str:
        parts = []
        for strength in self.strengths:
            if row := self.rows.get((strength, who.name)):
                change = self.change(strength, who.name, who.name)
                parts.append(f"{strength:g}: {row.shares[who.name]:.0%}{'' if change is None else f' ({change:+.0%})'}")
        last = max(strength for strength, name in self.rows if name == who.name)
        others = {name: share for name, share in self.rows[last, who.name].shares.items() if name != who.name}
        nearest = max(others, key=others.get, default=None)
        return ", ".join(parts) + (f"; at {last:g} then {nearest} {others[nearest]:.0%}" if nearest else "")

    def _shares(self, tags: Iterable[str]) -> dict[str, float]:
        found = {tag_key(tag) for tag in tags}
        return {who.name: len(found & tags) / len(tags) for who in self.compared if (tags := self._identity[who.name])}


def _most_like(name: str, shares: Mapping[str, float]) -> float:
    """1 where her share is the largest alone, less where others have it too, 0 where another has a larger one."""
    most = max(shares.values())
    return 0.0 if most == 0 or shares[name] < most else 1 / sum(share == most for share in shares.values())


def named(strength: float) -> str:
    """A strength as it is told."""
    return f"strength {strength:g}" + (" (the base model alone)" if strength == BASE else "")
