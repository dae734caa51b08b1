"""How many people a prompt speaks of, and the count tags that agree with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .catalogue import Cast, Character, fold
from .tags import Tag
from .trigger import trigger_of

_MANY, _SIX = "multiple girls", "6+girls"
# How many people a count tag speaks of, at least; `solo` agrees with one only.
_COUNTS = {"1girl": 1, "2girls": 2, "3girls": 3, "4girls": 4, "5girls": 5, _SIX: 6, _MANY: 2}


def is_count(key: str) -> bool:
    """Whether a tag's key says how many there are."""
    return key in _COUNTS or key == "solo"


def names_of(casts: Iterable[Cast]) -> dict[str, str]:
    """The folded name of everyone, in either order, and what a model calls them → the name."""
    names = {}
    for cast in casts:
        for known in cast.characters:
            triggers = (fold(trigger_of(known, version)) for version in cast.models.values())
            names |= dict.fromkeys((*full_names(known), *triggers), known.name)
    return names


def full_names(character: Character) -> frozenset[str]:
    """A character's name, folded, in either order."""
    return frozenset((fold(character.name), fold(f"{character.given} {character.family}")))


def count(said: Mapping[str, Iterable[Tag]], names: Mapping[str, str], character: Character | None) -> int:
    """How many people a part of a prompt speaks of: characters by name, or what a typed count tag says.

    Args:
        said: tags by the field they stand in: `previous`, `before`, `after`.
        names: of `names_of`.
        character: who is drawn there beside them, None for a part that is typed alone.
    """
    found = {field: {names[fold(tag.text)] for tag in tags if fold(tag.text) in names} for field, tags in said.items()}
    counted = {field: max((_COUNTS.get(tag.key, 0) for tag in tags), default=0) for field, tags in said.items()}
    everyone = set().union(*found.values())
    if character is not None:
        everyone.add(character.name)
        counted["previous"] = counted.get("previous", 0) + (character.name not in found.get("previous", ()))
    return max(len(everyone), *counted.values(), 1)


def count_word(people: int, typed: Iterable[Tag]) -> str:
    """The count tag for so many; over five, `6+girls` where that was typed."""
    if people <= 5:
        return f"{people}girls" if people > 1 else "1girl"
    return _SIX if any(tag.key == _SIX for tag in typed) else _MANY


def mend(tag: Tag, people: int, word: str) -> Tag | None:
    """The tag itself, the right count tag in a wrong one's place, or None for one that contradicts."""
    if tag.key == "solo":
        return tag if people == 1 else None
    if tag.key not in _COUNTS or tag.key == word:
        return tag
    return Tag(((word, tag.weights[0]),)) if people > 1 else None
