"""What the cast's catalogue knows of a file: the model version by its sha256, and its trigger format."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..characters import load_casts, trigger_of
from ..loha import Loha


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
