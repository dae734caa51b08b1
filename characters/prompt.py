"""The prompt of a character: pure, deterministic, final text for ComfyUI's text encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..text import show
from .catalogue import Cast, Character, fold, name_keys
from .chosen import chosen_tags
from .errors import PromptError
from .parts import Entry, Part, join, network_notes, parts_of, twice, typed_entries
from .people import count, count_word, full_names, is_count, mend, names_of
from .safe_yaml import MAX_TEXT
from .tags import Piece, Tag, plain, split, tag_key
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
    """What goes to the text encoder, for whom, and what a person should know of it.

    `own` are the character's own tags: the chosen ones, else those that `tag_set` put in.
    """

    positive: str
    negative: str
    character: Character
    notes: tuple[str, ...] = ()
    own: tuple[Tag, ...] = ()


def build(
    cast: Cast, character: Character, *, version: str = "v2.1", tag_set: str = "identity",
    max_tags: int = 20, weight: float = 1.0, before: str = "", after: str = "", exclude: str = "",
    previous: str = "", others: Iterable[Cast] = (), tags: str = "",
) -> Prompt:  # fmt: skip
    """Return `previous, before, trigger, tags, after` as one prompt without duplicates.

    Args:
        version: a key of `cast.models`, which gives the trigger; the plain name where the cast lacks it.
        tag_set: `identity`, what the character looks like, then her count tags; `top`, her tags in order.
        max_tags: at most so many tags of hers; withheld, excluded and typed ones take no place.
        weight: of the trigger, unless a weight is typed on the name itself.
        before, after, exclude, previous: prompt text; `exclude` never appears, `previous` is another
            character's prompt, with which this one shares the picture. The syntax of other programs in it is
            kept to the letter, and a `BREAK`, `AND` or `COUPLE(…)` ends the part in which a tag stands once.
        others: further casts whose characters may stand in `previous`.
        tags: a choice of her tags (see `chosen_tags`) that takes the place of `tag_set` and `max_tags`.

    Raises PromptError where the model version does not know the character, or on an unusable value.
    """
    if tag_set not in TAG_SETS:
        raise PromptError(f"tag_set '{show(tag_set)}' is not one of {', '.join(TAG_SETS)}")
    if not math.isfinite(weight):
        raise PromptError(f"weight {weight} is not a number; 1 leaves the name as it is")
    trigger = _trigger(cast, character, version)
    ahead = typed_entries((("previous", previous), ("before", before)))
    entries = ahead + typed_entries((("after", after),))
    parts = parts_of(entries)
    mine = sum(entry.piece.divides for entry in ahead)
    names = names_of((cast, *others))
    people = [count(part.said(), names, character if at == mine else None) for at, part in enumerate(parts)]
    excluded = frozenset(tag.key for tag in split(exclude))

    name, notes = (None, []) if trigger.key in excluded else _name(parts[mine], trigger, weight, character)
    for part, several in zip(parts, people, strict=True):
        notes += part.settle(several, excluded, cast.withheld)
    # Typed tags came first, so that a weight somebody gave wins over the list's plain tag.
    taken = _Taken(parts[mine], {trigger.key}, excluded, cast.withheld, people[mine], max(people))
    chosen, said = chosen_tags(tags, character, cast.withheld)
    own = taken.take(map(plain, _candidates(character, tag_set)), max_tags) if chosen is None else taken.take(chosen)
    number = taken.take([plain("1girl")], 1) if people[mine] > 1 else []
    middle = [Entry("", Piece(str(tag), (tag,)), [tag]) for tag in (*number, *([name] if name else []), *own)]
    positive = join((*ahead, *middle, *entries[len(ahead):]))
    notes = (*_likeness(cast, character, version), *notes, *said, *network_notes(entries))
    return Prompt(positive, NEGATIVE, character, notes, tuple(own) if chosen is None else chosen)


def _name(part: Part, trigger: Tag, weight: float, character: Character) -> tuple[Tag | None, list[str]]:
    """The trigger with its weight, typed names taken out for it; None where it stands in `previous` like that.

    Of several weights the last counts, in the order previous, widget, before, after; a name without one says none.
    """
    full = full_names(character) | {fold(trigger.text)}
    names = {"previous": full, "before": full | name_keys(character), "after": full | name_keys(character)}
    there = [found for found in part.tags() if not found[2].foreign and fold(found[2].text) in names[found[0].field]]
    earlier = [tag.weights for entry, _, tag in there if entry.field == "previous"]
    typed = [tag.weights for entry, _, tag in there if entry.field != "previous"]
    given = [weights for weights in (*earlier, (weight,), *typed) if weights != (1.0,)]
    given = [weights for weights, former in zip(given, (None, *given), strict=False) if weights != former]
    final = given[-1] if given else (1.0,)
    stays = bool(earlier) and earlier[-1] == final
    for entry, at, _ in there:
        if entry.field != "previous" or not stays:
            entry.kept[at] = None
    notes = [twice(trigger.text, given)] if len(given) > 1 else []
    return None if stays else Tag(((trigger.text, final[0]),)), notes


@dataclass
class _Taken:
    """Lets a character's own tags through: what is in the part already, excluded or withheld is not said again."""

    part: Part
    seen: set[str]
    excluded: frozenset[str]
    withheld: tuple[str, ...]
    people: int
    everywhere: int

    def take(self, tags: Iterable[Tag], limit: float = math.inf) -> list[Tag]:
        seen = self.seen | self.part.keys()
        word = count_word(self.people, [tag for tags in self.part.said().values() for tag in tags])
        taken: list[Tag] = []
        for tag in tags:
            mended = None if tag.key == "solo" and self.everywhere > 1 else mend(tag, self.people, word)
            if len(taken) >= limit:
                break
            if mended is None or mended.key in seen or {tag.key, mended.key} & self.excluded:
                continue
            if not holds_any(mended.text, self.withheld):
                seen.add(mended.key)
                taken.append(mended)
        self.seen = seen
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
    return (*character.identity, *(tag for tag in character.tags if is_count(tag_key(tag))))


def _likeness(cast: Cast, character: Character, version: str) -> list[str]:
    """What is to be expected of a likeness."""
    model = cast.models.get(version)
    notes = [f"note: {show(model.note, MAX_TEXT)}"] if model is not None and model.note else []
    if character.cards is not None and character.cards < _FEW_CARDS:
        notes.append(f"warning: {character.name} was learnt from {character.cards} cards only; expect a poor likeness")
    return notes
