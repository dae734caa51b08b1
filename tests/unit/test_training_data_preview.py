"""The sheet of pictures as they are trained: what stands on it, and that it is what the trainer gets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.characters.fonts import font
from shinymas_loha.loha.training.data import (
    Batch,
    CaptionOptions,
    DataOptions,
    FolderOptions,
    Item,
    index_pictures,
    training_data,
)
from shinymas_loha.loha.training.data.preview import by_chunk, draw_previews, previews


def letters(text):
    """A token a letter."""
    return list(text.encode())


@pytest.fixture
def data(tmp_path):
    def make(caption="Kazano Hiori, 1girl, smile, blue eyes", fit="crop", **captions):
        for name, count, size in (("3_Kazano Hiori", 20, (96, 128)), ("1_櫻木真乃", 4, (128, 64))):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
                (folder / f"{number:02d}.txt").write_text(caption, encoding="utf-8")
        options = DataOptions(
            (FolderOptions(tmp_path, captions=CaptionOptions(**captions), flip=True),), resolution=64, bucket_min=64,
            bucket_max=128, fit=fit)
        return training_data(index_pictures(options), options)

    return make


def test_every_word_is_in_the_chunk_of_its_last_token():
    words, total = by_chunk("a" * 75 + " b " + "c" * 73 + " dd " + "e" * 75 + " f", letters)
    assert [chunk for _, chunk in words] == [0, 1, 1, 2, 3, 3]
    assert total == 75 + 1 + 73 + 2 + 75 + 1
    assert by_chunk("", letters) == ((), 0)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_and_captions_are_those_that_are_trained(data, fit):
    trained = data(fit=fit, shuffle=True, keep_tokens=1, tag_dropout=0.3)
    found = previews(trained, letters, most=6, seed=5)
    assert len(found) == 6
    for place, one in enumerate(found):
        picture = place * 24 // 6
        batch = Batch(0, 0, trained.index.bucket(picture), (Item(picture, 0),))
        assert np.array_equal(one.pixels, (trained.pixels(batch, 5)[0] * 255).round().byte().permute(1, 2, 0).numpy())
        assert " ".join(word for word, _ in one.words) == trained.captions(batch, 5)[0]
        assert one.tokens == sum(len(word) for word, _ in one.words)
    assert {one.is_mirrored for one in found} == {True, False}


def test_what_stands_below_a_picture(data):
    wide, *_, tall = previews(data(), letters)
    assert [wide.name, tall.name] == ["1_櫻木真乃/00.png", "3_Kazano Hiori/18.png"]
    assert wide.head().split(" · ")[0] == "128x64 to 64x64"
    assert "50% cut off" in wide.head()
    assert "3 times" in tall.head() and "times" not in wide.head()
    assert wide.tokens_used() == "32 of 75 tokens"
    long = previews(data(caption="x" * 50 + ", " + "y" * 50), letters, most=1)[0]
    assert long.tokens_used() == "101 of 150 tokens"
    longer = previews(data(caption="x " * 240), letters, most=1)[0]
    assert longer.tokens_used() == "240 tokens: 15 cut off beyond 225"


def test_the_cut_shows_in_its_own_colour_however_long_the_caption(data):
    def red(caption):
        found = previews(data(caption=caption), letters, most=2)
        sheet = draw_previews(found, 24, font)
        assert sheet.dtype == np.float32 and sheet.min() >= 0 and sheet.max() <= 1
        body = (sheet[60 + 300:] * 255).round()
        return int((body == (0xB9, 0x1C, 0x1C)).all(axis=2).sum())

    assert red("smile, " * 20) == 0
    assert red("smile, " * 40) > 50
    assert red("smile, " * 900) > 50


def test_captions_of_strangers_are_drawn_whatever_they_hold(data):
    for caption in ("", "a" * 4000, "\u202edrawkcab\u200b, 風野灯織 ☆ 🎀", "%s {x} \\n"):
        assert draw_previews(previews(data(caption=caption), letters, most=1), 24, font).shape[2] == 3
