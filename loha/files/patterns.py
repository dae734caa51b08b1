"""Regular expressions of a stranger, matched in linear time: `re` may be made to run for hours.

The standard library parses them; what stands for a set of characters, in whatever order and repetition, becomes
an automaton (Thompson 1968) that is walked one character at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable

try:  # Python 3.11 has moved it
    from re import _constants as codes
    from re import _parser as parser
except ImportError:
    import sre_constants as codes
    import sre_parse as parser

_MAX_STATES = 2_000
_CATEGORIES = {codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_SPACE: r"\s",
               codes.CATEGORY_NOT_SPACE: r"\S", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W"}

_Accepts = Callable[[str], bool]


class NotFollowed(ValueError):
    """The expression is none, is too large, or holds what an automaton cannot do (back references, look-around)."""


class Pattern:
    """What `re.match(f"{text}$", …)` says, for names without line breaks.

    Raises:
        NotFollowed: see there.
    """

    def __init__(self, text: str) -> None:
        # A state is (what it takes, where that leads); an edge that takes nothing leads on at once.
        self._takes: list[_Accepts | None] = []
        self._next: list[list[int]] = []
        self._anchors: dict[int, bool] = {}  # state → whether it is passed at the start, or else at the end, alone
        try:
            tree = parser.parse(text)
            if tree.state.flags & ~re.UNICODE:
                raise NotFollowed("flags")
            self._end = self._state()
            self._start = self._sequence(tree, self._end)
        except (re.error, RecursionError, OverflowError) as error:
            raise NotFollowed(str(error)) from error

    def fullmatch(self, text: str) -> bool:
        now = self._closure({self._start}, True, not text)
        for place, char in enumerate(text, 1):
            now = self._closure({after for state in now if (takes := self._takes[state]) and takes(char)
                                 for after in self._next[state]}, False, place == len(text))
        return self._end in now

    def _closure(self, states: set[int], at_start: bool, at_end: bool) -> set[int]:
        found, waiting = set(), list(states)
        while waiting:
            state = waiting.pop()
            if state in found or (state in self._anchors and not (at_start if self._anchors[state] else at_end)):
                continue
            found.add(state)
            if self._takes[state] is None:
                waiting += self._next[state]
        return found

    def _state(self, takes: _Accepts | None = None, *after: int) -> int:
        if len(self._takes) >= _MAX_STATES:
            raise NotFollowed("too large")
        self._takes.append(takes)
        self._next.append(list(after))
        return len(self._takes) - 1

    def _sequence(self, tree, after: int) -> int:
        for code, value in reversed(list(tree)):
            after = self._node(code, value, after)
        return after

    def _node(self, code, value, after: int) -> int:
        """The state that a node begins with, if `after` is what follows it."""
        if code in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN):
            return self._state(_accepts(code, value), after)
        if code is codes.BRANCH:
            return self._state(None, *(self._sequence(one, after) for one in value[1]))
        if code is codes.SUBPATTERN:
            if value[1] or value[2]:
                raise NotFollowed("flags")
            return self._sequence(value[3], after)
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            return self._repeat(*value, after)
        if code is codes.AT and value in (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING, codes.AT_END,
                                          codes.AT_END_STRING):
            state = self._state(None, after)
            self._anchors[state] = value in (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING)
            return state
        raise NotFollowed(str(code))

    def _repeat(self, least: int, most: int, tree, after: int) -> int:
        if most == codes.MAXREPEAT:
            loop = self._state(None, after)
            self._next[loop].append(self._sequence(tree, loop))
            after = loop
        else:
            end = after
            for _ in range(most - least):
                after = self._state(None, self._sequence(tree, after), end)
        for _ in range(least):
            after = self._sequence(tree, after)
            self._state()  # what is repeated may have no states of its own, and must come to an end all the same
        return after


def _accepts(code, value) -> _Accepts:
    if code is codes.ANY:
        return lambda char: char != "\n"
    if code is codes.LITERAL:
        return lambda char: ord(char) == value
    if code is codes.NOT_LITERAL:
        return lambda char: ord(char) != value
    inverted = value[0][0] is codes.NEGATE
    tests = [_member(*one) for one in value[inverted:]]
    return lambda char: any(test(char) for test in tests) != inverted


def _member(code, value) -> _Accepts:
    if code is codes.RANGE:
        return lambda char: value[0] <= ord(char) <= value[1]
    if code is codes.CATEGORY:
        return re.compile(_CATEGORIES[value]).match
    return lambda char: ord(char) == value
