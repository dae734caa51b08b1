"""The statistics in the model page's own form, and as a cast."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import yaml

from .summary import Statistics

_HEADS = ("character", "cards")


def page_text(statistics: Statistics) -> str:
    """Each character's name and tags as the model page lists them, then its table of the distribution."""
    lists = [f"{who.name},\n{', '.join(one.tag for one in who.tags)}".rstrip("\n") for who in statistics.characters]
    return "\n\n".join([*lists, f"Data distribution:\n{distribution(statistics)}"])


def distribution(statistics: Statistics) -> str:
    """The table `character  cards`, most cards first, numbered."""
    rows = [(who.name, str(who.pictures)) for who in statistics.characters]
    digits = len(str(len(rows)))
    wide = max(_columns(name) for name, _ in (_HEADS, *rows))
    high = max(len(cards) for _, cards in (_HEADS, *rows))
    numbers = ["", *range(1, len(rows) + 1)]
    return "\n".join(f"{number:<{digits}}  {' ' * (wide - _columns(name))}{name}  {cards:>{high}}"
                     for number, (name, cards) in zip(numbers, (_HEADS, *rows), strict=True))


def cast_yaml(statistics: Statistics, withheld: Iterable[str]) -> str:
    """A cast file in the form of `character_tags.yaml`, which `catalogue.parse` reads back."""
    characters = [{"name": who.name, "cards": who.pictures, "tags": [one.tag for one in who.tags]}
                  | ({"identity": list(who.identity)} if who.identity else {}) for who in statistics.characters]
    parts = {"withheld": list(withheld), "characters": characters}
    # Lists of words on one line, everything else below each other, as in the pack's own file.
    text = yaml.safe_dump(parts, allow_unicode=True, sort_keys=False, default_flow_style=None, width=110)
    return f"version: 1\n{text}"


def _columns(text: str) -> int:
    """How wide a text stands in letters of one width."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else not unicodedata.combining(letter)
               for letter in text)
