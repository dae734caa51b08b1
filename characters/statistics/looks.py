"""What a character looks like, by kinds of tags: a suggested identity, and tags that contradict each other.

The tags are those of the taggers (Danbooru's). Nothing here is about a body or a scene, so no suggestion is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from ..withheld import holds_any

# A tag makes up a character's looks from this share of her pictures on; from the lower one on where it is this many
# times as frequent as among everybody: taggers overlook a mole in most pictures.
_SHARE, _RARE_SHARE, _LIFT = 0.4, 0.2, 3.0
# Of what everyone has exactly one of, the most frequent is hers from a lower share on.
_ONE_SHARE = 0.25


@dataclass(frozen=True)
class Kind:
    """A kind of tags, as families: tags of different families contradict each other where `exclusive`.

    `single`: of the family, only the most frequent tag is suggested.
    """

    name: str
    families: tuple[tuple[str, ...], ...]
    exclusive: bool = True
    single: bool = False


def _shades(thing: str, colours: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{shade} {thing}" for shade in colour.split("/")) for colour in colours)


_MANY_COLOURS = ("multicolored hair", "gradient hair", "two-tone hair", "streaked hair", "colored inner hair",
                 "split-color hair", "rainbow hair", "colored tips")
_MANY_EYES = ("heterochromia", "multicolored eyes", "gradient eyes", "two-tone eyes")
_HAIR_COLOUR = Kind("hair colour", _shades("hair", (
    "black", "brown/light brown/dark brown", "blonde/light blonde/platinum blonde", "red/dark red", "orange",
    "pink/light pink/dark pink", "purple/light purple/dark purple", "blue/light blue/dark blue", "aqua",
    "green/light green/dark green", "grey/gray/silver", "white", "yellow")), single=True)
_LENGTH = Kind("hair length", (("short hair", "very short hair"), ("medium hair",),
                               ("long hair", "very long hair", "absurdly long hair"), ("bald",)))
_EYE_COLOUR = Kind("eye colour", _shades("eyes", (
    "black", "brown/light brown/dark brown", "red/dark red", "orange/amber", "yellow/golden/gold", "green/light green",
    "aqua", "blue/light blue/dark blue", "purple/light purple", "pink", "grey/gray/silver", "white")), single=True)
_ORNAMENT = "hair ornament"  # says nothing more where one that has a name is worn
_KINDS = (
    _HAIR_COLOUR,
    Kind("more hair colours", (_MANY_COLOURS,), exclusive=False),
    _LENGTH,
    Kind("tied hair", (("ponytail", "high ponytail", "low ponytail", "side ponytail", "short ponytail",
                        "folded ponytail"), ("twintails", "low twintails", "short twintails"))),
    Kind("buns and braids", (("hair bun", "braid"),), exclusive=False),
    Kind("number of buns", (("single hair bun", "cone hair bun"), ("double bun",))),
    Kind("number of braids", (("single braid", "side braid", "french braid", "crown braid", "braided ponytail"),
                              ("twin braids",))),
    Kind("hairstyle", ((
        "ahoge", "bob cut", "hime cut", "drill hair", "twin drills", "two side up", "one side up", "half updo",
        "hair over one eye", "hair between eyes", "hair intakes", "hair flaps", "sidelocks", "low-tied long hair",
        "hair over shoulder", "asymmetrical hair", "undercut", "short hair with long locks", "antenna hair"),),
        exclusive=False),
    Kind("bangs", (("blunt bangs",), ("parted bangs",), ("diagonal bangs",), ("swept bangs",), ("crossed bangs",),
                   ("asymmetrical bangs",), ("choppy bangs",))),
    Kind("curl", (("straight hair",), ("wavy hair",), ("curly hair",), ("messy hair",), ("spiked hair",))),
    Kind("worn in the hair", ((
        _ORNAMENT, "hairclip", "x hair ornament", "star hair ornament", "heart hair ornament",
        "flower hair ornament", "hair ribbon", "hair bow", "hair flower", "hairband", "headband", "hair scrunchie",
        "hair bobbles", "hairpin", "hair stick", "hair tubes", "hair rings"),), exclusive=False),
    _EYE_COLOUR,
    Kind("more eye colours", (_MANY_EYES,), exclusive=False),
    Kind("face", ((
        "mole", "mole under eye", "mole under mouth", "freckles", "fang", "fangs", "tareme",
        "tsurime", "thick eyebrows", "short eyebrows", "eyepatch", "facial mark", "bandaid",
        "bandaid on face", "scar on face", "scar across eye", "glasses", "red-framed eyewear", "black-framed eyewear",
        "blue-framed eyewear", "semi-rimless eyewear", "under-rim eyewear", "round eyewear", "monocle"),),
        exclusive=False),
    Kind("ears and horns", ((
        "animal ears", "cat ears", "dog ears", "fox ears", "rabbit ears", "wolf ears", "horse ears", "pointy ears",
        "horns", "halo"),), exclusive=False),
    Kind("worn", (("earrings", "choker"),), exclusive=False),
)  # fmt: skip
# Kind → tags that say of two of its families that they are hers at once.
_TWO_AT_ONCE = {_EYE_COLOUR.name: frozenset(_MANY_EYES), _HAIR_COLOUR.name: frozenset(_MANY_COLOURS)}
_CONTRADICTING = (_HAIR_COLOUR, _LENGTH, _EYE_COLOUR)
_FAMILY = {tag: (kind.name, number) for kind in _CONTRADICTING for number, family in enumerate(kind.families)
           for tag in family}
_SEVERAL = frozenset(("multiple girls", "multiple boys", "everyone", *(
    f"{number}{who}" for who in ("girls", "boys") for number in ("2", "3", "4", "5", "6+"))))
_ALONE = "solo"
_MARKED = _FAMILY.keys() | _SEVERAL | {_ALONE}
ALONE_WITH_OTHERS = "people"


def suggest(counts: Mapping[str, int], pictures: int, lift: Mapping[str, float], withheld: Iterable[str]
            ) -> tuple[str, ...]:
    """The tags that make up a character's looks, without contradiction.

    Args:
        counts: tag → in how many of her pictures, for the tags to choose from.
        pictures: of hers.
        lift: tag → its share among hers over its share among everybody's.
        withheld: tags that are never suggested, nor any that holds one.
    """
    withheld = tuple(withheld)
    usual = {tag for tag, count in counts.items() if count >= _SHARE * pictures or (
        count >= _RARE_SHARE * pictures and lift.get(tag, 0.0) >= _LIFT)}
    chosen: list[str] = []
    for kind in _KINDS:
        enough = {tag for tag in counts if counts[tag] >= _ONE_SHARE * pictures} if kind in _CONTRADICTING else usual
        families = [sorted((tag for tag in family if tag in enough), key=lambda tag: (-counts[tag], tag))
                    for family in kind.families]
        families = sorted(filter(None, families), key=lambda family: (-counts[family[0]], family[0]))
        if kind.exclusive:
            second = usual & _TWO_AT_ONCE.get(kind.name, frozenset()) and len(families) > 1 and families[1][0] in usual
            families = families[:2 if second else 1]
        hers: list[str] = []
        for family in families:
            # A second tag of a length or a style, such as `very long hair`, must be as usual as any other.
            hers += family[:1] if kind.single else [tag for tag in family if tag == family[0] or tag in usual]
        chosen += [tag for tag in hers if tag != _ORNAMENT] or hers
    return tuple(tag for tag in chosen if not holds_any(tag, withheld))


def contradictions(tags: Set[str], *, of_one_picture: bool) -> list[tuple[str, tuple[str, ...]]]:
    """(kind, tags) of what cannot be of one person: two hair colours, lengths or eye colours, `solo` among several.

    In one picture with several people two colours are theirs; two are one's as well where a tag says so. Of one
    picture two tags are named for each kind, so that few combinations are to be counted; else all.
    """
    marked = tags & _MARKED
    if len(marked) < 2:
        return []
    found = []
    several = sorted(marked & _SEVERAL)
    if _ALONE in marked and several:
        found.append((ALONE_WITH_OTHERS, (_ALONE, *(several[-1:] if of_one_picture else several))))
    if of_one_picture and (several or {"1girl", "1boy"} <= tags):
        return found
    for kind in _CONTRADICTING:
        hers = sorted(tag for tag in marked if _FAMILY.get(tag, ("",))[0] == kind.name)
        families = {_FAMILY[tag]: tag for tag in reversed(hers)}
        if len(families) > 1 and not tags & _TWO_AT_ONCE.get(kind.name, frozenset()):
            found.append((kind.name, tuple(sorted(families.values())[:2] if of_one_picture else hers)))
    return found
