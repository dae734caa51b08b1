"""The loss over the steps: few enough points to be sent often, and a picture drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_SIZE = (960, 540)
_MARGIN = (72, 24, 24, 48)  # left, top, right, bottom
_PAPER, _INK, _FAINT, _LINE, _RATE = "#ffffff", "#333333", "#cfd8e3", "#144384", "#e6277c"
_VALIDATION = "#b45309"


def loss_chart(losses: Sequence[float], rates: Sequence[float] = (),
               validation: Sequence[tuple[int, float]] = ()) -> Tensor:
    """A picture of the losses: each step faint, a running mean over it, the learning rate below.

    Args:
        validation: (step, loss) of each validation, drawn with a dot each and a ring about the best.

    Returns:
        (1, height, width, 3) float32 in 0 … 1, as ComfyUI's IMAGE.
    """
    image = Image.new("RGB", _SIZE, _PAPER)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = _MARGIN[0], _MARGIN[1], _SIZE[0] - _MARGIN[2], _SIZE[1] - _MARGIN[3]
    pen.rectangle((left, top, right, bottom), outline=_INK)
    if losses:
        values = np.asarray(losses, dtype=np.float64)
        mean = _running_mean(values)
        low, high = float(values.min()), float(np.quantile(values, 0.99))
        if validation:
            found = [loss for _, loss in validation]
            low, high = min(low, *found), max(high, *found)
        low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
        box = (left, top, right, bottom)
        if rates:
            # The rate has no axis of its own: its shape is what one looks for.
            pen.line(_points(np.asarray(rates[:len(values)]), 0.0, max(rates) or 1.0, box), fill=_RATE)
        pen.line(_points(values, low, high, box), fill=_FAINT)
        pen.line(_points(mean, low, high, box), fill=_LINE, width=3)
        if validation:
            _draw_validation(pen, validation, len(values), low, high, box)
        font = ImageFont.load_default()
        for value, y in ((high, top), (low, bottom - 12)):
            pen.text((8, y), f"{value:.4f}", fill=_INK, font=font)
        pen.text((left, bottom + 8), "1", fill=_INK, font=font)
        pen.text((right - 48, bottom + 8), f"{len(values)}", fill=_INK, font=font)
        pen.text(((left + right) // 2 - 100, bottom + 24),
                 f"loss over steps · mean of the last {_window(len(values))}: {mean[-1]:.5f}", fill=_INK, font=font)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)[None]


def _draw_validation(pen: ImageDraw.ImageDraw, validation: Sequence[tuple[int, float]], steps: int, low: float,
                     high: float, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    points = [(left + (step - 1) / max(1, steps - 1) * (right - left),
               bottom - (loss - low) / (high - low) * (bottom - top)) for step, loss in validation]
    if len(points) > 1:
        pen.line(points, fill=_VALIDATION, width=2)
    for x, y in points:
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_VALIDATION)
    best = min(range(len(validation)), key=lambda at: validation[at][1])
    x, y = points[best]
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline=_VALIDATION, width=2)
    step, loss = validation[best]
    pen.text((left + 8, top + 6), f"validation loss, best {loss:.5f} after step {step}", fill=_VALIDATION,
             font=ImageFont.load_default())


def thinned(losses: Sequence[float], most: int) -> list[tuple[int, float]]:
    """The losses of steps 1, 2, … as at most `most` points (last step, mean loss), each over equally many steps.

    The last point may stand for fewer; no step is left out.
    """
    stride = max(1, -(-len(losses) // most))
    return [(min(at + stride, len(losses)), fmean(losses[at:at + stride])) for at in range(0, len(losses), stride)]


def _window(steps: int) -> int:
    return max(1, min(100, steps // 10))


def _running_mean(values: np.ndarray) -> np.ndarray:
    window = _window(len(values))
    sums = np.cumsum(np.concatenate(([0.0], values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _points(values: np.ndarray, low: float, high: float, box: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    if len(values) == 1:
        values = np.repeat(values, 2)
    heights = np.clip((values - low) / (high - low), 0.0, 1.0)
    across = np.linspace(left, right, len(values))
    return list(zip(across.tolist(), (bottom - heights * (bottom - top)).tolist(), strict=True))
