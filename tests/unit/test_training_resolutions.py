"""Datasets of several resolutions in one run, and cuts at random."""

import json
from collections import Counter
from math import ceil

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Latents, LossWeights, describe_data, index_pictures, stream, training_data
from shinymas_loha.loha.training.data.dataset import Item
from shinymas_loha.loha.training.data.tags import cast_of, pictures_by_character, tag_frequency
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.run.characters import CharacterLosses
from shinymas_loha.loha.training.run.digest import run_digest
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.metadata import RunFacts, training_metadata
from shinymas_loha.loha.training.run.processes import World

SIZES = [(130, 140), (150, 130), (260, 128), (128, 300), (190, 190), (256, 130), (140, 130)]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "3_Mano"
    root.mkdir()
    chance = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        Image.fromarray(chance.integers(0, 256, (height, width, 4), dtype=np.uint8)).save(root / f"{number}.png")
    return root


def _dataset(folder, resolution, batch_size, repeats=1, more=""):
    return f"""
[[datasets]]
resolution = {resolution}
batch_size = {batch_size}
enable_bucket = true
bucket_no_upscale = false
min_bucket_reso = 64
max_bucket_reso = 256
[[datasets.subsets]]
image_dir = '{folder}'
num_repeats = {repeats}
{more}
"""


def _data(*datasets):
    options = read_dataset("".join(datasets)).options
    return training_data(index_pictures(options), options)


def _nearest(size, resolution):
    """kohya's bucket: of those of whole 64s within the area, the one whose width / height is nearest."""
    listed = sorted({(resolution, resolution)} | {
        pair for side in range(64, 257, 64) if (other := min(256, resolution**2 // side // 64 * 64)) >= 64
        for pair in ((side, other), (other, side))})
    return min(listed, key=lambda bucket: abs(bucket[0] / bucket[1] - size[0] / size[1]))


@pytest.mark.parametrize("processes", [1, 2])
def test_each_dataset_has_its_own_buckets_and_batches(folder, processes):
    shapes = {0: (64, 3, 2), 1: (128, 2, 1), 2: (192, 1, 3)}  # resolution, batch size, repeats
    data = _data(*(_dataset(folder, *shape) for shape in shapes.values()))
    assert len(data.index) == 3 * len(SIZES) and len(data) == 6 * len(SIZES)
    buckets = Counter()
    for picture in range(len(data.index)):
        dataset = data.index.folder(picture).options.dataset
        bucket = _nearest(data.index.sizes[picture].tolist(), shapes[dataset][0])
        assert data.index.bucket(picture) == bucket
        buckets[dataset, bucket] += shapes[dataset][2]
    batches = data.epoch(3, 1, processes)
    shown = Counter(item.picture for batch in batches for item in batch.items)
    assert shown == {picture: shapes[data.index.folder(picture).options.dataset][2]
                     for picture in range(len(data.index))}
    for batch in batches:
        (dataset,) = {data.index.folder(item.picture).options.dataset for item in batch.items}
        assert len(batch) <= shapes[dataset][1] * processes
        assert {data.index.bucket(item.picture) for item in batch.items} == {batch.size}
    assert len(batches) == data.batches_per_epoch(processes) == sum(
        ceil(count / (shapes[dataset][1] * processes)) for (dataset, _), count in buckets.items())


def test_one_resolution_has_the_batches_of_before(folder):
    data = _data(_dataset(folder, 128, 2, 2), _dataset(folder, 128, 2, 3))
    assert {one.options.dataset for one in data.index.folders} == {0}
    by_size = {}
    for picture in range(len(data.index)):
        by_size.setdefault(data.index.bucket(picture), []).extend(
            Item(picture, repeat) for repeat in range(data.index.folder(picture).repeats))
    chunks = []
    for size, items in sorted(by_size.items()):
        stream(5, "order", 4, *size).shuffle(items)
        chunks += [(size, tuple(items[at:at + 2])) for at in range(0, len(items), 2)]
    stream(5, "batches", 4).shuffle(chunks)
    assert [(batch.size, batch.items) for batch in data.epoch(5, 4)] == chunks


def test_a_run_trains_on_all_of_them(folder, tiny_models, tiny_settings):
    data = _data(_dataset(folder, 64, 4), _dataset(folder, 128, 2, more="flip_aug = true"))
    run = Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(max_train_epochs=1), session="1",
                   precision="fp32")
    run.run()
    assert len(run.losses) == data.batches_per_epoch() and all(map(np.isfinite, run.losses))
    assert {size[0] * size[1] // 64**2 for size in data.bucket_counts()} > {1, 4}


def test_what_is_told_of_them(folder, tiny_settings):
    data = _data(_dataset(folder, 64, 4), _dataset(folder, 128, 2))
    lines = describe_data(data).splitlines()
    assert "dataset 1: resolution 64, batch size 4" in lines and "dataset 2: resolution 128, batch size 2" in lines
    metadata = training_metadata(tiny_settings(), data, RunFacts("1", 0.0, 1.0, 1, 1, 1, "x"))
    assert [(one["resolution"], one["batch_size_per_device"]) for one in json.loads(metadata["ss_datasets"])] == [
        ([64, 64], 4), ([128, 128], 2)]
    for one in json.loads(metadata["ss_datasets"]):
        (subset,) = one["subsets"]
        assert (one["num_train_images"], one["num_reg_images"]) == (len(SIZES), 0)
        assert (subset["image_dir"], subset["class_tokens"], subset["img_count"], subset["num_repeats"]) == (
            "3_Mano", "Mano", len(SIZES), 1)
    assert [(one.name, one.cards) for one in cast_of(data.index)] == [("Mano", len(SIZES))], "a file counts once"
    assert tag_frequency(data.index) == {"3_Mano": {"mano": len(SIZES)}}
    one = _data(_dataset(folder, 64, 4))
    assert "ss_datasets" not in training_metadata(tiny_settings(), one, RunFacts("1", 0.0, 1.0, 1, 1, 1, "x"))
    assert not [line for line in describe_data(one).splitlines() if line.startswith("dataset ")]


def test_a_picture_at_two_resolutions_is_one_picture_of_hers(folder, tmp_path):
    """Else who has fewer resolutions seemed to have few pictures."""
    for number in range(3):
        (tmp_path / "1_Hiori").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "1_Hiori" / f"{number}.png")
    names = "class_tokens = '{}'"
    data = _data(*(_dataset(folder, size, 1, more=names.format("Mano")) for size in (64, 128)),
                 _dataset(tmp_path / "1_Hiori", 64, 1, more=names.format("Hiori")))
    assert pictures_by_character(data.index) == {"Mano": len(SIZES), "Hiori": 3} == CharacterLosses(data.index).pictures
    assert "few pictures" not in describe_data(data)


def test_another_batch_size_of_one_dataset_is_another_run(folder, tiny_settings, tiny_models):
    digests, runs = set(), []
    for batch_size in (2, 3):
        data = _data(_dataset(folder, 64, 4), _dataset(folder, 128, batch_size))
        digests.add(run_digest(data, tiny_settings(), World(), 9, ()))
        runs.append(Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(), session="1",
                             precision="fp32"))
    assert len(digests) == 2
    state = runs[0].state()
    assert "batch_size of the folder 3_Mano: 3, was 2" in runs[1].compare(state).differences


def test_validation_sets_a_picture_apart_at_every_resolution(folder):
    data = _data(_dataset(folder, 64, 4, more="validation_split = 0.3"),
                 _dataset(folder, 128, 2, more="validation_split = 0.3"))
    apart, trained = (Counter(index.names) for index in (data.validation.index, data.index))
    assert len(apart) == 2 and set(apart.values()) == {2} and not apart.keys() & trained.keys()
    assert {data.validation.options_of(picture).resolution for picture in range(4)} == {64, 128}


def _whole(data, picture):
    """The picture scaled to cover its bucket and not cut, and its opacity, in 0 … 255."""
    image = Image.open(data.index.path(picture))
    bucket = data.index.bucket(picture)
    scale = max(bucket[0] / image.width, bucket[1] / image.height)
    size = int(image.width * scale + 0.5), int(image.height * scale + 0.5)
    assert scale == 1.0 and size == image.size
    pixels = np.asarray(image)
    return pixels[..., :3], pixels[..., 3]


@pytest.fixture
def wide(tmp_path):
    """One picture that fits its bucket in height, and is 7 pixels too wide."""
    pixels = np.random.default_rng(1).integers(0, 256, (128, 135, 4), dtype=np.uint8)
    root = tmp_path / "wide"
    root.mkdir()
    Image.fromarray(pixels).save(root / "a.png")
    return root


def test_a_picture_is_cut_anywhere_and_its_mask_with_it(wide):
    data = _data(_dataset(wide, 128, 1, more="random_crop = true\nalpha_mask = true\nflip_aug = true"))
    pixels, opacity = _whole(data, 0)
    weights, lefts = LossWeights(data, 0), Counter()
    for epoch in range(160):
        (batch,) = data.epoch(0, epoch)
        (flipped,) = data.is_flipped(batch, 0)
        found = data.pixels(batch, 0)[0].mul(255).round().byte().permute(1, 2, 0).numpy()
        found = found[:, ::-1] if flipped else found
        (left,) = [left for left in range(8) if np.array_equal(found, pixels[:, left:left + 128])]
        lefts[left] += 1
        cut = opacity[:, left:left + 128].astype(np.float64) / 255
        mask = cut.reshape(16, 8, 16, 8).mean((1, 3))
        np.testing.assert_allclose(weights(batch)[0, 0], mask[:, ::-1] if flipped else mask, atol=1e-5)
        assert np.array_equal(data.pixels(batch, 0), data.pixels(batch, 0)), "a resumed run would differ"
    assert set(lefts) == set(range(8)) and max(lefts.values()) < 40
    assert np.array_equal(data.picture(0, False).mul(255).round().byte().permute(1, 2, 0).numpy(), pixels[:, 3:131])


def test_what_random_cuts_do_not_go_with_is_said(wide):
    for text, words in (
        (_dataset(wide, 128, 1, more="random_crop = true\ncache_latents = true"),
         "random_crop and latent_cache memory exclude each other"),
        (_dataset(wide, 128, 1, more="random_crop = true").replace("enable_bucket = true", "enable_bucket = false"),
         "random_crop needs buckets here"),
        ('bucketing = "nearest"\n' + _dataset(wide, 128, 1, more="random_crop = true"),
         "random_crop is of the bucketing kohya"),
        (_dataset(wide, 128, 1, more="color_aug = true"), "pictures are trained in their own colours"),
    ):
        with pytest.raises(SettingsError, match=words):
            read_dataset(text)
