"""What a model file itself says of the names it was trained with: the one rule by which the triggers are chosen.

By the file's hash where a cast knows it; else by the tags that its trainer counted (`ss_tag_frequency`), where the
names of a cast stand in one order or the other; else by the model version that a person chose. Where the file
contradicts that choice, the file is right, and a note says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..text import show
from .catalogue import Cast, Character, ModelVersion, fold, name_keys
from .tag_frequency import read_tag_frequency
from .tags import plain
from .trigger import trigger_of
from .withheld import holds_any

_LONGEST = 100  # characters of a name
_MOST_NAMES, _MOST_TAGS = 500, 30_000  # that are shown, and that are looked through for them
_ORDERS = {"family first": "{family} {given}", "given first": "{given} {family}"}


@dataclass(frozen=True)
class FileNames:
    """How a file calls people.

    Args:
        version: the model version to build prompts for.
        model: that version, as the file has it; None where only the cast's own is known.
        spelled: folded name → the text in the file's tags, most frequent first.
        notes: where the file contradicts what was chosen.
    """

    version: str
    model: ModelVersion | None = None
    spelled: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def cast_for(self, cast: Cast, who: Character) -> Cast:
        """The cast with this file's version in it, to build the prompt of `who` by."""
        model = self.model or cast.models.get(self.version)
        hers = [text for key, text in self.spelled.items() if key in name_keys(who)]
        if hers and fold(trigger_of(who, model)) not in self.spelled:
            model = replace(model or ModelVersion(self.version, ""), trigger=hers[0])
        if model is None:
            return cast
        if hers:  # the file has seen her, whatever the version is said to know
            model = replace(model, without=tuple(name for name in model.without if name != who.name))
        return replace(cast, models=MappingProxyType({**cast.models, self.version: model}))


def names_in_file(casts: Iterable[Cast], version: str, sha256: str, metadata: Mapping[str, str]) -> FileNames:
    """What a file says, against the chosen `version`.

    Args:
        casts: whose hashes and names are looked for; the one in use first.
        sha256: of the file, "" for one that was never saved.
        metadata: the file's own, strings only; any of it may be a stranger's nonsense.
    """
    casts = tuple(casts)
    for cast in casts:
        known = cast.recognise(sha256) if sha256 else None
        if known is not None:
            return _by_hash(cast.models[known[0]], known[1], version)
    counted = _counted(metadata)
    return _by_tags(casts, _people(casts), counted, version) if counted else FileNames(version)


def trigger_words(casts: Iterable[Cast], sha256: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Character → what the file calls her, of all whom it is known to have been trained on.

    By its hash, else by the names in its tags, else by the cast that Train LoHa left in it. Arguments as
    `names_in_file`'s.
    """
    casts = tuple(casts)
    for cast in casts:
        known = cast.recognise(sha256) if sha256 else None
        if known is not None:
            return {who.name: trigger_of(who, cast.models[known[0]]) for who in cast.members(known[0])}
    people = _people(casts)
    counted = _counted(metadata)
    spelled = _spelled(people, Counter(dict(counted.most_common(_MOST_TAGS))))
    written = ((who.name, next((text for key, text in spelled.items() if key in name_keys(who)), "")) for who in people)
    found = {name: text for name, text in written if text}
    withheld = tuple(tag for cast in casts for tag in cast.withheld)
    own = _own_cast(metadata.get("shinymas_cast", ""))
    return found or {name: name for name in own if not holds_any(name, withheld)}


def _counted(metadata: Mapping[str, str]) -> Counter[str]:
    """Tag → count over all folders of an `ss_tag_frequency`, empty where it is none."""
    counted: Counter[str] = Counter()
    for tags in read_tag_frequency(metadata.get("ss_tag_frequency", "")).values():
        counted.update(tags)
    return counted


def _people(casts: tuple[Cast, ...]) -> tuple[Character, ...]:
    return tuple({character.name: character for cast in casts for character in cast.characters}.values())


def _own_cast(text: str) -> list[str]:
    """The names in a file's `shinymas_cast`, [] where it is none."""
    try:
        names = [member["name"] for member in json.loads(text)["characters"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str) and len(name) <= _LONGEST][:_MOST_NAMES]


def _by_hash(model: ModelVersion, checkpoint: str, chosen: str) -> FileNames:
    note = (f"note: the file is {model.name} ({checkpoint}) by its hash; model_version says {show(chosen)} and is not "
            "used")
    return FileNames(model.name, model, notes=() if model.name == chosen else (note,))


def _by_tags(casts: tuple[Cast, ...], people: tuple[Character, ...], counted: Counter[str],
             chosen: str) -> FileNames:
    model = next((cast.models[chosen] for cast in casts if chosen in cast.models), None)
    order = _order_of(model)
    if model is not None and order is None:  # a trigger of its own kind, which no order of names contradicts
        return FileNames(chosen, model)
    spelled = _spelled(people, counted)
    folded = Counter()
    for tag, count in counted.items():
        folded[fold(tag)] += count
    found = {order: sum(folded[fold(template.format(family=who.family, given=who.given))]
                        for who in people if who.family and who.given) for order, template in _ORDERS.items()}
    first, second = sorted(found, key=found.get, reverse=True)
    if found[first] == found[second]:  # nobody, or as often the one as the other
        return FileNames(chosen, model, spelled)
    notes = []
    if found[second]:
        notes.append(f"note: the file's tags write the names {first} {found[first]} times and {second} "
                     f"{found[second]} times; they are written {first}")
    if order not in (None, first):
        notes.append(f"note: the file's tags (ss_tag_frequency) write the names {first}; model_version "
                     f"{show(chosen)} would write them {second} and is not followed")
    own = replace(model or ModelVersion(chosen, ""), trigger=_ORDERS[first])
    return FileNames(chosen, own, spelled, tuple(notes))


def _spelled(people: tuple[Character, ...], counted: Counter[str]) -> dict[str, str]:
    """Folded name → how the file writes it, most frequent first; what could not be a trigger is not taken over."""
    keys = frozenset(key for character in people for key in name_keys(character))
    spelled: dict[str, str] = {}
    for tag, _ in counted.most_common():
        text = plain(tag).text
        if len(text) <= _LONGEST and fold(text) in keys and text.isprintable() and not set("{},") & set(text):
            spelled.setdefault(fold(text), text)
    return spelled


def _order_of(model: ModelVersion | None) -> str | None:
    """Which of the two orders a version's trigger has; None for a trigger of another kind."""
    return next((order for order, template in _ORDERS.items() if model and template == model.trigger), None)
