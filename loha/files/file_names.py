"""File names that people type: inside their folder, and usable on every system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...text import show
from ..errors import FileError
from . import tensor_names

SUFFIX = ".safetensors"
_MAX_PART = 200  # bytes; file systems allow 255, encrypted ones fewer
_FORBIDDEN = re.compile(r'[<>:"|?*]')
# Devices on Windows, whatever the extension.
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$",
            *(f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³")}


def resolve_name(folder: str | os.PathLike[str], name: str) -> Path:
    r"""Return where a file of this name lies in `folder`; `.safetensors` is added where it lacks.

    Subfolders may be given with / or \. The rules are the same on every system, so that a name
    that works here works where the file or the workflow goes next.

    Raises:
        FileError: the name leads out of the folder, or is no name on Windows, macOS or Linux.
    """
    parts = re.split(r"[\\/]", name if name.lower().endswith(SUFFIX) else name + SUFFIX)
    for part in parts:
        if flaw := _flaw(part):
            raise FileError(f"'{show(name)}' cannot be a file name: {flaw}. "
                            "Give a plain name such as 'my-loha', or 'folder/my-loha'.")
    base = Path(folder)
    target = base.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(base.resolve()):
        raise FileError(f"'{show(name)}' leads out of its folder through a link; choose a place inside it.")
    return target


def _flaw(part: str) -> str | None:
    stem = part.split(".")[0].strip()
    if part == "..":
        return "it leads out of its folder"
    if not stem:
        return "it is absolute, or a part of it is empty or begins with a dot"
    if found := _FORBIDDEN.search(part):
        return f"it holds {found[0]}, which Windows does not allow"
    if stem.upper() in _DEVICES:
        return f"{stem} is a device on Windows"
    # Without the suffix too: `x .safetensors` is a file, but its name without it, a run's folder, is none on Windows.
    bare = part[: -len(SUFFIX)] if part.lower().endswith(SUFFIX) else part
    if part != part.strip() or any(one != one.rstrip() or one.endswith(".") for one in (part, bare)):
        return "a part of it begins or ends with a space or ends with a dot"
    if len(part.encode("utf-8", "surrogatepass")) > _MAX_PART:
        return f"it is longer than {_MAX_PART} bytes"
    return "it holds control or text-direction characters" if tensor_names.flaw(part) else None
