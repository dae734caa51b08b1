"""Which size a picture is trained at."""

from __future__ import annotations

import math
from functools import lru_cache

from ..settings.hyper_parameters import KOHYA
from ..settings.pictures import BUCKET_STEP, DataOptions

Size = tuple[int, int]  # (width, height) in pixels, everywhere in this package


def bucket_for(width: int, height: int, options: DataOptions) -> Size:
    """The (width, height) at which a picture of this size is trained: multiples of 64.

    The bucket nearest in aspect ratio among those of the chosen area. Where that is larger than
    the picture and `upscale` is off, the picture's own size (within the area), rounded down.
    Without buckets always the square of `resolution`, enlarging if it must. Where `bucketing` is
    kohya, as `placed`.

    Args:
        width, height: in pixels, as seen (EXIF rotation applied), each at least 64.
    """
    if options.bucketing == KOHYA:
        return placed(width, height, options)[0]
    if not options.buckets:
        return options.resolution, options.resolution
    ratio = math.log(width / height)
    best = min(
        bucket_sizes(options.resolution, options.bucket_min, options.bucket_max),
        # Between mirror images of the same distance the order of the list decides, so nothing random.
        key=lambda size: abs(math.log(size[0] / size[1]) - ratio),
    )
    if options.upscale or (best[0] <= width and best[1] <= height):
        return best
    shrink = min(1.0, options.resolution / math.sqrt(width * height))
    return _floor(width * shrink, options.bucket_max), _floor(height * shrink, options.bucket_max)


def placed(width: int, height: int, options: DataOptions) -> tuple[Size, Size]:
    """By kohya's rule the bucket of a picture, and the size that it is scaled to before it is cut to the bucket.

    The bucket nearest in aspect ratio (the plain difference, not its logarithm), covered. With `upscale` off no list:
    a picture above the area is scaled to it, one side to whole steps, a smaller one not at all, and what is beyond
    whole steps is cut off; `bucket_min` and `bucket_max` count for nothing then. A side of 0 means that the picture
    has no bucket: less than a step would be left of it. (kohya-ss/sd-scripts, library/train_util.py, select_bucket.)

    Args:
        width, height: in pixels, as seen.
    """
    ratio = width / height
    if options.buckets and not options.upscale:
        scaled = _within_area(width, height, options.resolution**2, options.bucket_step)
        return (_steps(scaled[0], options.bucket_step), _steps(scaled[1], options.bucket_step)), scaled
    sizes = ((options.resolution, options.resolution),) if not options.buckets else bucket_sizes(
        options.resolution, options.bucket_min, options.bucket_max, options.bucket_step)
    best = (width, height)
    if best not in sizes:
        best = min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))
    scale = best[1] / height if ratio > best[0] / best[1] else best[0] / width
    return best, (int(width * scale + 0.5), int(height * scale + 0.5))


def _within_area(width: int, height: int, area: int, step: int) -> Size:
    """The size itself, or where it has more than `area` pixels one of about so many: one side in whole steps, that
    which bends the aspect ratio less once the other is in whole steps too."""
    if width * height <= area:
        return width, height
    ratio = width / height
    wide = _steps(int(math.sqrt(area * ratio) + 0.5), step)
    high = _steps(int(area / math.sqrt(area * ratio) + 0.5), step)
    wide_to, high_to = _steps(int(wide / ratio + 0.5), step), _steps(int(high * ratio + 0.5), step)
    if not (wide and high and wide_to and high_to):
        return 0, 0
    if abs(wide / wide_to - ratio) < abs(high_to / high - ratio):
        return wide, int(wide / ratio + 0.5)
    return int(high * ratio + 0.5), high


@lru_cache(maxsize=16)
def bucket_sizes(resolution: int, low: int, high: int, step: int = BUCKET_STEP) -> tuple[Size, ...]:
    """All sizes of about `resolution`² pixels and never more: for each side the longest other one.

    kohya's list (sd-scripts, `make_bucket_resolutions`), with the square in it.
    """
    square = _steps(resolution, step)
    sizes = {(square, square)}
    for side in range(low, high + 1, step):
        other = min(high, _steps(resolution * resolution // side, step))
        if other >= low:
            sizes |= {(side, other), (other, side)}
    return tuple(sorted(sizes))


def _steps(length: int, step: int) -> int:
    return length - length % step


def _floor(length: float, high: int) -> int:
    return min(high, max(BUCKET_STEP, int(length) // BUCKET_STEP * BUCKET_STEP))
