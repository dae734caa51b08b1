"""ComfyUI's `loras` folders: several may stand side by side, and a name stands for the first one's file."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..loha import FileError
from ..loha.files.file_names import SUFFIX
from ..text import show


def folders() -> list[Path]:
    return [Path(one) for one in folder_paths.get_folder_paths("loras")]


def folder() -> Path:
    """Where new files go."""
    return folders()[0]


def names() -> list[str]:
    """The .safetensors files of all folders, as ComfyUI lists them."""
    return [name for name in folder_paths.get_filename_list("loras") if name.lower().endswith(SUFFIX)]


def path_of(name: str) -> str | None:
    r"""The file that a graph calls `name`, or None. A graph from Windows says `sub\x` for what is `sub/x` here."""
    return folder_paths.get_full_path("loras", _as_listed(name))


def find(name: str) -> str:
    """The file that a graph calls `name`.

    Raises:
        FileError: it is not in the list, or no longer there; the message names what is nearly called so.
    """
    listed = _as_listed(name)
    known = folder_paths.get_filename_list("loras")
    if listed not in known:
        raise FileError(f"'{show(name)}' is not in the models/loras folder; {_near(name)}put the file there and press "
                        "R to refresh the list. The help page of this node says where to get it.")
    if not listed.lower().endswith(SUFFIX):
        raise FileError(f"'{show(name)}' is not a .safetensors file; other formats can run code when they are read. "
                        "Convert it, or choose another.")
    path = folder_paths.get_full_path("loras", listed)
    if path is None or not os.path.lexists(path):
        raise FileError(f"'{show(name)}' was in the models/loras folder and is gone; put it back or choose another.")
    return path


def hidden_by(path: Path) -> Path | None:
    """What lies in another loras folder under the name that `path` has, or would have, in `folder()`.

    Every graph that names it would find `path` in its stead. None for places outside `folder()` too.
    """
    first = folder().resolve()
    if not path.resolve().is_relative_to(first):
        return None
    name = path.resolve().relative_to(first)
    others = (one.resolve() for one in folders())
    return next((other / name for other in others if other != first and os.path.lexists(other / name)), None)


def _as_listed(name: str) -> str:
    known = folder_paths.get_filename_list("loras")
    if name in known:
        return name
    plain = name.replace("\\", "/")
    return next((one for one in known if one.replace("\\", "/") == plain), name)


def _near(name: str) -> str:
    plain = name.replace("\\", "/").casefold()
    listed = names()
    close = [one for one in listed if one.replace("\\", "/").casefold() in (plain, plain + SUFFIX)] or [
        one for one in listed if one.replace("\\", "/").rpartition("/")[2].casefold() == plain.rpartition("/")[2]]
    return f"there is {', '.join(repr(show(one)) for one in close[:3])}. Choose it, or " if close else ""
