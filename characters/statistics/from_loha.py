"""Counts out of a LoHa's metadata: what its trainer counted, folder by folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..catalogue import fold
from ..errors import CastError
from ..tag_frequency import read_tag_frequency
from .captions import name_key, name_of, tag_of
from .counting import BY_FOLDER, BY_NAME
from .folders import split_label
from .tallies import Place, Tallies

_MOST = 2**40


def count_metadata(metadata: Mapping[str, str], told_by: str, names: Mapping[str, str]) -> Tallies:
    """The counts of `ss_tag_frequency`, with the pictures of each folder from `ss_dataset_dirs`.

    Told apart by names, only how often each stands there is known: which tags stood beside it is not in the file.

    Raises CastError where the file counted nothing, or asks for the first tag, which it does not know.
    """
    frequency = read_tag_frequency(metadata.get("ss_tag_frequency", ""))
    if not frequency:
        raise CastError("the LoHa's metadata has no ss_tag_frequency: its trainer counted no tags, or a tool took them "
                        "out. Give the folder of the captions instead")
    if told_by not in (BY_FOLDER, BY_NAME):
        raise CastError("a LoHa's ss_tag_frequency does not say which tag came first; choose 'folder', or 'name in "
                        "tags'")
    tallies = Tallies(told_by)
    folders = _object(metadata.get("ss_dataset_dirs", ""))
    for label, counted in frequency.items():
        said = folders.get(label) if isinstance(folders.get(label), dict) else {}
        pictures = max(_whole(said.get("img_count")), *counted.values())
        tags: Counter[str] = Counter()
        for piece, count in counted.items():
            if tag := tag_of(piece):  # two spellings may have stood in one caption
                tags[tag] = min(tags[tag] + count, pictures)
        tallies.captions += pictures
        repeats, name = split_label(label)
        repeats = _whole(said.get("n_repeats")) or repeats or 1
        if told_by == BY_NAME:
            hers = _names(tallies, tags, names)
        else:
            hers = Counter(dict.fromkeys(_folder(tallies, tags, name_of(name), pictures), pictures))
        tallies.nobody += 0 if hers else pictures
        tallies.places.append(Place(label, repeats, pictures, ".txt", hers))
    if told_by == BY_NAME:
        tallies.notes.append("note: the file does not say which tags stood beside a name: choose 'folder' for tags")
    if not folders:
        tallies.notes.append("note: how many pictures a folder had is not in the file: as many as its top tag")
    tallies.bound()
    return tallies


def _folder(tallies: Tallies, tags: Counter[str], name: str, pictures: int) -> list[str]:
    if not name:
        return []
    tally = tallies.of(name)
    tally.pictures += pictures
    tally.tags.update(tags)
    tally.add_name(name, pictures)
    return [name_key(name)]


def _names(tallies: Tallies, tags: Counter[str], names: Mapping[str, str]) -> Counter[str]:
    hers: Counter[str] = Counter()
    for tag, count in tags.items():
        if name := names.get(fold(tag)):
            tally = tallies.of(name)
            tally.pictures += count
            tally.add_name(name, count)
            hers[name_key(name)] += count
    return hers


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0
