"""Counting the tags of captions: for the metadata, and for the cast that a file carries."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from .captions import tags_of
from .index import PictureIndex

CAST_TAGS = 20  # as many as the model page lists for a character


@dataclass(frozen=True)
class CastMember:
    """A character found in the pictures: its name, number of pictures, most frequent tags first."""

    name: str
    cards: int
    tags: tuple[str, ...]


def tag_frequency(index: PictureIndex) -> dict[str, dict[str, int]]:
    """Folder's name → tag in lower case → pictures, as kohya's `ss_tag_frequency`; most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for picture, caption in enumerate(index.captions):
        counts[index.folder(picture).label].update(tag.lower() for tag in tags_of(caption))
    return {label: dict(_most(count)) for label, count in counts.items()}


def cast_of(index: PictureIndex) -> tuple[CastMember, ...]:
    """The characters, most pictures first.

    A folder with a name (`N_name`) is a character; elsewhere the first tag is one where
    `keep_tokens` says that the first tags matter, and nobody can tell otherwise. Tags are counted
    over pictures in lower case, ties go by the alphabet; the character's own name is not among its tags.
    """
    cards: Counter[str] = Counter()
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for picture, caption in enumerate(index.captions):
        folder = index.folder(picture)
        found = tags_of(caption)
        if folder.is_named:
            name = folder.name
        elif folder.options.captions.keep_tokens and found:
            name = found[0]
        else:
            continue
        cards[name] += 1
        tags[name].update({tag.lower() for tag in found if _plain(tag) != _plain(name)})
    return tuple(
        CastMember(name, count, tuple(tag for tag, _ in _most(tags[name])[:CAST_TAGS]))
        for name, count in _most(cards)
    )


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _plain(tag: str) -> str:
    return tag.replace("_", " ").casefold()
