"""What the cast's catalogue knows of a file: the model version by its sha256, and its trigger format."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..characters import DEFAULT_CAST, load_casts, trigger_of
from ..loha import Loha


def version_lines(loha: Loha) -> list[str]:
    """`version:` and, where it is known, `trigger:` with an example."""
    cast = load_casts(Path(folder_paths.get_user_directory())).get(DEFAULT_CAST)
    known = cast.recognise(loha.source.sha256) if loha.source else None
    if known is None:
        return ["version: not recognised"]
    name, checkpoint = known
    version = cast.models[name]
    example = cast.members(name)[0]
    return [f"version: {name} ({checkpoint})",
            f"trigger: {version.trigger}, such as {trigger_of(example, version)}"]
