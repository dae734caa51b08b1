"""Which pixels are whose: a mask for each box, and one for what no box covers. They sum to one at every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boxes import Box


def region_masks(boxes: Sequence[Box], width: int, height: int, feather: float = 0.0) -> np.ndarray:
    """The masks of these boxes, in their order, and last that of the rest where they leave pixels free.

    Boxes that touch blend into each other without a seam; where boxes overlap, each has an equal share.

    Args:
        width, height: of the picture in pixels.
        feather: over how many per cent of the picture's shorter side a box's edge goes from 0 to 1; edges at the
            picture's own border stay hard.

    Returns:
        (boxes, height, width) or (boxes + 1, height, width) float32, each number from 0 to 1.
    """
    wide = feather / 100 * min(width, height)
    soft = np.stack([_mask(box, width, height, wide) for box in boxes])
    hard = soft if not wide else np.stack([_mask(box, width, height, 0.0) for box in boxes])
    total = soft.sum(0)
    if hard.any(0).all():
        return soft / total
    soft = soft / np.maximum(total, 1.0)
    return np.concatenate([soft, np.clip(1.0 - soft.sum(0), 0.0, 1.0)[None]])


def _mask(box: Box, width: int, height: int, wide: float) -> np.ndarray:
    """(height, width) float32: 1 in the box, with edges `wide` pixels wide."""
    across = _rise(width, box.left, wide) - _rise(width, box.right, wide)
    down = _rise(height, box.top, wide) - _rise(height, box.bottom, wide)
    return (down[:, None] * across).astype(np.float32)


def _rise(length: int, edge: float, wide: float) -> np.ndarray:
    """(length,): from 0 to 1 at an edge, 0.5 on it. What ends there and what begins there sum to one."""
    if edge <= 0 or edge >= 1:
        return np.full(length, float(edge <= 0))
    distance = np.arange(length) + 0.5 - edge * length
    return np.clip(distance / wide + 0.5, 0.0, 1.0) if wide else (distance >= 0).astype(float)
