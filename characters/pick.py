"""A seeded pick that visits everyone equally often and changes little when somebody joins.

Seeds 0…n-1, n…2n-1 and so on each visit a cast of n exactly once, in an order that differs from one round
to the next. A cast of n + 1 starts from the picks of the cast of n: in each of its own, longer rounds one
visit of everyone stays where it was, and only second visits make room for those who are missing.
So about four seeds in five keep their character when one is added at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
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
    turn, at = divmod(seed, len(members))
    return members[_round(len(members), turn)[at]]


@lru_cache(maxsize=1 << 14)
def _round(count: int, turn: int) -> tuple[int, ...]:
    """Whom the seeds turn·count … turn·count + count - 1 visit in a cast of `count`: everyone, by index."""
    start, smaller = turn * count, count - 1
    if smaller % _GENERATION == 0:
        picks = [0] * count
    else:
        first = start // smaller
        both = _round(smaller, first) + _round(smaller, first + 1)
        picks = list(both[start - first * smaller :][:count])

    noise = hashlib.shake_256(f"{count} {turn}".encode()).digest(4 * count)
    missing = set(range(count))
    second = []
    for at in sorted(range(count), key=lambda at: noise[4 * at : 4 * at + 4]):
        if picks[at] in missing:
            missing.remove(picks[at])
        else:
            second.append(at)
    for at, member in zip(second, sorted(missing), strict=True):
        picks[at] = member
    return tuple(picks)
