"""One picture: its size from the header, and its pixels, whatever mode it was stored in."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import BinaryIO

import numpy as np
from PIL import Image

from ....text import show
from ...errors import FileError
from ..settings.pictures import BUCKET_STEP
from .buckets import Size

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 100_000_000
MAX_ASPECT = 4.0

_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_TAIL = 4096


class PictureError(FileError):
    """A picture cannot be used; `reason` says why, without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{show(path, 200)}: {reason}. Mend it or take it out of the folder.")
        self.reason = reason

    @classmethod
    def unreadable(cls, path: Path | str, error: OSError) -> PictureError:
        """For a file that the system does not give."""
        return cls(path, f"cannot be read ({show(error.strerror or error, 120)})")


@dataclass(frozen=True)
class Header:
    """Width and height as seen (rotated as EXIF or XMP says), and whether the file's end is as it should be."""

    width: int
    height: int
    ends_well: bool


def read_header(path: Path | str) -> Header:
    """Size of a picture out of the first and last bytes of its file; pixels are not decoded.

    Raises:
        PictureError: not a JPEG, PNG or WebP; truncated; animated; over 100 megapixels; a side
            under 64 pixels; longer than four times its width.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(32)
            file.seek(0, 2)
            length = file.tell()
            file.seek(max(0, length - _TAIL))
            tail = file.read()
            file.seek(0)
            if not length:
                raise PictureError(path, "an empty file")
            size = _webp_size(start)
            if size is None:
                with _opened(path, file) as image:
                    size = _seen_size(image)
    except OSError as error:
        raise PictureError.unreadable(path, error) from error
    _check_size(path, *size)
    return Header(*size, ends_well=_ends_well(start, tail, length))


def check_decodes(path: Path | str) -> None:
    """Decode a picture at the lowest cost. Raises `PictureError` if its data is broken."""
    with _picture(path) as image:
        image.draft(None, (image.width // 8, image.height // 8))
        _load(path, image)


def read_pixels(path: Path | str, *, any_shape: bool = False) -> Image.Image:
    """The picture as seen: 8-bit RGB, rotated as EXIF or XMP says, transparency on white.

    16-bit greys are scaled, not cut. Raises `PictureError` as `read_header`, or where data is broken;
    with `any_shape`, small and long pictures too are read.
    """
    with _picture(path) as image:
        _check_size(path, *_seen_size(image), any_shape=any_shape)
        transpose = _TRANSPOSE.get(_orientation(image))
        _load(path, image)
        flat = _on_white(_eight_bit(image))
        return flat if transpose is None else flat.transpose(transpose)


def read_layers(path: Path | str, *, any_shape: bool = False) -> tuple[Image.Image, Image.Image]:
    """The picture as seen in 8-bit RGB, whatever is transparent, and its opacity in 8 bits. Raises as `read_pixels`."""
    with _picture(path) as image:
        _check_size(path, *_seen_size(image), any_shape=any_shape)
        transpose = _TRANSPOSE.get(_orientation(image))
        _load(path, image)
        whole = _eight_bit(image).convert("RGBA")
        if transpose is not None:
            whole = whole.transpose(transpose)
        return whole.convert("RGB"), whole.getchannel("A")


def fitted(image: Image.Image, size: Size, fit: str) -> np.ndarray:
    """An RGB picture brought to a bucket's (width, height): uint8, (height, width, 3).

    "crop" covers the bucket and cuts evenly on both sides; "pad" shows all of the picture on white.
    """
    ratios = (size[0] / image.width, size[1] / image.height)
    scale = max(ratios) if fit == "crop" else min(ratios)
    scaled = tuple(
        # Rounding must neither leave a gap in a crop nor overhang a pad.
        max(side, round(own * scale)) if fit == "crop" else max(1, min(side, round(own * scale)))
        for own, side in zip(image.size, size, strict=True)
    )
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    if scaled == size:
        return np.asarray(image)
    left, top = ((side - own) // 2 for own, side in zip(scaled, size, strict=True))
    canvas = Image.new("RGB", size, "white")
    canvas.paste(image, (left, top))
    return np.asarray(canvas)


def covered(image: Image.Image, scaled: Size, size: Size, cut: Random | None = None) -> np.ndarray:
    """A picture scaled as kohya's scripts do it and cut to a bucket: uint8, (height, width, channels).

    Smaller in both directions: each pixel is the mean over its area (OpenCV's INTER_AREA); else Lanczos. Of an odd
    number of pixels more is cut on the right and below.

    Args:
        scaled: (width, height) to scale to, at least `size`.
        size: of the bucket.
        cut: draws where to cut, first from the left, then from above; None: evenly.
    """
    if scaled == image.size:
        pixels = np.asarray(image)
    elif scaled[0] <= image.width and scaled[1] <= image.height:
        pixels = area_means(np.asarray(image), scaled)
    else:
        pixels = np.asarray(image.resize(scaled, Image.Resampling.LANCZOS))
    trims = (own - side for own, side in zip(scaled, size, strict=True))
    left, top = (cut.randint(0, trim) if cut else trim // 2 for trim in trims)
    return pixels[top:top + size[1], left:left + size[0]]


def area_means(pixels: np.ndarray, size: Size) -> np.ndarray:
    """uint8 pixels (height, width, …) made smaller: each the mean over its area, parts of pixels counted as such."""
    rows = _means(pixels, size[1])
    columns = _means(np.ascontiguousarray(rows.swapaxes(0, 1)), size[0])
    return np.rint(columns.swapaxes(0, 1)).astype(np.uint8)


def _means(values: np.ndarray, length: int) -> np.ndarray:
    """`length` means in float32 along the first axis."""
    own = len(values)
    edges = np.arange(length + 1) * own / length
    first = np.floor(edges).astype(np.intp)
    means = np.empty((length, *values.shape[1:]), np.float32)
    # Twenty times as fast as np.add.reduceat.
    for place in range(length):
        values[first[place]:first[place + 1]].sum(0, dtype=np.float32, out=means[place])
    # Of each edge's pixel, what lies before the edge.
    before = (edges - first).astype(np.float32).reshape(-1, *(1,) * (values.ndim - 1))
    means += np.diff(before * values[np.minimum(first, own - 1)], axis=0)
    means *= np.float32(length / own)
    return means


@contextmanager
def _picture(path: Path | str) -> Iterator[Image.Image]:
    try:
        with open(path, "rb") as file, _opened(path, file) as image:
            yield image
    except OSError as error:
        raise PictureError.unreadable(path, error) from error


def _opened(path: Path | str, file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(path, f"over {MAX_PIXELS // 1_000_000} megapixels") from error
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise PictureError(path, "not a JPEG, PNG or WebP picture, or a broken one") from error
    # A decoder on a stranger's bytes raises whatever its parser stumbled over.
    except Exception as error:
        raise PictureError(path, f"broken or truncated ({show(error, 120)})") from error
    # A JPEG of several frames (MPO: a depth map or a preview behind the photograph) is a still picture.
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        image.close()
        raise PictureError(path, "animated")
    return image


def _load(path: Path | str, image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    # As in _opened: any exception here means broken data.
    except Exception as error:
        raise PictureError(path, f"broken or truncated ({show(error, 120)})") from error


def _check_size(path: Path | str, width: int, height: int, *, any_shape: bool = False) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(path, f"{width}×{height}, over {MAX_PIXELS // 1_000_000} megapixels")
    if any_shape:
        return
    if min(width, height) < BUCKET_STEP:
        raise PictureError(path, f"{width}×{height}, smaller than {BUCKET_STEP} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(path, f"{width}×{height}, longer than {MAX_ASPECT:.0f} times its width: crop it")


def _seen_size(image: Image.Image) -> Size:
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _orientation(image: Image.Image) -> int:
    """Orientation 1–8, of EXIF or else of XMP. Asked before `load`, so that header and pixels agree.

    Without these entries Pillow would decode a whole PNG to look for them behind the pixels.
    """
    if not image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    # Broken EXIF is no reason to lose a picture; Pillow raises many kinds here.
    except Exception:
        return 1
    return value if value in _TRANSPOSE else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    # Pillow's own conversion cuts 16-bit greys at 255: nearly everything turns white.
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257.0).round().astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


def _webp_size(start: bytes) -> Size | None:
    """Size out of a still WebP's first 30 bytes, or None where Pillow has to look.

    Pillow reads a whole WebP to open it. Layout: the WebP container specification (RFC 9649).
    """
    if start[:4] != b"RIFF" or start[8:12] != b"WEBP" or len(start) < 30:
        return None
    kind, body = start[12:16], start[20:30]
    if kind == b"VP8X" and not body[0] & 0b1110:  # no EXIF, XMP (it may hold the orientation too) or animation
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _ends_well(start: bytes, tail: bytes, length: int) -> bool:
    if start[:4] == b"RIFF":
        return length >= int.from_bytes(start[4:8], "little") + 8
    if start[:4] == b"\x89PNG":
        return _PNG_END in tail
    return b"\xff\xd9" in tail
