"""`PATTERN=NUMBER` lists of kohya's `network_args`: regular expressions for modules' names, each with a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ....text import show
from ...errors import SettingsError

try:
    from re import _parser
except ImportError:  # Python 3.10
    import sre_parse as _parser

_LONGEST = 80  # characters of a name: SD 1.5's have up to 72
_MOST_WAYS = 1_000_000
_MANY = _MOST_WAYS + 1


def by_pattern(text: str, setting: str, what: str, number: Callable[[str], float],
               low: float, high: float) -> tuple[tuple[re.Pattern[str], float], ...]:
    """(pattern, number) of a text such as `attn1=1e-4, _mid_block_=0`, in its order.

    A name fits where the pattern is found in it (`re.search`), as in kohya-ss/sd-scripts' networks/lora_flux.py.

    Args:
        setting: whose text this is, for messages.
        what: what the number is, such as "a rate".
        number: makes one of text; ValueError where that is none.
        low, high: its range, both included.

    Raises:
        SettingsError: with the part that is wrong, also for a pattern whose search might not end in a lifetime.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        pattern, equals, value = (piece.strip() for piece in part.rpartition("="))
        # Changes nothing where a pattern is only searched for, and is what searching takes long with.
        searched = re.sub(r"(?<!\\)\.\*$", "", re.sub(r"^(\.\*)+(?![?+])", "", pattern))
        try:
            if not (equals and pattern and low <= number(value) <= high):
                raise ValueError(part)
            ways = _ways(_parser.parse(searched))
            found.append((re.compile(searched), number(value)))
        except (ValueError, re.error, OverflowError, RecursionError) as error:
            raise SettingsError(f"{setting}: {show(repr(part), 200)} is not PATTERN={what.split()[-1].upper()}, a "
                                f"regular expression and {what} from {low:g} to {high:g}") from error
        if ways > _MOST_WAYS:
            raise SettingsError(f"{setting}: {show(repr(part), 200)} could be searched for in so many ways that it "
                                "might never end: repeat no group, and have .* and its like three times at most")
    return tuple(found)


def _ways(items: Any) -> int:
    """At most how many ways there are to try a pattern at one place of a name, or `_MANY`."""
    ways = 1
    for kind, argument in items:
        ways *= _ways_of(kind, argument)
        if ways > _MOST_WAYS:
            return _MANY
    return ways


def _ways_of(kind: Any, argument: Any) -> int:
    name = str(kind)
    if name.endswith("_REPEAT"):
        fewest, most, body = argument
        fewest, most, each = min(fewest, _LONGEST), min(most, _LONGEST), _ways(body)
        return most - fewest + 1 if each == 1 else sum(each ** times for times in range(fewest, most + 1))
    if name == "BRANCH":
        return sum(map(_ways, argument[1]))
    if name == "SUBPATTERN":
        return _ways(argument[-1])
    if name in ("ASSERT", "ASSERT_NOT"):
        return _ways(argument[1])
    if name == "ATOMIC_GROUP":
        return _ways(argument)
    if name == "GROUPREF_EXISTS":
        return sum(_ways(one) for one in argument[1:] if one is not None)
    return 1
