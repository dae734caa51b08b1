"""Masks: which file is whose, and whether it fits its picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....text import show
from ...errors import FileError
from ...files.opening import reason
from .buckets import Size
from .contents import Examined
from .folders import LEADS_OUT, ImageFolder, MayRead
from .pictures import PICTURE_ENDINGS, PictureError

_SHOWN = 10


@dataclass(frozen=True)
class Mask:
    """A file whose red channel says how much each place of a picture counts.

    Args:
        content: the first 16 bytes of the sha256 of the file.
    """

    path: Path
    content: bytes


def mask_files(folder: ImageFolder, may_read: MayRead) -> dict[str, Path]:
    """The masks for a folder's pictures by their names without ending; of several of one name the first.

    Raises:
        FileError: the folder for masks is missing or cannot be listed.
    """
    masks = folder.options.masks
    if masks is None:
        return {}
    try:
        names = sorted(os.listdir(masks), reverse=True)
    except (OSError, ValueError) as error:
        raise FileError(f"{show(masks, 200)}: this folder of masks cannot be read ({show(reason(error))}). Give the "
                        "folder that holds them.") from error
    found = {}
    for name in names:
        stem, ending = os.path.splitext(name)
        path = Path(masks) / name
        if ending.lower() in PICTURE_ENDINGS and not name.startswith("."):
            if path.is_symlink() and not may_read(path):
                raise FileError(f"{show(path, 200)}: {LEADS_OUT}. Put the mask itself there.")
            found[stem] = path
    return found


def mask_of(picture: Path, size: Size, path: Path | None, found: Examined | PictureError | None) -> Mask | str:
    """A picture's mask, or a sentence on why there is none.

    Args:
        size: width and height of the picture.
        path, found: the mask's file, where there is one, and what was found in it.
    """
    if path is None or found is None:
        return f"{show(picture, 200)}: no mask of its name"
    if isinstance(found, PictureError):
        return str(found)
    if (found.width, found.height) != size:
        return (f"{show(path, 200)}: {found.width}×{found.height}, and its picture has {size[0]}×{size[1]}: a mask is "
                "as large as its picture")
    return Mask(path, found.content)


def refuse_unmasked(problems: Sequence[str]) -> None:
    """Raise `FileError` where pictures of a folder with masks have none that can be used."""
    if problems:
        more = [f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise FileError("\n".join([f"{len(problems)} picture(s) have no mask that can be used, and their folder is "
                                   "trained with masks (conditioning_data_dir):", *problems[:_SHOWN], *more]))
