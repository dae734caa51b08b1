"""What the casts and a file know of each other: the model version, and how it calls people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import folder_paths

from ..characters import Cast, Casts, load_casts, trigger_of
from ..characters.from_file import FileNames, names_in_file, trigger_words
from ..loha import Loha
from ..text import show


def version_lines(loha: Loha) -> list[str]:
    """`version:` and, where it is known, `trigger:` with an example."""
    if loha.source:
        for cast in load_casts(Path(folder_paths.get_user_directory())).by_name.values():
            known = cast.recognise(loha.source.sha256)
            if known is not None:
                version = cast.models[known[0]]
                members = [one for one in cast.characters if one.name not in version.without]
                example = f", such as {trigger_of(members[0], version)}" if members else ""
                return [f"version: {version.name} ({known[1]})", f"trigger: {version.trigger}{example}"]
    return ["version: not recognised"]


class FileSays(NamedTuple):
    """What of a LoHa tells how it calls people: its hash, "" where it was never saved, and its metadata."""

    sha256: str
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, loha: Loha | None) -> FileSays | None:
        return None if loha is None else cls(loha.source.sha256 if loha.source else "", loha.metadata)


def words_of(loha: Loha) -> list[list[str]]:
    """[character, trigger] of everyone whom the file is known to have been trained on, fit to be shown."""
    casts = load_casts(Path(folder_paths.get_user_directory())).by_name.values()
    found = trigger_words(casts, *FileSays.of(loha))
    return [[show(name), show(word)] for name, word in found.items()]


def names_of(says: FileSays | None, casts: Casts, chosen: Cast, version: str) -> FileNames:
    """What the connected LoHa says of its names; what the chosen version says without one."""
    if says is None:
        return FileNames(version)
    others = (cast for cast in casts.by_name.values() if cast is not chosen)
    return names_in_file((chosen, *others), version, *says)
