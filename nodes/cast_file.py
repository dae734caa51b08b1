"""A person's own cast, written where the Character Prompt finds it."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..characters import catalogue
from ..loha import FileError, files
from ..loha.files.atomic import write_whole


def cast_path(name: str) -> Path:
    """Where the cast called `name` lies. Raises FileError where that is no plain file name."""
    folder = Path(folder_paths.get_user_directory()) / "shinymas"
    path = files.resolve_name(folder, name)
    if path.parent != folder:
        raise FileError(f"a cast lies in {folder} itself; take the folder out of the name")
    return path.with_suffix(".yaml")


def write_cast(name: str, data: bytes) -> Path:
    """Write a cast file, never over one.

    Raises:
        FileError: a cast of this name exists, or the file cannot be written.
        CastError: the cast would not be read back.
    """
    path = cast_path(name)
    catalogue.parse(data, path.name, path.stem)
    other = path.with_suffix(".yml")
    if other.exists():
        raise FileError(f"{other.name}: exists already and is this cast; choose another name.")
    write_whole(path, [data], overwrite=False)
    return path
