"""The counts as they grow, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...text import show
from ..errors import CastError
from .captions import name_key

_MOST_CHARACTERS = 2000
_MOST_SPELLINGS = 50
_EXAMPLES = 5


@dataclass
class Tally:
    """What is counted of one character: pictures, tag → pictures, spelling of the name → pictures, and
    (kind, tags) of a contradiction → pictures."""

    pictures: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    spelled: Counter[str] = field(default_factory=Counter)
    contradictions: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)

    def add_name(self, name: str, count: int = 1) -> None:
        if name in self.spelled or len(self.spelled) < _MOST_SPELLINGS:
            self.spelled[name] += count

    @property
    def name(self) -> str:
        """The spelling of most pictures."""
        return min(self.spelled, key=lambda name: (-self.spelled[name], name))


@dataclass(frozen=True)
class Place:
    """A folder with pictures directly in it.

    Args:
        path: where it is; its label alone where it is known from a LoHa only.
        repeats: times each picture is seen in an epoch, by kohya's `10_name`.
        pictures: files that are pictures.
        ending: of most of its captions.
        captions: `name_key` of a character → captions of hers.
    """

    path: str
    repeats: int
    pictures: int
    ending: str
    captions: Counter[str]


@dataclass
class Tallies:
    """Everything counted so far. `by_key` is by `name_key`."""

    MOST_COUNTS = 1_000_000  # of tags, over all characters

    told_by: str
    by_key: dict[str, Tally] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    captions: int = 0
    nobody: int = 0
    several: int = 0
    notes: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    missed: int = 0
    largest: int = 0

    def of(self, name: str) -> Tally:
        """The tally of whoever is called so; a new one for a new name.

        Raises CastError where there are more characters than any picture set has.
        """
        key = name_key(name)
        tally = self.by_key.get(key)
        if tally is None:
            if len(self.by_key) >= _MOST_CHARACTERS:
                raise CastError(
                    f"over {_MOST_CHARACTERS} characters, such as '{show(name)}': this is not how these captions name "
                    f"them. Choose another value of told_apart_by than '{self.told_by}'")
            tally = self.by_key[key] = Tally()
        return tally

    def refuse(self, where: str, reason: str) -> None:
        """A file that is no caption."""
        self.refused[reason] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{show(where)}: {reason}")

    def bound(self) -> None:
        """Drop the rarest tags where there are too many counts; `missed` is how many pictures a count may lack."""
        total = sum(len(tally.tags) for tally in self.by_key.values())
        self.largest = max(self.largest, total)
        least = 0
        while total > self.MOST_COUNTS // (2 if least else 1):
            least += 1
            for tally in self.by_key.values():
                for tag in [tag for tag, count in tally.tags.items() if count <= least]:
                    del tally.tags[tag]
            total = sum(len(tally.tags) for tally in self.by_key.values())
        self.missed += least

    def totals(self, wanted: Iterable[str]) -> Counter[str]:
        """Tag → pictures over all characters, for these tags."""
        wanted = frozenset(wanted)
        totals: Counter[str] = Counter()
        for tally in self.by_key.values():
            for tag in tally.tags.keys() & wanted:
                totals[tag] += tally.tags[tag]
        return totals
