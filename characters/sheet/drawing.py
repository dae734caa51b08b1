"""The picture of a sheet, drawn into one array."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..fonts import cjk_font, font
from .cells import Plan

_GAP = 8
_PAPER, _INK, _HEAD, _MARK = (250, 250, 250), (32, 32, 32), (224, 228, 236), (168, 84, 0)
_SMALLEST = 9  # pixels of a letter
_MOST = 16_384  # pixels of a side


def draw(plan: Plan, picture: Callable[[int], np.ndarray], size: tuple[int, int],
         title: str = "") -> np.ndarray:
    """Draw a sheet.

    Args:
        plan: where each picture stands.
        picture: gives the picture with this index as (height, width, 3) uint8, asked for once, one at a time.
        size: (width, height) of a cell's picture in pixels; pictures keep their own shape inside it.
        title: over everything; empty for none.

    Returns:
        (height, width, 3) float32 from 0 to 1: the only copy of the whole sheet.

    Raises ValueError where the sheet would be wider or higher than 16384 pixels.
    """
    wide, high = size
    text = max(_SMALLEST + 2, wide // 12)
    caption, head = round(text * 2.6), round(text * 1.7) if plan.heads else 0
    left = (max(48, wide // 3) + _GAP) if plan.sides else _GAP
    top = round(text * 2.4) if title else _GAP
    width = left + plan.columns * (wide + _GAP)
    step = head + high + caption + _GAP
    height = top + plan.lines * step
    if max(width, height) > _MOST:
        raise ValueError(f"the sheet would be {width} × {height} pixels; at most {_MOST} a side. Lower cell_size")
    sheet = np.empty((height, width, 3), dtype=np.float32)
    sheet[:] = np.asarray(_PAPER, dtype=np.float32) / 255

    def write(x: int, y: int, w: int, h: int, words: str, paper: tuple[int, int, int] = _PAPER, lines: int = 1,
              bold: bool = False) -> None:
        strip = Image.new("RGB", (max(w, 1), max(h, 1)), paper)
        _write(strip, words, round(text * 1.25) if bold else text, lines)
        sheet[y:y + h, x:x + w] = np.asarray(strip, dtype=np.float32) / 255

    if title:
        write(_GAP, 0, width - 2 * _GAP, top, title, bold=True)
    for line, first, count, words in plan.heads:
        write(left + first * (wide + _GAP), top + line * step, count * (wide + _GAP) - _GAP, head - 3, words, _HEAD)
    for line, words in plan.sides:
        write(_GAP, top + line * step + head, left - 2 * _GAP, high, words, lines=3)
    for cell in plan.cells:
        x, y = left + cell.column * (wide + _GAP), top + cell.line * step + head
        one = _fitted(picture(cell.index), size)
        over, down = (wide - one.shape[1]) // 2, (high - one.shape[0]) // 2
        sheet[y + down:y + down + one.shape[0], x + over:x + over + one.shape[1]] = one.astype(np.float32) / 255
        write(x, y + high, wide, caption, cell.text, lines=2)
    return sheet


def undrawable(texts: Sequence[str]) -> bool:
    """Whether some text needs letters that no font of this machine is known to have."""
    return cjk_font() is None and any(letter > "\u2e7f" for text in texts for letter in text)


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture shrunk or enlarged until it touches the cell's edges."""
    height, width = picture.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    target = max(1, round(width * scale)), max(1, round(height * scale))
    if target == (width, height):
        return picture
    return np.asarray(Image.fromarray(picture).resize(target, Image.Resampling.LANCZOS))


def _write(strip: Image.Image, words: str, size: int, lines: int) -> None:
    """Write in the strip's middle, in smaller letters until it fits, cut where even that is too much."""
    pen = ImageDraw.Draw(strip)
    ink = _MARK if words.endswith((" card)", " cards)")) else _INK
    for letter in range(size, _SMALLEST - 1, -1):
        letters = font(letter, words)
        broken = _broken(words, lambda text, f=letters: pen.textlength(text, f), strip.width - 4)
        if len(broken) <= lines and len(broken) * letter * 1.2 <= strip.height:
            break
    if len(broken) > lines:
        broken = [*broken[:lines - 1], broken[lines - 1].rstrip() + "…"]
        while len(broken[-1]) > 1 and pen.textlength(broken[-1], letters) > strip.width - 4:
            broken[-1] = broken[-1][:-2] + "…"
    step = letter * 1.2
    y = (strip.height - step * len(broken)) / 2
    for number, text in enumerate(broken):
        x = (strip.width - pen.textlength(text, letters)) / 2
        pen.text((max(2, x), y + number * step), text, fill=ink, font=letters)


def _broken(words: str, length: Callable[[str], float], width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces, inside words where one alone is too long."""
    lines, line = [], ""
    for word in words.split(" "):
        longer = f"{line} {word}" if line else word
        if length(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and length(word) > width:
            keep = next((n for n in range(len(word) - 1, 0, -1) if length(word[:n]) <= width), 1)
            lines.append(word[:keep])
            word = word[keep:]
        line = word
    return [*lines, line] if line or not lines else lines
