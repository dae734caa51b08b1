"""Counting the tags of captions: for the metadata, and for the cast that a file carries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

from ....text import show
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
    for picture, caption in _once(index):
        counts[index.folder(picture).label].update(tag.lower() for tag in tags_of(caption))
    return {label: dict(_most(count)) for label, count in counts.items()}


def character_of(index: PictureIndex, picture: int) -> str | None:
    """Whom a picture shows: the folder's name where it was meant as one (`N_name`), elsewhere the first tag of the
    caption where `keep_tokens` says that the first tags matter; None where nobody can tell, and of regularisation
    pictures.
    """
    folder = index.folder(picture)
    if folder.options.is_reg:
        return None
    if folder.is_named:
        return folder.name
    tags = tags_of(index.captions[picture])
    return tags[0] if folder.options.captions.keep_tokens and tags else None


def pictures_by_character(index: PictureIndex) -> Counter[str]:
    """Character → pictures of hers, as `character_of` tells; one that is in several datasets counts once."""
    names = (character_of(index, picture) for picture, _ in _once(index))
    return Counter(name for name in names if name is not None)


def cast_of(index: PictureIndex) -> tuple[CastMember, ...]:
    """The characters, as `character_of` tells them, most pictures first.

    Tags are counted over pictures in lower case, ties go by the alphabet; the character's own name is not among its
    tags.
    """
    cards: Counter[str] = Counter()
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for picture, caption in _once(index):
        name = character_of(index, picture)
        if name is not None:
            cards[name] += 1
            tags[name].update({tag.lower() for tag in tags_of(caption) if _plain(tag) != _plain(name)})
    return tuple(
        CastMember(name, count, tuple(tag for tag, _ in _most(tags[name])[:CAST_TAGS]))
        for name, count in _most(cards)
    )


def few_pictures(pictures: Mapping[str, int]) -> list[str]:
    """A sentence for each character that has less than a quarter of the pictures that half of them have.

    Args:
        pictures: character → pictures.
    """
    if len(pictures) < 2:
        return []
    usual = median_high(pictures.values())
    return [f"{show(name)} has {count}, half of the {len(pictures)} characters have {usual} or more: learnt less well, "
            "and sooner by heart. Add pictures; or else repeats, by a folder N_name"
            for name, count in _most(pictures) if 4 * count < usual]


def _once(index: PictureIndex) -> Iterator[tuple[int, str]]:
    """Pictures with their captions; of a file that is in several datasets the first."""
    seen: set[tuple[Path, str]] = set()
    for picture, caption in enumerate(index.captions):
        file = index.folder(picture).path, index.names[picture]
        if file not in seen:
            seen.add(file)
            yield picture, caption


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _plain(tag: str) -> str:
    return tag.replace("_", " ").casefold()
