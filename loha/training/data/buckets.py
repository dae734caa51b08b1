"""Which size a picture is trained at."""

from __future__ import annotations

import math
from functools import lru_cache

from ..settings.pictures import BUCKET_STEP, DataOptions

Size = tuple[int, int]  # (width, height) in pixels, everywhere in this package


def bucket_for(width: int, height: int, options: DataOptions) -> Size:
    """The (width, height) at which a picture of this size is trained: multiples of 64.

    The bucket nearest in aspect ratio among those of the chosen area. Where that is larger than
    the picture and `upscale` is off, the picture's own size (within the area), rounded down.
    Without buckets always the square of `resolution`, enlarging if it must.

    Args:
        width, height: in pixels, as seen (EXIF rotation applied), each at least 64.
    """
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


@lru_cache(maxsize=16)
def bucket_sizes(resolution: int, low: int, high: int) -> tuple[Size, ...]:
    """All sizes of about `resolution`² pixels and never more: for each side the longest other one.

    kohya's list (sd-scripts, `make_bucket_resolutions`), with the square in it.
    """
    sizes = {(resolution, resolution)}
    for side in range(low, high + 1, BUCKET_STEP):
        other = min(high, resolution * resolution // side // BUCKET_STEP * BUCKET_STEP)
        if other >= low:
            sizes |= {(side, other), (other, side)}
    return tuple(sorted(sizes))


def _floor(length: float, high: int) -> int:
    return min(high, max(BUCKET_STEP, int(length) // BUCKET_STEP * BUCKET_STEP))
