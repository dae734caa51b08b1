"""Count tags: what a prompt says of how many people there are."""

from __future__ import annotations

_MANY = "multiple girls"
SOLO = "solo"
# How many people a count tag speaks of, at least; `solo` agrees with one only.
COUNTS = {"1girl": 1, "2girls": 2, "3girls": 3, "4girls": 4, "5girls": 5, "6+girls": 6, _MANY: 2}


def count_tag(people: int) -> str:
    """The tag for so many people, one or more."""
    return "1girl" if people == 1 else f"{people}girls" if people <= 5 else _MANY
