"""Pictures and captions as the trainer will see them, on a sheet, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ....text import show
from ..settings.hyper_parameters import KOHYA
from ..settings.pictures import DataOptions
from .buckets import Size, bucket_for, placed
from .dataset import Batch, Item, TrainingData

CHUNK = 75
_CHUNKS = 3  # that a run can be told to read
_COLUMNS, _WIDE, _GAP = 4, 300, 12
_LETTER, _STEP = 13, 17  # pixels of a letter, and from one line to the next
_MOST_LINES, _MOST_CUT = 20, 6
_DARK = 0.25  # of the light is left where nothing counts
_PAPER, _FRAME = "#fafafa", "#c8ccd4"
# Of the words of each chunk, and of those that are cut off.
_INKS = ("#202020", "#1d4ed8", "#7c3aed", "#b91c1c")

Letters = ImageFont.FreeTypeFont | ImageFont.ImageFont
Font = Callable[[int, str], Letters]
Line = list[tuple[str, int]]


@dataclass(frozen=True, eq=False)
class Preview:
    """One picture as the first epoch shows it first.

    Args:
        name: folder and file.
        pixels: (height, width, 3) uint8, at its bucket's size, cut, padded and mirrored as it is trained.
        size: width and height of the file.
        lost: share of the picture that is cut off.
        is_mirrored: whether it is, this time.
        repeats: times it is seen in an epoch; 0 for regularisation pictures beyond those that are needed.
        is_masked: whether places count differently; those that do not are dark in `pixels`.
        words: those of the caption after shuffling and dropping, each with its chunk of 75 tokens, from 0.
        tokens: of the whole caption.
    """

    name: str
    pixels: np.ndarray
    size: Size
    lost: float
    is_mirrored: bool
    repeats: int
    is_masked: bool
    words: tuple[tuple[str, int], ...]
    tokens: int

    def head(self) -> str:
        height, width = self.pixels.shape[:2]
        more = [f"{self.lost:.0%} cut off"] if self.lost >= 0.005 else []
        more += [f"{self.repeats} times"] if self.repeats > 1 else [] if self.repeats else ["not shown"]
        more += ["mirrored"] if self.is_mirrored else []
        more += ["masked"] if self.is_masked else []
        return " · ".join([f"{self.size[0]}x{self.size[1]} to {width}x{height}", *more])

    def tokens_used(self) -> str:
        """How many, and which `max_token_length` holds them all."""
        limit = next((chunk * CHUNK for chunk in range(1, _CHUNKS + 1) if self.tokens <= chunk * CHUNK), 0)
        if limit:
            return f"{self.tokens} of {limit} tokens"
        return f"{self.tokens} tokens: {self.tokens - _CHUNKS * CHUNK} cut off beyond {_CHUNKS * CHUNK}"


def previews(data: TrainingData, tokenize: Callable[[str], list[int]], *, most: int = 12,
             seed: int = 0) -> list[Preview]:
    """At most `most` pictures, spread over the index and so over its folders.

    Args:
        tokenize: text → token ids, without begin and end; those of a text are those of its words in a row.
        seed: of the run; another one shuffles, drops and mirrors otherwise.

    Raises:
        PictureError: a picture broke or vanished since it was indexed.
    """
    number = len(data.index)
    most = min(most, number)
    return [_preview(data, place * number // most, tokenize, seed) for place in range(most)]


def draw_previews(found: Sequence[Preview], of: int, font: Font) -> np.ndarray:
    """The sheet: (height, width, 3) float32 in 0 … 1.

    Args:
        found: at least one.
        of: pictures in all.
        font: (pixels of a letter, text) → a font that has its letters.
    """
    rows = [found[at:at + _COLUMNS] for at in range(0, len(found), _COLUMNS)]
    # One for all, so that a line looks like its neighbours.
    letters = font(_LETTER, "".join(one.name + "".join(word for word, _ in one.words) for one in found))
    texts = [[_lines(one.words, letters) for one in row] for row in rows]
    heights = [_WIDE + (len(max(row, key=len)) + 3) * _STEP + 2 * _GAP for row in texts]
    columns = min(_COLUMNS, len(found))
    head = 2 * _STEP + 2 * _GAP
    sheet = Image.new("RGB", (columns * (_WIDE + _GAP) + _GAP, head + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: float, y: int, words: str, ink: str) -> float:
        pen.text((x, y), words, fill=ink, font=letters)
        return x + letters.getlength(words)

    write(_GAP, _GAP, f"{len(found)} of {of} pictures as they are trained", _INKS[0])
    x = _GAP
    for words, ink in zip(("tokens 1-75", "76-150", "151-225", "never read"), _INKS, strict=True):
        x = write(x, _GAP + _STEP, words, ink) + _GAP
    top = head
    for row, lines, height in zip(rows, texts, heights, strict=True):
        for column, (one, caption) in enumerate(zip(row, lines, strict=True)):
            left = _GAP + column * (_WIDE + _GAP)
            _paste(sheet, pen, one.pixels, left, top)
            y = top + _WIDE + 4
            write(left, y, _cut(one.name, letters), _INKS[0])
            write(left, y + _STEP, one.head(), "#5b6472")
            write(left, y + 2 * _STEP, one.tokens_used(), _INKS[3] if one.tokens > CHUNK * _CHUNKS else "#5b6472")
            for place, line in enumerate(caption):
                _write_line(pen, left, y + (3 + place) * _STEP, line, letters)
        top += height
    return np.asarray(sheet, dtype=np.float32) / 255.0


def by_chunk(caption: str, tokenize: Callable[[str], list[int]]) -> tuple[tuple[tuple[str, int], ...], int]:
    """Each word with the chunk that its last token lies in (beyond 225: 3), and the tokens of all."""
    words, total = [], 0
    for word in caption.split():
        total += len(tokenize(word))
        words.append((word, min(_CHUNKS, max(0, total - 1) // CHUNK)))
    return tuple(words), total


def _preview(data: TrainingData, picture: int, tokenize: Callable[[str], list[int]], seed: int) -> Preview:
    index, bucket = data.index, data.index.bucket(picture)
    batch = Batch(0, 0, bucket, (Item(picture, 0),))
    mirrored = data.is_flipped(batch, seed)[0]
    pixels = data.picture(picture, mirrored, data.cuts(batch, seed)[0]).permute(1, 2, 0).mul(255).round().byte().numpy()
    if data.has_mask(picture):
        pixels = _dimmed(pixels, data.mask(picture, mirrored, data.cuts(batch, seed)[0]))
    words, tokens = by_chunk(data.captions(batch, seed)[0], tokenize)
    width, height = (int(side) for side in index.sizes[picture])
    lost = _lost((width, height), data.options_of(picture)) if data.options.fit == "crop" else 0.0
    folder = index.folder(picture)
    return Preview(f"{show(folder.label)}/{show(index.names[picture])}", pixels, (width, height), lost, mirrored,
                   data.showings(picture), data.has_mask(picture), words, tokens)


def _dimmed(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels (height, width, 3) uint8, darker where the mask (height, width) uint8 is."""
    return (pixels * (_DARK + (1 - _DARK) * mask[..., None] / 255)).round().astype(np.uint8)


def _lost(size: Size, options: DataOptions) -> float:
    """The share of a picture that is cut off where it covers its bucket."""
    if options.bucketing == KOHYA:
        bucket, scaled = placed(*size, options)
        return 1 - bucket[0] * bucket[1] / (scaled[0] * scaled[1])
    bucket = bucket_for(*size, options)
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    return 1 - bucket[0] * bucket[1] / (size[0] * size[1] * scale * scale)


def _lines(words: Sequence[tuple[str, int]], letters: Letters) -> list[Line]:
    """The words in lines of a cell's width; of too many lines the first are kept, and where the cut begins."""
    lines: list[Line] = []
    x = float(_WIDE)
    for word, chunk in words or (("(no caption)", 0),):
        shown = _cut(show(word, 200), letters)
        length = letters.getlength(f" {shown}")
        if x + length > _WIDE:
            lines.append([])
            x = 0.0
        lines[-1].append((shown, chunk))
        x += length
    if len(lines) <= _MOST_LINES:
        return lines
    cut = next((at for at, line in enumerate(lines) if line[-1][1] == _CHUNKS), len(lines))
    end = lines[max(cut, _MOST_LINES - _MOST_CUT):][:_MOST_CUT]
    return [*lines[:_MOST_LINES - len(end) - 1], [("…", 0)], *end]


def _write_line(pen: ImageDraw.ImageDraw, x: float, y: int, line: Line, letters: Letters) -> None:
    for chunk, group in groupby(line, key=lambda pair: pair[1]):
        text = " ".join(word for word, _ in group) + " "
        pen.text((x, y), text, fill=_INKS[chunk], font=letters)
        length = letters.getlength(text)
        if chunk == _CHUNKS:
            middle = y + _LETTER // 2 + 2
            pen.line((x, middle, x + length, middle), fill=_INKS[chunk])
        x += length


def _cut(text: str, letters: Letters) -> str:
    shown = text
    while len(shown) > 1 and letters.getlength(shown) > _WIDE - 8:
        shown = shown[:-2] + "…"
    return shown


def _paste(sheet: Image.Image, pen: ImageDraw.ImageDraw, pixels: np.ndarray, left: int, top: int) -> None:
    """The picture in the middle of its cell, shrunk to fit."""
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDE, _WIDE), Image.Resampling.LANCZOS)
    x, y = left + (_WIDE - image.width) // 2, top + (_WIDE - image.height) // 2
    sheet.paste(image, (x, y))
    pen.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=_FRAME)
