"""What a person should know of the captions, one fact a line."""

from __future__ import annotations

from collections.abc import Iterable

from ...text import show
from .looks import ALONE_WITH_OTHERS
from .summary import CharacterSummary, Statistics, TagCount

FEW_PICTURES = 10
_MOST_CHARACTERS = 200
_DISTINCTIVE, _DISTINCTIVE_SHARE = 5, 0.1
_COMBINATIONS = 3


def report_text(statistics: Statistics) -> str:
    """`key: value` lines: what was read, then for each character shares, what is distinctive, contradictions."""
    found = statistics.characters
    lines = [f"captions: {statistics.captions}", f"characters: {len(found)}, told apart by {statistics.told_by}"]
    if statistics.refused:
        lines.append(f"files that are no captions: {statistics.refused}: {'; '.join(statistics.examples)}")
    if statistics.nobody:
        lines.append(f"captions of nobody: {statistics.nobody}")
    if statistics.several:
        lines.append(f"captions of several, counted for each: {statistics.several}")
    if statistics.missed:
        lines.append(f"rare tags: dropped to bound the memory; a count may lack up to {statistics.missed} pictures")
    lines += statistics.notes
    for who in found[:_MOST_CHARACTERS]:
        lines += _of(who)
    if len(found) > _MOST_CHARACTERS:
        lines.append(f"note: {len(found) - _MOST_CHARACTERS} more characters are in `table` and `yaml`")
    return "\n".join(lines)


def _of(who: CharacterSummary) -> Iterable[str]:
    name = show(who.name)
    yield f"{name}: {who.pictures} {'picture' if who.pictures == 1 else 'pictures'}" + (
        ", few: expect a poor likeness" if who.pictures < FEW_PICTURES else "")
    if len(who.spellings) > 1:
        yield f"{name}, also spelt: {', '.join(map(show, who.spellings[1:]))}; counted as one"
    if who.tags:
        yield f"{name}, shares: {', '.join(f'{show(one.tag)} {one.share:.0%}' for one in who.tags)}"
        yield f"{name}, distinctive: {_distinctive(who.tags)}"
        yield f"{name}, identity: {', '.join(map(show, who.identity)) or 'none of these tags is about her looks'}"
    shares = {one.tag: one.share for one in who.tags}
    for kind, tags in who.in_list:
        said = ", ".join(f"{show(tag)} {shares[tag]:.0%}" for tag in tags)
        yield f"{name}, contradiction in the list, {kind}: {said}"
    kinds: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for kind, tags, count in who.in_captions:
        kinds.setdefault(kind, []).append((tags, count))
    for kind, combinations in kinds.items():
        said = ", ".join(f"{' + '.join(map(show, tags))} {count}" for tags, count in combinations[:_COMBINATIONS])
        more = ", …" if len(combinations) > _COMBINATIONS else ""
        # Which combinations there are is for a person to look for in the captions.
        total = sum(count for _, count in combinations)
        what = "solo among several" if kind == ALONE_WITH_OTHERS else f"two of {kind}"
        yield f"{name}, contradiction in {total} {'caption' if total == 1 else 'captions'}, {what}: {said}{more}"


def _distinctive(tags: Iterable[TagCount]) -> str:
    usual = [one for one in tags if one.share >= _DISTINCTIVE_SHARE and one.lift > 1]
    most = sorted(usual, key=lambda one: (-one.lift, one.tag))[:_DISTINCTIVE]
    return ", ".join(f"{show(one.tag)} × {one.lift:.1f}" for one in most) or "nothing is more frequent than elsewhere"
