"""Buckets, batches, their order, and the draws that depend on nothing but their purpose."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import (
    CaptionOptions,
    DataOptions,
    FolderOptions,
    TrainingData,
    index_pictures,
    seed_for,
)
from shinymas_loha.loha.training.data.buckets import bucket_for, bucket_sizes

SIZES = [(128, 128), (128, 256), (256, 128)]


def _data(folder: Path, **values) -> TrainingData:
    options = DataOptions(
        (FolderOptions(folder, captions=CaptionOptions(shuffle=True, keep_tokens=1), flip=True),),
        **{"resolution": 256, "batch_size": 3, **values},
    )
    return TrainingData(index_pictures(options), options)


@pytest.fixture
def folder(tmp_path):
    for count, label in enumerate(("2_a", "1_b")):
        for at in range(7):
            path = tmp_path / label / f"{at}.png"
            path.parent.mkdir(exist_ok=True)
            image = Image.new("RGB", SIZES[(at + count) % 3], "black")
            image.paste("red", (0, 0, 20, 20))
            image.save(path)
            path.with_suffix(".txt").write_text("Mano, " + ", ".join("abcdefgh"), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("epoch", [0, 1, 30])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_picture_once_per_repeat_and_no_mixed_buckets(folder, epoch, processes):
    data = _data(folder)
    batches = data.epoch(1, epoch, processes)
    shown = Counter(item for batch in batches for item in batch.items)
    assert set(shown.values()) == {1} and len(shown) == len(data) == 21
    assert Counter(item.picture for item in shown) == {
        picture: data.index.folder(picture).repeats for picture in range(14)
    }
    assert all({data.index.bucket(item.picture) for item in batch.items} == {batch.size} for batch in batches)
    assert len(batches) == data.batches_per_epoch(processes)
    assert [batch.position for batch in batches] == list(range(len(batches)))
    assert max(map(len, batches)) == 3 * processes
    small = Counter(batch.size for batch in batches if len(batch) < 3 * processes)
    assert all(count == 1 for count in small.values()), "one remainder to a bucket"


def test_the_order_follows_from_seed_and_epoch_alone(folder):
    first, again = _data(folder), _data(folder)
    assert first.epoch(5, 2) == again.epoch(5, 2)
    assert first.epoch(5, 2) != first.epoch(5, 3)
    assert first.epoch(5, 2) != first.epoch(6, 2)


def test_parts_make_up_the_batch(folder):
    for batch in _data(folder).epoch(0, 0, processes=2):
        for processes in (1, 2, 3, 20):
            parts = [batch.part(rank, processes) for rank in range(processes)]
            assert tuple(item for part in parts for item in part.items) == batch.items
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_draws_do_not_depend_on_what_was_drawn_before(folder):
    data = _data(folder)
    batches = data.epoch(3, 1)
    one_by_one = [(data.captions(batch, 3), data.is_flipped(batch, 3)) for batch in batches]
    last = batches[-1]
    fresh = _data(folder)
    assert (fresh.captions(last, 3), fresh.is_flipped(last, 3)) == one_by_one[-1]
    flips = [flip for _, flips in one_by_one for flip in flips]
    assert 0 < sum(flips) < len(flips)
    repeats = [caption for captions, _ in one_by_one for caption in captions]
    assert len(set(repeats)) > 15 and all(caption.startswith("Mano, ") for caption in repeats)


def test_seeds_are_the_same_in_every_process():
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('r', sys.argv[1]); "
        "m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m); "
        "print(m.seed_for(7, 'flip', 3, 11), m.stream(7, 'order').random())"
    )
    path = Path(sys.modules[seed_for.__module__].__file__)
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout for hash_seed in ("0", "1")
    }
    assert len(printed) == 1
    assert printed.pop().split()[0] == str(seed_for(7, "flip", 3, 11))
    assert 0 <= seed_for(2**63 - 1, "x") < 2**63


def test_pixels_are_upright_scaled_and_mirrored_as_said(folder):
    data = _data(folder)
    for batch in data.epoch(0, 0):
        pixels = data.pixels(batch, 0)
        width, height = batch.size
        assert pixels.shape == (len(batch), 3, height, width) and pixels.dtype is torch.float32
        assert pixels.min() >= 0 and pixels.max() <= 1
        for picture, flip in zip(pixels, data.is_flipped(batch, 0), strict=True):
            corner = picture[0, 2, -3 if flip else 2]
            other = picture[0, 2, 2 if flip else -3]
            assert corner > 0.9 and other < 0.1


@given(width=st.integers(64, 6000), height=st.integers(64, 6000), upscale=st.booleans(),
       resolution=st.sampled_from([256, 512, 640, 768, 1024]))
def test_buckets_hold_their_promises(width, height, upscale, resolution):
    if max(width, height) > 4 * min(width, height):
        return
    options = DataOptions(resolution=resolution, upscale=upscale)
    bucket = bucket_for(width, height, options)
    assert all(side % 64 == 0 and 64 <= side <= options.bucket_max for side in bucket)
    assert bucket[0] * bucket[1] <= resolution**2
    if upscale:
        assert bucket in bucket_sizes(resolution, options.bucket_min, options.bucket_max)
    else:
        assert bucket[0] <= max(64, width) and bucket[1] <= max(64, height)


@pytest.mark.parametrize(("size", "resolution", "expected"), [
    ((1136, 640), 640, (832, 448)),
    ((640, 1136), 640, (448, 832)),
    ((2000, 2000), 640, (640, 640)),
    ((2000, 2000), 768, (768, 768)),
    ((300, 300), 640, (256, 256)),
    ((630, 700), 640, (576, 640)),
])
def test_known_buckets(size, resolution, expected):
    assert bucket_for(*size, DataOptions(resolution=resolution)) == expected


def test_upscaling_and_no_buckets():
    assert bucket_for(300, 300, DataOptions(upscale=True)) == (640, 640)
    assert bucket_for(300, 1000, DataOptions(buckets=False)) == (640, 640)


@pytest.mark.parametrize(("values", "words"), [
    ({"resolution": 600}, "resolution: 600 is not a multiple of 64"),
    ({"resolution": 0}, "resolution: 0 is outside 64 to 2048"),
    ({"resolution": 1280}, "resolution 1280 is outside bucket_min 256 to bucket_max 1024"),
    ({"batch_size": 0}, "batch_size: 0 is outside"),
    ({"fit": "stretch"}, "'stretch' is not one of crop, pad"),
    ({"batch_size": True}, "batch_size: expected a whole number, found True"),
])
def test_options_that_cannot_be(values, words):
    with pytest.raises(SettingsError, match=words):
        DataOptions(**values)
