"""The prompt of a character: pure, deterministic, final text for ComfyUI's text encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..text import show
from .catalogue import Cast, Character, fold
from .counts import COUNTS, SOLO, count_tag
from .errors import PromptError
from .tags import Tag, plain, split, tag_key
from .trigger import trigger_of
from .withheld import holds_any

QUALITY = "masterpiece, best quality"
# `nsfw` first, then what the makers of this model family recommend for it.
NEGATIVE = (
    "nsfw, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry"
)
TAG_SETS = ("identity", "top")
_FEW_CARDS = 10


@dataclass(frozen=True)
class Prompt:
    """What goes to the text encoder, for whom, and what a person should know of it."""

    positive: str
    negative: str
    character: Character
    notes: tuple[str, ...] = ()


def build(
    cast: Cast, character: Character, *, version: str = "v2.1", tag_set: str = "identity",
    max_tags: int = 20, weight: float = 1.0, before: str = "", after: str = "", exclude: str = "",
    previous: str = "", others: Iterable[Cast] = (),
) -> Prompt:  # fmt: skip
    """Return `previous, before, trigger, tags, after` as one prompt without duplicates.

    Args:
        version: a key of `cast.models`, which gives the trigger; the plain name where the cast lacks it.
        tag_set: `identity`, what the character looks like, then her count tags; `top`, her tags in order.
        max_tags: at most so many tags of hers; withheld, excluded and typed ones take no place.
        weight: of the trigger.
        before, after, exclude, previous: prompt text; `exclude` never appears, `previous` is another
            character's prompt, with which this one shares the picture.
        others: further casts whose characters may stand in `previous`.

    Raises PromptError where the model version does not know the character, or on an unusable value.
    """
    if tag_set not in TAG_SETS:
        raise PromptError(f"tag_set '{show(tag_set)}' is not one of {', '.join(TAG_SETS)}")
    if not math.isfinite(weight):
        raise PromptError(f"weight {weight} is not a number; 1 leaves the name as it is")
    trigger = _trigger(cast, character, version)
    typed = {name: split(text) for name, text in (("previous", previous), ("before", before), ("after", after))}
    excluded = frozenset(tag.key for tag in split(exclude))
    people = _people(character, typed, (cast, *others))
    own = [plain(tag) for tag in _candidates(character, tag_set)]

    gather = _Gatherer(people, excluded, cast.withheld)
    earlier = gather.take(typed["previous"])
    name = [] if trigger.key in gather.seen | excluded else [Tag(((trigger.text, weight),))]
    gather.seen.add(trigger.key)
    ahead, behind = gather.take(typed["before"]), gather.take(typed["after"])
    dropped = tuple(gather.dropped)
    # Typed tags come first here, so that a weight somebody gave wins over the list's plain tag.
    tags = gather.take(own, max_tags)
    count = gather.take([plain("1girl")]) if people > 1 else []
    positive = ", ".join(str(tag) for tag in (*earlier, *ahead, *count, *name, *tags, *behind))
    return Prompt(positive, NEGATIVE, character, (*_few_cards(character), *dropped))


class _Gatherer:
    """Lets each tag through once, mended to the number of people, unless it is excluded or withheld."""

    def __init__(self, people: int, excluded: frozenset[str], withheld: tuple[str, ...]) -> None:
        self.people, self.excluded, self.withheld = people, excluded, withheld
        self.seen: set[str] = set()
        self.dropped: list[str] = []

    def take(self, tags: list[Tag], limit: int | None = None) -> list[Tag]:
        taken: list[Tag] = []
        for tag in tags:
            mended = _mend(tag, self.people)
            if limit is not None and len(taken) >= limit:
                break
            if mended is None or mended.key in self.seen or {tag.key, mended.key} & self.excluded:
                continue
            if holds_any(mended.text, self.withheld):
                self.dropped.append(f"withheld: '{show(mended.text)}' left out")
                continue
            self.seen.add(mended.key)
            taken.append(mended)
        return taken


def _trigger(cast: Cast, character: Character, version: str) -> Tag:
    model = cast.models.get(version)
    if model is not None and character.name in model.without:
        raise PromptError(
            f"{version} does not know {character.name}: {model.reason or 'it was not trained on her'}. "
            "Choose another model version or another character"
        )
    text = trigger_of(character, model)
    if holds_any(text, cast.withheld):
        raise PromptError(f"the trigger '{show(text)}' holds a withheld tag; rename the character")
    return plain(text)


def _candidates(character: Character, tag_set: str) -> tuple[str, ...]:
    if tag_set == "top" or not character.identity:
        return character.tags
    counts = (tag for tag in character.tags if tag_key(tag) in COUNTS or tag_key(tag) == SOLO)
    return (*character.identity, *counts)


def _people(character: Character, typed: dict[str, list[Tag]], casts: Iterable[Cast]) -> int:
    """How many people the prompt speaks of: characters by name, or by what a typed count tag says."""
    names = {
        fold(name): known.name
        for cast in casts
        for known in cast.characters
        for name in (known.name, f"{known.given} {known.family}")
    }

    def found(part: str) -> set[str]:
        return {names[fold(tag.text)] for tag in typed[part] if fold(tag.text) in names}

    def counted(part: str) -> int:
        return max((COUNTS.get(tag.key, 0) for tag in typed[part]), default=0)

    earlier = found("previous")
    joins = 0 if character.name in earlier else 1
    everyone = earlier | found("before") | found("after") | {character.name}
    return max(len(everyone), counted("previous") + joins, counted("before"), counted("after"))


def _mend(tag: Tag, people: int) -> Tag | None:
    """The tag itself, the right count tag in a wrong one's place, or None for one that contradicts."""
    if tag.key == SOLO:
        return tag if people == 1 else None
    if tag.key not in COUNTS:
        return tag
    if people == 1:
        return tag if tag.key == "1girl" else None
    return plain(count_tag(people))


def _few_cards(character: Character) -> tuple[str, ...]:
    if character.cards is None or character.cards >= _FEW_CARDS:
        return ()
    return (f"warning: {character.name} was learnt from {character.cards} cards only; expect a poor likeness",)
