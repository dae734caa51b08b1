"""What is written for each region of a scene: the shared text, then the person's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ...text import show
from ..catalogue import Cast, Character
from ..counts import COUNTS, SOLO, count_tag
from ..errors import CastError, PromptError
from ..prompt import build
from ..tags import Tag, plain, split
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


def plan(people: str, shared: str, find: Callable[[str], tuple[Cast, Character]], *, version: str = "v2.1",
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
    _check_twice(lines, [who for _, who in found])
    common, withheld = _shared(shared, len(lines), [cast for cast, _ in found])
    notes, regions = [*withheld, *_overlaps(lines, [who for _, who in found])], []
    for line, (cast, who) in zip(lines, found, strict=True):
        built = _at(line, build, cast, who, version=version, tag_set=tag_set, weight=line.weight, after=line.tags,
                    exclude=SOLO)
        own = [tag for tag in split(built.positive) if not _counts(tag)]
        notes += built.notes
        regions.append(Region(_join(common, [plain(count_tag(1)), *own]), who, line.box))
    return Scene(tuple(regions), Region(_join(common)), tuple(dict.fromkeys(notes)))


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


def _shared(text: str, people: int, casts: list[Cast]) -> tuple[list[Tag], list[str]]:
    """The shared tags with the right count behind them, and a note on what was taken out."""
    tags = split(text)
    people = max([people, *(COUNTS.get(tag.key, 0) for tag in tags)])
    kept, notes = [], []
    for tag in tags:
        if any(holds_any(tag.text, cast.withheld) for cast in casts):
            notes.append(f"withheld: '{show(tag.text)}' left out")
        elif not _counts(tag):
            kept.append(tag)
    return [*kept, *([plain(count_tag(people))] if people > 1 else [])], notes


def _counts(tag: Tag) -> bool:
    return tag.key in COUNTS or tag.key == SOLO


def _join(common: Sequence[Tag], own: Sequence[Tag] = ()) -> str:
    """Prompt text; what is shared already is not said again."""
    shared = {tag.key for tag in common}
    return ", ".join(str(tag) for tag in (*common, *(tag for tag in own if tag.key not in shared)))


def _overlaps(lines: Iterable[Line], found: list[Character]) -> list[str]:
    """A note on each pair of boxes that share pixels: nobody is to wonder why two people run into each other."""
    return [f"note: the boxes of {show(one.name)} and {show(other.name)} overlap; both are drawn there"
            for (first, one), (second, other) in combinations(zip(lines, found, strict=True), 2)
            if first.box.overlaps(second.box)]
