"""What a tagger is shown, against the same written anew from its definition, for every layout and kind of picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
import resampling
import small_taggers
from PIL import Image
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.training.data.pictures import read_pixels
from shinymas_loha.taggers import preprocessing
from shinymas_loha.taggers.stages import read_stages

# width and height: a single pixel, odd ones, one less and one more than the model's, whole and broken ratios, long ones
SIZES = [(1, 1), (3, 7), (37, 53), (447, 448), (448, 448), (449, 301), (512, 512), (896, 896), (900, 601), (511, 1023),
         (1500, 11), (5, 1201)]


def noise(size, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


def square(pixels, fill=255):
    """(height, width, 3) in the middle of a square."""
    height, width, _ = pixels.shape
    side = max(height, width)
    made = np.full((side, side, 3), fill, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    made[top:top + height, left:left + width] = pixels
    return made


def wd(pixels, down_first):
    padded = square(pixels)
    if len(padded) > 448:
        return resampling.averaged(padded, 448)[..., ::-1]
    return resampling.resized(padded, (448, 448), "lanczos", down_first)[..., ::-1]


def cl(pixels, down_first):
    small = resampling.resized(square(pixels), (448, 448), "bicubic", down_first)
    return ((small[..., ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def camie(pixels, down_first):
    height, width, _ = pixels.shape
    longest = max(height, width)
    size = tuple(max(1, round(512 * side / longest)) for side in (width, height))
    canvas = np.empty((512, 512, 3), np.uint8)
    canvas[:] = (124, 116, 104)
    left, top = (512 - size[0]) // 2, (512 - size[1]) // 2
    canvas[top:top + size[1], left:left + size[0]] = resampling.resized(pixels, size, "lanczos", down_first)
    return ((canvas / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)


def pixai(pixels, down_first):
    return ((resampling.resized(pixels, (448, 448), "bilinear", down_first) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """Layout → (picture → what the tagger is shown)."""
    folder = tmp_path_factory.mktemp("pixai")
    small_taggers.write_tags(folder, "pixai")
    stages, side = read_stages(folder / "preprocess.json")
    return {
        "WD": lambda image: preprocessing.wd(image, 448),
        "cl_tagger": lambda image: preprocessing.cl(image, 448),
        "camie v2": lambda image: preprocessing.camie(image, 512),
        "pixai": lambda image: stages(image, side),
    }


EXPECTED = {"WD": wd, "cl_tagger": cl, "camie v2": camie, "pixai": pixai}
SHAPES = {"WD": (448, 448, 3), "cl_tagger": (3, 448, 448), "camie v2": (3, 512, 512), "pixai": (3, 448, 448)}


def assert_same(layout, found, pixels):
    assert found.dtype == np.float32 and found.shape == SHAPES[layout] and found.flags.c_contiguous
    off = [np.abs(found - EXPECTED[layout](pixels, down_first)).max() for down_first in (False, True)]
    assert min(off) <= 1e-4 * (255 if layout == "WD" else 1), off


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", small_taggers.LAYOUTS)
def test_every_size(layout, size, prepare):
    pixels = noise(size)
    assert_same(layout, prepare[layout](Image.fromarray(pixels)), pixels)


def as_seen_rgb(folder):
    pixels = noise((61, 45))
    Image.fromarray(pixels).save(folder / "a.png")
    return "a.png", pixels


def as_seen_alpha(folder):
    """Wholly transparent pixels hide a colour: white is what one sees."""
    pixels = noise((61, 45), channels=4)
    pixels[..., 3] = np.where(pixels[..., 3] > 127, 255, 0)
    Image.fromarray(pixels, "RGBA").save(folder / "a.png")
    return "a.png", np.where(pixels[..., 3:] == 0, 255, pixels[..., :3]).astype(np.uint8)


def as_seen_half_transparent(folder):
    pixels = np.full((45, 61, 4), (200, 100, 0, 51), np.uint8)
    Image.fromarray(pixels, "RGBA").save(folder / "a.png")
    return "a.png", np.broadcast_to(np.uint8([244, 224, 204]), (45, 61, 3))


def as_seen_grey(folder):
    grey = noise((61, 45))[..., 0]
    Image.fromarray(grey).save(folder / "a.png")
    return "a.png", np.repeat(grey[..., None], 3, axis=2)


def as_seen_grey_alpha(folder):
    grey = noise((61, 45))[..., 0]
    clear = noise((61, 45), seed=1)[..., 0] > 127
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))]).save(
        folder / "a.png")
    return "a.png", np.repeat(np.where(clear, 255, grey)[..., None], 3, axis=2).astype(np.uint8)


def as_seen_16_bit(folder):
    grey = np.random.default_rng(0).integers(0, 65536, (45, 61), dtype=np.uint16)
    Image.fromarray(grey).save(folder / "a.png")
    return "a.png", np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2)


def as_seen_palette(folder):
    """With a transparent entry, as GIFs made into PNGs have."""
    indexes = noise((61, 45))[..., 0] % 4
    image = Image.fromarray(indexes)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0])
    image.save(folder / "a.png", transparency=3)
    return "a.png", np.uint8([[10, 20, 30], [40, 50, 60], [70, 80, 90], [255, 255, 255]])[indexes]


# EXIF orientation: what one does to the stored pixels to see the picture
TURNED = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("layout", small_taggers.LAYOUTS)
@pytest.mark.parametrize("make", [as_seen_rgb, as_seen_alpha, as_seen_half_transparent, as_seen_grey,
                                  as_seen_grey_alpha, as_seen_16_bit, as_seen_palette],
                         ids=lambda make: make.__name__)
def test_every_kind_of_picture(layout, make, prepare, tmp_path):
    name, pixels = make(tmp_path)
    assert_same(layout, prepare[layout](read_pixels(tmp_path / name, any_shape=True)), pixels)


@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_photograph_is_shown_upright(orientation, prepare, tmp_path):
    stored = noise((61, 45))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert_same("WD", prepare["WD"](read_pixels(tmp_path / "a.png", any_shape=True)), TURNED[orientation](stored))


def test_whole_ratios_are_plain_averages(prepare):
    """Two by two pixels to one, halves to the even number."""
    pixels = noise((896, 896))
    wanted = np.rint(pixels.reshape(448, 2, 448, 2, 3).mean(axis=(1, 3)))[..., ::-1]
    np.testing.assert_array_equal(prepare["WD"](Image.fromarray(pixels)), wanted)


def write_stages(folder, stages, key="stages"):
    (folder / "preprocess.json").write_text(json.dumps({key: stages}), encoding="utf-8")
    return folder / "preprocess.json"


def test_other_steps_of_the_format(tmp_path):
    """As deepghs' exports of other models have them: padded, made smaller by the shorter side, cut."""
    prepare, side = read_stages(write_stages(tmp_path, [
        {"type": "pad_to_size", "size": [80, 80], "background_color": "white", "interpolation": "bilinear"},
        {"type": "resize", "size": 40, "interpolation": "bicubic"},
        {"type": "center_crop", "size": [32, 32]},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": 0.5, "std": [0.25, 0.5, 1.0]},
    ], key="test"))
    assert side == 32
    pixels = noise((160, 60))
    padded = np.full((80, 80, 3), 255, np.uint8)
    padded[25:55] = resampling.resized(pixels, (80, 30), "bilinear")
    cut = resampling.resized(padded, (40, 40), "bicubic")[4:36, 4:36]
    wanted = ((cut / 255 - 0.5) / (0.25, 0.5, 1.0)).transpose(2, 0, 1)
    np.testing.assert_allclose(prepare(Image.fromarray(pixels), side), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("stages", "text"), [
    ([], "holds no list of steps under 'stages'"),
    ([{"type": "rotate"}], "'rotate' is not known"),
    ([{"size": 3}], "a step cannot be understood"),
    (["resize"], "a step cannot be understood"),
    ([{"type": "resize", "size": [448, 448], "interpolation": "magic"}], "a step cannot be understood"),
    ([{"type": "resize", "size": [100_000, 100_000]}], r"a size of \[100000, 100000\]"),
    ([{"type": "resize", "size": [448, 224]}], "do not end with a square"),
    ([{"type": "resize", "size": 448}], "do not end with a square"),
    ([{"type": "normalize", "mean": 0, "std": 1}], "do not end with a square"),
    ([{"type": "resize", "size": [4, 4]}, {"type": "normalize", "mean": [0, 0], "std": 1}], "where three numbers"),
    ([{"type": "resize", "size": [4, 4]}, {"type": "normalize", "mean": 0, "std": 0}], "a deviation of 0"),
    ([{"type": "pad_to_size", "size": [4, 4], "background_color": "no colour"}], "unknown color specifier"),
])
def test_steps_that_cannot_be_followed(tmp_path, stages, text):
    with pytest.raises(FileError, match=f"preprocess.json: .*{text}"):
        read_stages(write_stages(tmp_path, stages))


def test_a_preprocess_file_that_is_no_json(tmp_path):
    (tmp_path / "preprocess.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(FileError, match="preprocess.json is not JSON"):
        read_stages(tmp_path / "preprocess.json")
