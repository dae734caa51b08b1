"""What the counts say of each character."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import CastError
from .captions import name_key
from .looks import contradictions, suggest
from .tallies import Place, Tallies, Tally


@dataclass(frozen=True)
class TagCount:
    """A tag among a character's.

    Args:
        tag: in the spelling of `captions.tag_of`.
        pictures: of hers with the tag.
        share: of her pictures, 0 to 1.
        lift: `share` over the tag's share among the pictures of all characters: 1 is as frequent as anywhere.
    """

    tag: str
    pictures: int
    share: float
    lift: float


@dataclass(frozen=True)
class CharacterSummary:
    """A character: her name, pictures, the most frequent tags, and what follows from them.

    Args:
        name: in the spelling of most pictures.
        spellings: all of the name's, most frequent first.
        pictures: captions that are hers.
        tags: the most frequent first; of equal counts by the alphabet. Names of characters are not among them.
        identity: those of `tags` that make up her looks.
        in_list: contradictions in `tags`: (kind, tags).
        in_captions: contradictions in single captions: (kind, tags, captions), most frequent first.
    """

    name: str
    spellings: tuple[str, ...]
    pictures: int
    tags: tuple[TagCount, ...]
    identity: tuple[str, ...]
    in_list: tuple[tuple[str, tuple[str, ...]], ...]
    in_captions: tuple[tuple[str, tuple[str, ...], int], ...]


@dataclass(frozen=True)
class Statistics:
    """Of all characters, most pictures first.

    Args:
        told_by: how they were told apart.
        captions: that were read.
        nobody, several: captions that name nobody, or more than one; those count for each.
        refused: files that are no captions. `examples` says which and why, for a few.
        missed: how many pictures any count may lack, since rare tags were dropped to bound the memory.
        notes: lines of the report.
        places: the folders, for repeats.
    """

    characters: tuple[CharacterSummary, ...]
    told_by: str
    captions: int
    nobody: int
    several: int
    refused: int
    examples: tuple[str, ...]
    missed: int
    notes: tuple[str, ...]
    places: tuple[Place, ...]


def summarise(tallies: Tallies, top: int, withheld: Iterable[str], known: Iterable[str] = ()) -> Statistics:
    """The statistics of what was counted.

    Args:
        top: at most so many tags of each character.
        withheld: never suggested as identity.
        known: names in the order in which characters of equally many pictures stand; others follow by the alphabet.

    Raises CastError where the captions name nobody.
    """
    if not tallies.by_key:
        raise CastError(f"none of the {tallies.captions} captions names anybody, told apart by {tallies.told_by}; "
                        "choose another value of told_apart_by, or check the names")
    withheld = tuple(withheld)
    lists = {key: _top(tally, tallies, top) for key, tally in tallies.by_key.items()}
    totals = tallies.totals(tag for tags in lists.values() for tag, _ in tags)
    pictures = sum(tally.pictures for tally in tallies.by_key.values())
    order = {name_key(name): place for place, name in reversed(list(enumerate(known)))}
    keys = sorted(tallies.by_key, key=lambda key: (
        -tallies.by_key[key].pictures, order.get(key, len(order)), tallies.by_key[key].name))
    characters = []
    for key in keys:
        tally = tallies.by_key[key]
        tags = tuple(TagCount(tag, count, count / tally.pictures,
                              count / tally.pictures / (totals[tag] / pictures)) for tag, count in lists[key])
        counts, lift = {one.tag: one.pictures for one in tags}, {one.tag: one.lift for one in tags}
        wrong = sorted(tally.contradictions.items(), key=lambda item: (-item[1], item[0]))
        characters.append(CharacterSummary(
            tally.name, tuple(sorted(tally.spelled, key=lambda name: (-tally.spelled[name], name))), tally.pictures,
            tags, suggest(counts, tally.pictures, lift, withheld),
            tuple(contradictions(counts.keys(), of_one_picture=False)),
            tuple((kind, those, count) for (kind, those), count in wrong)))
    return Statistics(
        tuple(characters), tallies.told_by, tallies.captions, tallies.nobody, tallies.several, tallies.refused.total(),
        tuple(sorted(tallies.examples)), tallies.missed, tuple(tallies.notes), tuple(tallies.places))


def _top(tally: Tally, tallies: Tallies, top: int) -> list[tuple[str, int]]:
    most = []
    for tag in sorted(tally.tags, key=lambda tag: (-tally.tags[tag], tag)):
        if len(most) == top:
            break
        if name_key(tag) not in tallies.by_key:
            most.append((tag, tally.tags[tag]))
    return most
