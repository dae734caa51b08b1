"""The cast that a trained file carries, written where the Character Prompt looks for casts."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ..characters import catalogue
from ..loha import FileError, Loha
from ..loha.errors import show
from ..loha.files.atomic import write_whole

_KEY = "shinymas_cast"


def write_cast(loha: Loha, user_directory: Path, name: str) -> Path:
    """Write `<user directory>/shinymas/NAME.yaml`, never over a file. `name` is a safe file name.

    Raises:
        FileError: the LoHa carries no cast, or the file exists or cannot be written.
        CastError: the cast would not be read back.
    """
    try:
        characters = json.loads(loha.metadata[_KEY])["characters"]
    except (KeyError, ValueError, TypeError) as error:
        raise FileError("write_cast is on, and this LoHa carries no cast: only files trained by Train LoHa do. "
                        "Turn it off.") from error
    path = user_directory / "shinymas" / f"{name}.yaml"
    text = yaml.safe_dump({"version": 1, "characters": characters}, allow_unicode=True, sort_keys=False)
    data = text.encode("utf-8")
    catalogue.parse(data, show(path.name), path.stem)
    write_whole(path, [data], overwrite=False)
    return path
