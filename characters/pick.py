"""A seeded pick that visits everyone equally often and changes little when somebody joins.

Seeds 0…n-1, n…2n-1 and so on each visit a cast of n exactly once, in an order that differs from one round
to the next. A cast of n + 1 starts from the picks of the cast of n: in each of its own, longer rounds the
first visit of everyone stays where it was, and only second visits make room for those who are missing.
So about four seeds in five keep their character when one is added at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")
# Rounds are built up from a smaller cast, at most this many members at a time, which bounds the work.
# A cast that grows past a multiple of it is dealt anew.
_GENERATION = 64


def pick(members: Sequence[_T], seed: int) -> _T:
    """The member for `seed` (0 or more). Every aligned run of len(members) seeds visits each once.

    Raises ValueError on an empty cast or a negative seed.
    """
    if not members or seed < 0:
        raise ValueError("a pick needs at least one member and a seed of 0 or more")
    size = len(members)
    first = 1 + (size - 1) // _GENERATION * _GENERATION
    spans = {}
    start, stop = seed, seed + 1
    for count in range(size, first - 1, -1):
        start, stop = start // count * count, -(-stop // count) * count
        spans[count] = (start, stop)
    row = [0] * (stop - start)
    for count in range(first, size + 1):
        low, high = spans[count]
        row = [
            member
            for round_start in range(low, high, count)
            for member in _round(row[round_start - start : round_start - start + count], round_start)
        ]
        start = low
    return members[row[seed - start]]


def _round(before: list[int], start: int) -> list[int]:
    """`before`, the smaller cast's picks for one round, with each second visit given to one who is missing."""
    count = len(before)
    order = sorted(range(count), key=lambda at: hashlib.sha256(f"{count} {start + at}".encode()).digest())
    missing = set(range(count))
    picks = list(before)
    second = []
    for at in order:
        if picks[at] in missing:
            missing.remove(picks[at])
        else:
            second.append(at)
    for at, member in zip(second, sorted(missing), strict=True):
        picks[at] = member
    return picks
