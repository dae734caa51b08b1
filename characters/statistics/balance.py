"""Repeats: how often each character's pictures are seen in an epoch, so that few cards meet many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...text import show
from ..errors import CastError
from .captions import name_key
from .summary import Statistics
from .tallies import Place

MOST = 10_000  # repeats that the trainer takes
_MANY = 10  # a picture that is seen as often in every epoch is learnt by heart
_LISTED = 5


@dataclass(frozen=True)
class Repeats:
    """One character: pictures, how many an epoch sees of them now, and the repeats that balance the cast."""

    name: str
    pictures: int
    seen: int
    repeats: int

    @property
    def balanced(self) -> int:
        """Pictures of hers in an epoch with the new repeats."""
        return self.pictures * self.repeats


def balance(statistics: Statistics) -> tuple[Repeats, ...]:
    """Repeats so that an epoch sees of each character about as many pictures as it now sees of the most frequent."""
    seen: dict[str, int] = {}
    for place in statistics.places:
        for key, captions in place.captions.items():
            seen[key] = seen.get(key, 0) + captions * place.repeats
    aim = max(seen.values(), default=0)
    return tuple(Repeats(who.name, who.pictures, seen[name_key(who.name)],
                         min(MOST, max(1, (2 * aim + who.pictures) // (2 * who.pictures))))
                 for who in statistics.characters)


def balance_text(found: Iterable[Repeats]) -> str:
    """A line for each character: pictures × repeats, and what it was where it changes."""
    found = tuple(found)
    lines = [f"an epoch: {sum(one.seen for one in found)} pictures as it is, {sum(one.balanced for one in found)} "
             "balanced"]
    for one in found:
        before = "as before" if one.seen == one.balanced else f"before {one.seen}"
        lines.append(f"{show(one.name)}: {one.pictures} × {one.repeats} = {one.balanced}, {before}")
    if many := [show(one.name) for one in found if one.repeats >= _MANY]:
        lines.append(f"note: pictures seen {_MANY} times in every epoch are learnt by heart: better more pictures of "
                     f"{', '.join(many[:_LISTED])}{' and others' if len(many) > _LISTED else ''}")
    return "\n".join(lines)


def dataset_toml(statistics: Statistics) -> tuple[str, list[str]]:
    """A dataset TOML of kohya's with these repeats for every folder that has pictures, and a line on each change.

    Raises CastError where no folder has pictures, or one holds several characters: repeats are a folder's.
    """
    by_key = {name_key(one.name): one for one in balance(statistics)}
    places = [place for place in statistics.places if place.pictures]
    if not places:
        raise CastError("the captions have no pictures beside them: a dataset is folders of pictures")
    if mixed := [place for place in places if len(place.captions) > 1]:
        raise CastError(
            f"{show(mixed[0].path, 200)} holds pictures of {len(mixed[0].captions)} characters, and repeats are a "
            "folder's: give each character a folder of her own")
    tables, changes = [], []
    for place in places:
        who = next((by_key[key] for key in place.captions), None)
        repeats = who.repeats if who else place.repeats
        if repeats != place.repeats:
            changes.append(f"repeats: {show(place.path, 200)}: {place.repeats} → {repeats}")
        tables.append(_subset(place, repeats, {"class_tokens": who.name} if who else {}))
    head = ("# Repeats that balance the characters, written by Tag Statistics. For kohya's scripts (--dataset_config)\n"
            "# or LoHa Training Data (dataset). No folder was renamed.\n\n[[datasets]]\n")
    return head + "\n".join(tables), changes


def _subset(place: Place, repeats: int, more: Mapping[str, str]) -> str:
    values = {"image_dir": place.path, "num_repeats": repeats, "caption_extension": place.ending, **more}
    return "\n[[datasets.subsets]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: str | int) -> str:
    """A value in TOML: a basic string is JSON's, but for DEL. Raises CastError for what is no Unicode."""
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise CastError(f"{show(value, 200)}: not UTF-8, so it cannot stand in a TOML; rename the folder") from error
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
