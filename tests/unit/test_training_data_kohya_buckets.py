"""kohya's buckets, scaling and cut, against a derivation of their own from what sd-scripts documents."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import DataOptions, FolderOptions, Latents, TrainingData, index_pictures
from shinymas_loha.loha.training.data.buckets import bucket_for, placed
from shinymas_loha.loha.training.data.info import describe_data
from shinymas_loha.loha.training.data.pictures import PictureError, area_means, covered
from shinymas_loha.loha.training.data.preview import previews
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.settings.fields import chosen

# resolution, bucket_min, bucket_max, bucket_step
SHAPES = [(640, 256, 1024, 64), (768, 256, 1280, 64), (512, 512, 512, 64), (512, 128, 2048, 64), (768, 384, 1152, 128),
          (960, 384, 1536, 192), (640, 256, 1024, 128)]


def _options(shape, **more) -> DataOptions:
    resolution, low, high, step = shape
    return DataOptions(resolution=resolution, bucket_min=low, bucket_max=high, bucket_step=step, bucketing="kohya",
                       **more)


def _sizes(seed: int, count: int = 500):
    chance = random.Random(seed)
    while count:
        width, height = chance.randint(300, 3000), chance.randint(300, 3000)
        if max(width, height) <= 4 * min(width, height):
            count -= 1
            yield width, height


def _listed(resolution, low, high, step) -> np.ndarray:
    """All pairs of whole steps in range of which neither side could be one step longer, and the square."""
    sides = np.arange(low, high + 1, step)
    found = {(resolution // step * step,) * 2}
    for side in sides:
        fitting = [other for other in sides if other * side <= resolution**2]
        if fitting:
            found |= {(side, fitting[-1]), (fitting[-1], side)}
    return np.array(sorted(found), np.float64)


def _by_list(width, height, listed):
    """Bucket and scaled size where pictures are enlarged too: the least error of width / height, then covered."""
    ratio = np.float64(width) / height
    exact = (listed == (width, height)).all(1)
    bucket = listed[exact.argmax() if exact.any() else np.abs(listed[:, 0] / listed[:, 1] - ratio).argmin()]
    # The factor by which both sides are at least the bucket's.
    factor = bucket[1] / height if ratio > bucket[0] / bucket[1] else bucket[0] / width
    return tuple(bucket), tuple(np.floor(np.array([width, height]) * factor + 0.5))


def _by_area(width, height, resolution, step):
    """The same where pictures are made smaller at most."""
    ratio, area = np.float64(width) / height, np.float64(resolution) ** 2
    scaled = (width, height)
    if width * height > area:
        ideal = np.array([np.sqrt(area * ratio), area / np.sqrt(area * ratio)])
        wide, high = np.floor(ideal + 0.5) // step * step
        candidates = {
            "width": (wide, np.floor(wide / ratio + 0.5), wide / (np.floor(wide / ratio + 0.5) // step * step)),
            "height": (np.floor(high * ratio + 0.5), high, (np.floor(high * ratio + 0.5) // step * step) / high)}
        bent = {name: abs(found[2] - ratio) for name, found in candidates.items()}
        scaled = candidates["width" if bent["width"] < bent["height"] else "height"][:2]
    return tuple(np.array(scaled) // step * step), tuple(scaled)


@pytest.mark.parametrize("shape", SHAPES)
def test_500_sizes_have_kohyas_bucket_and_scale(shape):
    listed, options = _listed(*shape), _options(shape, upscale=True)
    for size in _sizes(1):
        assert placed(*size, options) == _by_list(*size, listed), size
        assert bucket_for(*size, options) == placed(*size, options)[0]
    for size in listed.astype(int).tolist():
        assert placed(*size, options) == (tuple(size), tuple(size)), "a bucket's own size is left as it is"


@pytest.mark.parametrize("shape", SHAPES)
def test_500_sizes_without_upscaling(shape):
    options = _options(shape)
    for size in _sizes(2):
        bucket, scaled = placed(*size, options)
        assert (bucket, scaled) == _by_area(*size, shape[0], shape[3]), size
        assert all(own >= side for own, side in zip(size, bucket, strict=True)), "nothing is enlarged"


def test_without_buckets_the_square_is_covered():
    options = _options(SHAPES[0], buckets=False)
    for size in _sizes(3, 100):
        assert placed(*size, options) == _by_list(*size, np.array([[640.0, 640.0]]))


def test_the_mean_over_an_area_counts_parts_of_pixels():
    chance = np.random.default_rng(0)
    for own, less in ((97, 64), (640, 320), (101, 100), (64, 64), (333, 7)):
        pixels = chance.integers(0, 256, (own, own + 30, 3), dtype=np.uint8)

        def weights(source, target):
            """(target, source) float64: how much of each pixel lies in each cell, by overlapping intervals."""
            scale = source / target
            cells = np.arange(target)[:, None] * scale
            overlap = np.minimum(cells + scale, np.arange(source) + 1) - np.maximum(cells, np.arange(source))
            return overlap.clip(0) / scale

        expected = np.einsum("yh,hwc,xw->yxc", weights(own, less), pixels.astype(np.float64),
                             weights(own + 30, less), optimize=True)
        assert np.abs(area_means(pixels, (less, less)) - expected).max() <= 0.5 + 1e-4


def test_a_picture_is_cut_evenly_and_the_odd_pixel_on_the_right_and_below():
    pixels = np.arange(71 * 69, dtype=np.int64).reshape(69, 71) % 251
    image = Image.fromarray(np.stack([pixels] * 3, 2).astype(np.uint8))
    cut = covered(image, image.size, (64, 64))
    assert np.array_equal(cut[..., 0], pixels[2:66, 3:67])
    grown = covered(image, (142, 138), (128, 128))
    assert np.array_equal(grown, np.asarray(image.resize((142, 138), Image.Resampling.LANCZOS))[5:133, 7:135])


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, size in {"a": (300, 200), "b": (150, 130), "c": (70, 90)}.items():
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{name}.png")
    return tmp_path


def _data(folder, **values) -> TrainingData:
    options = DataOptions((FolderOptions(folder, repeats=1),),
                          **{"resolution": 128, "bucket_min": 64, "bucket_max": 256, **values})
    return TrainingData(index_pictures(options), options)


def test_a_run_trains_on_what_the_rule_says(folder):
    data = _data(folder, bucketing="kohya", upscale=True)
    for picture in range(len(data.index)):
        image = Image.open(data.index.path(picture))
        bucket, scaled = placed(*image.size, data.options)
        pixels = data.picture(picture, False)
        assert tuple(pixels.shape) == (3, bucket[1], bucket[0])
        expected = covered(image, scaled, bucket).transpose(2, 0, 1)
        assert np.array_equal(pixels.mul(255).round().byte().numpy(), expected)
        lost = previews(data, lambda text: text.split())[picture].lost
        assert lost == pytest.approx(1 - bucket[0] * bucket[1] / (scaled[0] * scaled[1]))
    assert "buckets: by kohya's rule, in steps of 64" in describe_data(data).splitlines()


def test_our_own_runs_keep_their_buckets_and_names(folder):
    plain, spelt = _data(folder), _data(folder, bucketing="nearest", bucket_step=64)
    assert plain.options == spelt.options and not {"bucketing", "bucket_step"} & chosen(plain.options).keys()
    assert "kohya" not in describe_data(plain)


def test_cached_latents_of_the_two_rules_are_apart(folder):
    def key(data):
        return Latents(data, lambda pixels: None, folder=folder, vae_key="x")._key(0, False)

    ours, kohyas = _data(folder, upscale=True), _data(folder, upscale=True, bucketing="kohya")
    assert ours.index.bucket(0) == kohyas.index.bucket(0) and key(ours) != key(kohyas)


def test_a_picture_below_a_step_is_left_out(folder):
    data = _data(folder, bucketing="kohya", resolution=256, bucket_step=128)
    assert data.index.names == ("a.png", "b.png")
    assert [reason for _, reason in data.index.left_out] == [
        "70×90, a side would be shorter than a bucket's step of 128 pixels"]


def test_a_picture_that_changed_its_size_is_told(folder):
    data = _data(folder, bucketing="kohya", upscale=True)
    Image.new("RGB", (100, 300)).save(folder / "a.png")
    with pytest.raises(PictureError, match="its size has changed to 100×300 since it was looked at"):
        data.picture(0, False)


def test_what_excludes_each_other_is_said():
    with pytest.raises(SettingsError, match="bucketing kohya and fit pad exclude each other"):
        DataOptions(bucketing="kohya", fit="pad")
    with pytest.raises(SettingsError, match="bucket_step 128 is of the bucketing kohya"):
        DataOptions(bucket_step=128)


def test_a_file_of_kohyas_brings_kohyas_rule():
    toml = ("[general]\nenable_bucket = true\nresolution = 768\n{}\n"
            '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"')
    read = read_dataset(toml.format("bucket_reso_steps = 128\nmin_bucket_reso = 300\nmax_bucket_reso = 1000"))
    options = read.options
    assert (options.bucketing, options.bucket_step, options.bucket_min, options.bucket_max) == ("kohya", 128, 256, 1024)
    assert read.found.notes == ["min_bucket_reso = 300 is taken as 256: bucket_reso_steps is 128",
                                "max_bucket_reso = 1000 is taken as 1024: bucket_reso_steps is 128"]
    assert read_dataset(toml.format("")).options.bucketing == "kohya"
    assert read_dataset(toml.format('bucketing = "nearest"')).options.bucketing == "nearest"


@pytest.mark.parametrize(("line", "words"), [
    ("bucket_reso_steps = 8", "bucket_reso_steps = 8 in [general]: expected a multiple of 64 up to 2048, as kohya's"),
    ("min_bucket_reso = 10", "min_bucket_reso = 10 in [general]: 10 is outside 64 to 8192"),
    ('max_bucket_reso = "x"', 'max_bucket_reso = "x" in [general]: expected a whole number'),
    ('bucketing = "odd"', "bucketing = \"odd\" in [general]: 'odd' is not one of nearest, kohya"),
    ("max_bucket_reso = 320", "resolution 640 is outside bucket_min 256 to bucket_max 320"),
])
def test_what_cannot_be_a_bucket_is_said(line, words):
    with pytest.raises(SettingsError) as caught:
        read_dataset(f"[general]\nenable_bucket = true\n{line}\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = \"a\"")
    assert words in str(caught.value)


def test_a_state_of_before_says_how_to_keep_its_buckets(tiny_models, tiny_settings, folder):
    runs = []
    for bucketing in ("nearest", "kohya"):
        data = _data(folder, bucketing=bucketing, batch_size=2)
        runs.append(Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(), session="1",
                             precision="fp32"))
    told = 'bucketing = "nearest" in the file keeps the buckets of before)'
    state = runs[0].state()
    assert runs[1].compare(state).differences[0] == f"bucketing: kohya, was nothing ({told}"
    old = replace(state, fingerprint=None, old_digest="x")
    assert told in runs[1].compare(old).differences[0] and told not in runs[0].compare(old).differences[0]
    assert not runs[0].compare(state).differences
