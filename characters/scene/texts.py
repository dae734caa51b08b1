"""What is written for each region of a scene: the shared text, then the person's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from ...text import show
from ..catalogue import Character
from ..errors import CastError, PromptError
from ..overlay import Found
from ..parts import Entry, join, network_notes, typed_entries
from ..people import count, count_word, is_count
from ..prompt import build
from ..tags import Tag
from ..withheld import holds_any
from .boxes import Box
from .lines import Line, read_lines

_WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Region:
    """A person, her box and her whole prompt; the last region may be the rest of the picture, without a person."""

    text: str
    who: Character | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Scene:
    """The people in the order of their lines, the prompt of whatever they leave free, and what to know of it."""

    people: tuple[Region, ...]
    rest: Region
    notes: tuple[str, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(region.box for region in self.people)

    def regions(self, count: int) -> tuple[Region, ...]:
        """The people, and the rest where `count` masks say that there is one."""
        return (*self.people, self.rest)[:count]


def plan(people: str, shared: str, find: Callable[[str], Found], *, version: str = "v2.1",
         tag_set: str = "identity") -> Scene:
    """The scene of these lines (`name | box | tags | weight`).

    Args:
        people: a line for each.
        shared: prompt text for the whole picture.
        find: a name as typed → the character, and the cast by which her prompt is built. Raises CastError.
        version, tag_set: as `characters.build` takes them.

    Count tags: `2girls` and so on stand in the shared text, `1girl` with each person, `solo` nowhere.

    Raises PromptError or CastError, with the number of the line.
    """
    lines = read_lines(people)
    found = [_at(line, find, line.name) for line in lines]
    _check_twice(lines, [one.character for one in found])
    withheld = {tag for one in found for tag in one.cast.withheld}
    common = typed_entries((("shared", shared),))
    number, notes = _settle(common, len(lines), withheld)
    notes += _overlaps(lines, [one.character for one in found])
    said, regions = {tag.key for entry in common for tag in entry.kept if tag and not tag.foreign}, []
    for line, one in zip(lines, found, strict=True):
        built = _at(line, build, one.cast, one.character, version=version, tag_set=tag_set, weight=line.weight,
                    after=line.tags, exclude="solo")
        own = typed_entries((("own", built.positive),))
        _leave_out(own, lambda tag: is_count(tag.key) or tag.key in said)
        notes += (*one.notes, *built.notes)
        regions.append(Region(_text(common, number, "1girl", own), one.character, line.box))
    return Scene(tuple(regions), Region(_text(common, number)), tuple(dict.fromkeys(notes)))


def _at(line: Line, call: Callable, *args, **kwargs):
    """The call's result; what it refuses, with the line in front."""
    try:
        return call(*args, **kwargs)
    except CastError as error:
        raise type(error)(f"line {line.number}: {error}") from error


def _check_twice(lines: Iterable[Line], found: list[Character]) -> None:
    first: dict[str, int] = {}
    for line, who in zip(lines, found, strict=True):
        if who.name in first:
            raise PromptError(f"line {line.number}: {show(who.name)} stands in line {first[who.name]} already; each "
                              "person has one line")
        first[who.name] = line.number


def _settle(common: list[Entry], people: int, withheld: Iterable[str]) -> tuple[str, list[str]]:
    """Take count tags and what is withheld out of the shared text; the right count, and notes."""
    tags = [tag for entry in common for tag in entry.kept if not tag.foreign]
    people = max(people, count({"shared": tags}, {}, None))
    notes = [f"withheld: '{show(tag.text)}' left out" for tag in tags if holds_any(tag.text, withheld)]
    number = count_word(people, tags) if people > 1 else ""
    _leave_out(common, lambda tag: is_count(tag.key) or holds_any(tag.text, withheld))
    return number, [*notes, *network_notes(common)]


def _leave_out(entries: Iterable[Entry], unwanted: Callable[[Tag], bool]) -> None:
    """Take tags out of typed text; what is not ours passes to the letter."""
    for entry in entries:
        entry.kept = [None if tag and not tag.foreign and unwanted(tag) else tag for tag in entry.kept]


def _text(common: list[Entry], *more: str | list[Entry]) -> str:
    """Prompt text: the shared part, and what follows it."""
    pieces = (one if isinstance(one, str) else join(one) for one in (common, *more))
    return ", ".join(piece for piece in pieces if piece)


def _overlaps(lines: Iterable[Line], found: list[Character]) -> list[str]:
    """A note on each pair of boxes that share pixels: nobody is to wonder why two people run into each other."""
    return [f"note: the boxes of {show(one.name)} and {show(other.name)} overlap; both are drawn there"
            for (first, one), (second, other) in combinations(zip(lines, found, strict=True), 2)
            if first.box.overlaps(second.box)]
