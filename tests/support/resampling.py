"""Resampling written anew, slowly and from its definition, for comparison: dense weights, exact rounding.

Pictures are uint8 arrays, (height, width, 3).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def averaged(pixels: np.ndarray, size: int) -> np.ndarray:
    """A square averaged down over each pixel's area: (size, size, 3), whole numbers, halves to the even one."""
    side = pixels.shape[0]
    overlap = np.zeros((size, side), dtype=object)
    for out in range(size):
        low, high = Fraction(out * side, size), Fraction((out + 1) * side, size)
        for at in range(int(low), -(-high.numerator // high.denominator)):
            overlap[out, at] = int((min(high, at + 1) - max(low, at)) * size)
    overlap = overlap.astype(np.float64)  # which holds these whole numbers exactly, and multiplies them faster
    rows = np.tensordot(overlap, pixels.astype(np.float64), axes=(1, 0))
    sums = np.tensordot(rows, overlap, axes=(1, 1)).swapaxes(1, 2).astype(np.int64)
    whole, rest = np.divmod(sums, side * side)
    up = (2 * rest > side * side) | ((2 * rest == side * side) & (whole % 2 == 1))
    return (whole + up).astype(np.float64)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)  # Keys' kernel with a = -0.5
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


FILTERS = {
    "bilinear": (1.0, lambda x: np.clip(1 - np.abs(x), 0, None)),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)),
}


def resized(pixels: np.ndarray, size: tuple[int, int], kind: str, down_first: bool = False) -> np.ndarray:
    """To (width, height), as Pillow documents its filters: two passes in 8 bits, weights with 22 bits after the point.

    Which of the passes comes first is not documented; Pillow takes the cheaper one, its older versions that across.
    """
    if down_first:
        return resized(pixels.swapaxes(0, 1), size[::-1], kind).swapaxes(0, 1)
    return _pass(_pass(pixels.swapaxes(0, 1), size[0], kind).swapaxes(0, 1), size[1], kind)


def _pass(pixels: np.ndarray, size: int, kind: str) -> np.ndarray:
    own = pixels.shape[0]
    if own == size:
        return pixels
    reach, kernel = FILTERS[kind]
    scale = own / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, own))
    for out in range(size):
        center = (out + 0.5) * scale
        low, high = max(0, int(center - reach * stretch + 0.5)), min(own, int(center + reach * stretch + 0.5))
        found = kernel((np.arange(low, high) - center + 0.5) / stretch)
        weights[out, low:high] = found / found.sum()
    fixed = np.trunc(weights * 2**22 + np.copysign(0.5, weights))
    summed = np.tensordot(fixed, pixels.astype(np.float64), axes=(1, 0)) + 2**21
    return np.clip(np.floor(summed / 2**22), 0, 255).astype(np.uint8)
