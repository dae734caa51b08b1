"""What reading a configuration has found, for one message that says all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ....text import show
from ...errors import SettingsError
from .keys import KEYS, Key, Part
from .toml import as_toml


@dataclass
class Findings:
    """Everything to be said of a configuration's keys, in the file's order.

    Args:
        refused: sentences on what must be changed before anything can be trained.
        ignored: (key, why it changes nothing here).
        unused: keys whose values ask for nothing.
        unknown: keys that nobody here knows.
        notes: further sentences.
    """

    refused: list[str] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, key: str, value: Any, why: str, where: str = "") -> None:
        self._add(self.refused, f"{show(key)} = {as_toml(value)}{where}: {why}")

    def _refuse_switch(self, key: str, row: Key, value: Any, where: str = "") -> None:
        """A key that can only be off, or the one thing that is done here."""
        off = "" if row.default is None else f", or write {key} = {as_toml(row.default)}"
        self.refuse(key, value, f"{row.why}. {row.instead or f'Take it out{off}'}", where)

    def ignore(self, key: str, why: str) -> None:
        self._add(self.ignored, (key, why))

    def note(self, text: str) -> None:
        self._add(self.notes, text)

    def asked_for(self, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The keys of a table that become settings, or parts of them; all others are told here.

        Args:
            where: the table's place in the file, as the end of a sentence.
        """
        asked: dict[str, Any] = {}
        for key, value in values.items():
            row = KEYS.get(key)
            if row is None:
                self._add(self.unknown, key)
            elif row.asks_for_nothing(value) and row.when_off is None:
                self._add(self.unused, key)
            elif row.part is Part.IGNORED:
                self.ignore(key, row.why)
            elif row.part in (Part.REFUSED, Part.REFUSED_PICTURES):
                self._refuse_switch(key, row, value, where)
            else:
                asked[key] = row.when_off if row.asks_for_nothing(value) else value
        return asked

    def lines(self) -> list[str]:
        """`kind: …` lines of everything but what was refused; names from the file are escaped."""
        together: dict[str, list[str]] = {}
        for key, why in self.ignored:
            together.setdefault(why, []).append(show(key))
        lines = [f"note: {text}" for text in self.notes]
        lines += (f"ignored: {', '.join(keys)}: {why}" for why, keys in together.items())
        if self.unused:
            lines.append(f"off, or as it is anyway: {', '.join(map(show, self.unused))}")
        return lines + [f"unknown: {show(key)}{_meant(key)}" for key in self.unknown]

    @staticmethod
    def _add(to: list, one: Any) -> None:
        # A dataset's folders say the same key several times.
        if one not in to:
            to.append(one)


def demand_nothing_refused(*read: tuple[str, Findings]) -> None:
    """Raise `SettingsError` where anything is refused, with all that was found.

    Args:
        read: of each file, how a message calls it and its findings.
    """
    texts = []
    for origin, found in read:
        if many := len(found.refused):
            texts.append(f"{origin} cannot be run as it is, {many} {'thing' if many == 1 else 'things'} to change:")
            texts += (f"refused: {text}" for text in found.refused)
            texts += found.lines()
    if texts:
        raise SettingsError("\n".join(texts))


def _meant(key: str) -> str:
    close = get_close_matches(key, KEYS, 1, 0.85)
    return f" (did you mean {close[0]}?)" if close else ""
