"""Who is drawn on a sheet, in which order, and what stands below each picture."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

from ..text import show
from .catalogue import Cast, Character
from .errors import CastError, PromptError
from .fonts import cjk_font

EVERY_UNIT, FAVOURITES = "every unit", "favourites"
SCRIPTS = ("romaji", "kanji", "kana")
FEW_CARDS = 10
_NONE = "none"
_MOST_STRENGTHS = 50


def choose(cast: Cast, version: str, *, unit: str = EVERY_UNIT, minimum_cards: int = 0, names: str = "",
           favourites: Iterable[str] = ()) -> tuple[Character, ...]:
    """The characters of `cast` that `version` knows and that are asked for, units together, in the cast's order.

    Args:
        unit: a unit of the cast, `EVERY_UNIT` or `FAVOURITES`.
        minimum_cards: leaves out those with fewer; one whose cards are not known stays.
        names: one a line, or separated by commas; these alone, as typed, when there are any.
        favourites: names of the person's favourites.

    Raises:
        CastError: a name that is not in the cast, with suggestions, or that `version` does not know; nobody is left.
    """
    members = cast.members(version)
    typed = [name for line in names.splitlines() for name in line.split(",") if name.strip()]
    if typed:
        chosen = [cast.find(name) for name in typed]
        for who in chosen:
            if who not in members:
                reason = cast.models[version].reason or "it was not trained on her"
                raise CastError(f"{show(version)} does not know {show(who.name)}: {reason}. Take her from the list")
    else:
        known = frozenset(favourites)
        chosen = [who for who in members
                  if unit in (EVERY_UNIT, who.unit) or (unit == FAVOURITES and who.name in known)]
        order = {name: place for place, name in reversed(list(enumerate(who.unit for who in cast.characters)))}
        chosen.sort(key=lambda who: order[who.unit])
    kept = tuple(dict.fromkeys(who for who in chosen if who.cards is None or who.cards >= minimum_cards))
    if kept:
        return kept
    if unit == FAVOURITES and not typed and not chosen:
        raise CastError(f"no favourite is in the cast '{show(cast.name)}'; mark some in the character picker")
    raise CastError(f"nobody is left: '{show(unit)}' of the cast '{show(cast.name)}' with at least {minimum_cards} "
                    f"cards, as {show(version)} knows them. Lower minimum_cards or choose another unit")


def label(who: Character, script: str = "romaji") -> str:
    """Her name in this script, romaji where the cast or the machine's fonts lack it, and her cards where few."""
    name = {"kanji": who.ja, "kana": who.kana}.get(script, "") if cjk_font() else ""
    few = f" ({who.cards} {'card' if who.cards == 1 else 'cards'})"
    return (name or who.name) + (few if who.cards is not None and who.cards < FEW_CARDS else "")


def picture_label(who: Character, script: str, strength: str, file: str, several: bool) -> str:
    """The label `column | row | group` of a picture: idols by strength, or files by strength where it is one idol.

    Args:
        strength: as text, "" where it is not what tells the rows apart.
        file: the LoHa's file, "" where there is one for all.
        several: whether there are several idols.
    """
    stem = file.removesuffix(".safetensors")
    if not several:
        return " | ".join((stem, strength, ""))
    return " | ".join((label(who, script), ", ".join(filter(None, (stem, strength))), who.unit))


def matching(files: Iterable[str], patterns: str) -> tuple[str, ...]:
    """The files that a pattern (`*`, `?`) fits, patterns apart by commas or lines; 2 stands before 10.

    Raises PromptError for a pattern that fits nothing.
    """
    found: list[str] = []
    names = sorted(files, key=lambda name: [
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)])
    for pattern in (part.strip() for line in patterns.splitlines() for part in line.split(",")):
        if not pattern:
            continue
        fitting = [name for name in names
                   if fnmatch.fnmatch(name.replace("\\", "/").removesuffix(".safetensors"),
                                      pattern.replace("\\", "/").removesuffix(".safetensors"))]
        if not fitting:
            raise PromptError(f"lora_files: '{show(pattern)}' fits no file in models/loras")
        found += fitting
    return tuple(dict.fromkeys(found))


def strengths(text: str) -> tuple[float | None, ...]:
    """The strengths of a text such as `none, 0.6, 1`; `none` is 0.0 and None here. Empty text: no strengths.

    Raises PromptError on what is no number.
    """
    found: list[float | None] = []
    for part in text.replace("\n", ",").split(","):
        word = part.strip()
        if not word:
            continue
        try:
            value = None if word.casefold() == _NONE else float(word)
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise PromptError(f"strengths: '{show(word)}' is no number; write for example: none, 0.6, 0.8, 1")
        found.append(value)
    if len(found) > _MOST_STRENGTHS:
        raise PromptError(f"strengths: {len(found)} are more than {_MOST_STRENGTHS}")
    return tuple(dict.fromkeys(found))


def read_favourites(path: Path) -> frozenset[str]:
    """The names that the picker has kept; none where the file is missing or is not the picker's."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(name for name in kept if isinstance(name, str)) if isinstance(kept, list) else frozenset()
