"""What a model version calls a character: the order of family and given name that it was trained with."""

from __future__ import annotations

import re

from .catalogue import Character, ModelVersion

_FIELD = re.compile(r"\{(family|given|name)\}")


def trigger_of(character: Character, version: ModelVersion | None) -> str:
    """The trigger of `character` in `version`; her name as it is where there is no version to ask.

    `{family} {given}`, `{given} {family}` and `{name}` stand in a cast's `models`; nothing else in braces does,
    which reading a cast has made sure of.
    """
    if version is None:
        return character.name
    text = _FIELD.sub(lambda field: getattr(character, field[1]), version.trigger)
    return " ".join(text.split())  # a name of one word has no family
