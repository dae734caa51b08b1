"""`preprocess.json`: the steps between a picture and a tagger, as data.

The format is that of deepghs' exports of torchvision transforms (pixai v0.9 and its kin): {"stages": [{"type": …}, …]},
or the list under "test".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..loha.errors import FileError
from ..text import show
from .preprocessing import Prepare, letterboxed, normalised
from .text_files import read_json

MAX_SIDE = 2048  # pixels of a tagger's input; those of today have 512 at most

_RESAMPLING = {name.lower(): getattr(Image.Resampling, name)
               for name in ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")}
# PIL's numbers too, which older exports have.
_RESAMPLING |= {int(one): one for one in Image.Resampling}

_Step = Callable[[Image.Image], Image.Image]


def read_stages(path: Path) -> tuple[Prepare, int]:
    """What `preprocess.json` does to a picture, and the side of the square that comes out.

    Raises:
        FileError: no such JSON; a step that is not known or lacks something; none that normalises; not a square.
    """
    found = read_json(path)
    stages = (found.get("stages") or found.get("test")) if isinstance(found, dict) else None
    if not isinstance(stages, list) or not stages:
        raise FileError(f"{show(path.name)}: holds no list of steps under 'stages'; get the file anew.")
    try:
        steps, size, norm = _steps(stages)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{show(path.name)}: a step cannot be understood ({show(error, 120)}); get the file "
                        "anew.") from error
    if size is None or size[0] != size[1] or not 1 <= size[0] <= MAX_SIDE:
        raise FileError(f"{show(path.name)}: its steps do not end with a square of 1 to {MAX_SIDE} pixels.")

    def prepare(image: Image.Image, side: int) -> np.ndarray:
        for step in steps:
            image = step(image)
        return normalised(image, *norm)

    return prepare, size[0]


def _steps(stages: list) -> tuple[list[_Step], tuple[int, int] | None, tuple[tuple, tuple]]:
    steps: list[_Step] = []
    size: tuple[int, int] | None = None
    norm = ((0.0,) * 3, (1.0,) * 3)
    for stage in stages:
        kind = stage["type"]
        if kind in _SIZED:
            sides = _size(stage["size"])
            steps.append(_SIZED[kind](stage, sides))
            size = sides if kind != "resize" or _is_pair(stage["size"]) else None
        elif kind == "normalize":
            norm = tuple(_three(stage[name]) for name in ("mean", "std"))
            if not all(norm[1]):
                raise ValueError("a deviation of 0")
        elif kind not in ("to_tensor", "maybe_to_tensor", "convert_rgb"):  # those are done in any case
            raise ValueError(f"'{show(kind)}' is not known")
    return steps, size, norm


def _resize(stage: Mapping[str, Any], size: tuple[int, int]) -> _Step:
    resample = _RESAMPLING[stage.get("interpolation", "bilinear")]
    if _is_pair(stage["size"]):
        return lambda image: image.resize(size, resample)
    # One number, torchvision's way: the shorter side.
    return lambda image: image.resize(
        tuple(int(size[0] * own / min(image.size)) for own in image.size), resample)


def _pad_to_size(stage: Mapping[str, Any], size: tuple[int, int]) -> _Step:
    resample = _RESAMPLING[stage.get("interpolation", "bilinear")]
    fill = stage.get("background_color", "white")
    fill = tuple(fill) if isinstance(fill, list) else fill
    Image.new("RGB", (1, 1), fill)  # an unknown colour is said now
    return lambda image: letterboxed(image, size, resample, fill)


def _center_crop(stage: Mapping[str, Any], size: tuple[int, int]) -> _Step:
    def crop(image: Image.Image) -> Image.Image:
        left, top = (round((own - side) / 2) for own, side in zip(image.size, size, strict=True))
        return image.crop((left, top, left + size[0], top + size[1]))

    return crop


_SIZED: dict[str, Callable[[Mapping[str, Any], tuple[int, int]], _Step]] = {
    "resize": _resize, "pad_to_size": _pad_to_size, "center_crop": _center_crop,
}


def _is_pair(given: object) -> bool:
    return isinstance(given, list) and len(given) == 2


def _size(given: int | list[int]) -> tuple[int, int]:
    """(width, height) out of a side, or out of (height, width)."""
    sides = [int(side) for side in given] if isinstance(given, list) else [int(given)]
    if len(sides) not in (1, 2) or not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"a size of {show(given)}")
    return sides[-1], sides[0]


def _three(given: float | list[float]) -> tuple[float, ...]:
    values = tuple(float(one) for one in given) if isinstance(given, list) else (float(given),) * 3
    if len(values) != 3 or not np.isfinite(values).all():
        raise ValueError(f"{show(given)} where three numbers belong")
    return values
