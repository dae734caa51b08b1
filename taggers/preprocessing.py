"""What a picture becomes before a tagger sees it: each layout as its own authors feed it.

A picture is 8-bit RGB, transparency already on white; a prepared one is float32, (size, size, 3) or (3, size, size).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image

Prepare = Callable[[Image.Image, int], np.ndarray]

_WHITE = 255
# The mean of ImageNet in 8 bits, with which camie's authors fill up.
_CAMIE_FILL = (124, 116, 104)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def wd(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3), BGR, 0–255: padded to a white square, then brought to size: by area down, by Lanczos up.

    Source: `finetune/tag_images_by_wd14_tagger.py` of kohya's sd-scripts, which tagged the model page's pictures.
    """
    if max(image.size) > size:
        pixels = _shrunk_on_white(np.asarray(image), size)
    else:
        pixels = np.asarray(_on_square(image).resize((size, size), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(pixels[..., ::-1], dtype=np.float32)


def cl(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size), BGR, -1 to 1: padded to a white square, then bicubic. Source: cl_tagger's own demo."""
    square = _on_square(image).resize((size, size), Image.Resampling.BICUBIC)
    return normalised(square, (0.5,) * 3, (0.5,) * 3)[::-1].copy()


def camie(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size), RGB, ImageNet's mean and deviation: whole in a square of the mean colour, by Lanczos.

    Source: the inference script beside camie-tagger-v2.
    """
    boxed = letterboxed(image, (size, size), Image.Resampling.LANCZOS, _CAMIE_FILL)
    return normalised(boxed, _IMAGENET_MEAN, _IMAGENET_STD)


def letterboxed(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, fill: object) -> Image.Image:
    """All of a picture, as large as it goes into (width, height), in the middle of a canvas filled with a colour."""
    if image.width * size[1] >= image.height * size[0]:
        scaled = size[0], max(1, round(size[0] * image.height / image.width))
    else:
        scaled = max(1, round(size[1] * image.width / image.height)), size[1]
    canvas = Image.new("RGB", size, fill)
    canvas.paste(image.resize(scaled, resample), ((size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2))
    return canvas


def normalised(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(3, height, width): from 0 to 1, less the mean, by the deviation, each per channel."""
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    scaled = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _on_square(image: Image.Image) -> Image.Image:
    """In the middle of a white square; an odd pixel goes to the right and below."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), (_WHITE,) * 3)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _shrunk_on_white(pixels: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) uint8 padded to a white square and averaged down to (size, size, 3), whole numbers.

    The average over each pixel's area, as OpenCV's INTER_AREA; Pillow's BOX counts a source pixel wholly or not at all.
    The square is never made, and the sums are exact: what is white counts as zero, and is turned around at the end.
    """
    side = max(pixels.shape[:2])
    rows = _area_sums(_WHITE - pixels, side, size, np.int32)
    dark = _area_sums(np.ascontiguousarray(rows.swapaxes(0, 1)), side, size, np.int64).swapaxes(0, 1)
    return np.rint((_WHITE * side * side - dark) / (side * side))


def _area_sums(values: np.ndarray, side: int, size: int, dtype: type) -> np.ndarray:
    """Sums along the first axis over `size` equal parts of a `side` in whose middle the values stand, in units of
    1/size of a pixel: (n, …) to (size, …)."""
    n = values.shape[0]
    edges = np.clip(np.arange(size + 1) * side - (side - n) // 2 * size, 0, n * size)
    whole, rest = np.divmod(edges, size)
    sums = np.stack([values[start:end].sum(axis=0, dtype=dtype) for start, end in pairwise(whole)]) * dtype(size)
    # The last edge is behind the last row, and nothing of that is cut.
    cut = values[np.minimum(whole, n - 1)] * rest.astype(dtype).reshape(-1, *(1,) * (values.ndim - 1))
    return sums - cut[:-1] + cut[1:]
