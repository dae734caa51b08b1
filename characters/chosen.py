"""The tags that a person chose for a character: `Kazano Hiori: black hair, (mole:1.2)`, as the picker writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..text import show
from .catalogue import Character, fold, name_keys
from .tags import Tag, plain, split, tag_key
from .withheld import holds_any

# A name may hold none of these, or it is found as the character's own only.
_NAME = re.compile(r"\s*([^,()\[\]{}:]+):(?:\s|$)")


def chosen_tags(text: str, who: Character, withheld: Iterable[str]) -> tuple[tuple[Tag, ...] | None, tuple[str, ...]]:
    """What `text` chooses of the tags of `who`, and notes. None: it says nothing of her, `tag_set` counts.

    A name in front says for whom it was chosen, so that a choice does not go over to the next character; without
    one it counts for everybody. A name and a colon alone choose no tags at all.
    """
    text = text.strip()
    rest = _of_her(text, who)
    if rest is None:
        other = _NAME.match(text)
        if other:
            return None, (f"tags: they were chosen for {show(other[1])}; {show(who.name)} has those of tag_set",)
        rest = text
    elif not rest:
        return (), ()
    hers = {tag_key(tag): tag for tag in who.tags}
    chosen, notes = [], []
    for tag in split(rest):
        if holds_any(tag.text, withheld):
            notes.append(f"withheld: '{show(tag.text)}' left out")
        elif tag.key in hers:
            chosen.append(plain(hers[tag.key], tag.weights[0]))
        else:
            notes.append(f"tags: '{show(tag.text)}' is not one of {show(who.name)}'s; type it into after")
    return tuple(chosen) or None, tuple(notes)


def _of_her(text: str, who: Character) -> str | None:
    """What stands behind her name and a colon, None where her name does not stand in front."""
    if text.startswith(f"{who.name}:"):
        return text[len(who.name) + 1:].strip()
    named = _NAME.match(text)
    return text[named.end():].strip() if named and fold(named[1]) in name_keys(who) else None
