"""kohya's dataset TOML as data options."""

import re

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset

TEXT = """\
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = ".txt"
enable_bucket = true

[[datasets]]
resolution = 768
batch_size = 2
max_bucket_reso = 1280
bucket_no_upscale = true

  [[datasets.subsets]]
  image_dir = "mano"
  num_repeats = 10
  class_tokens = "Sakuragi Mano"
  flip_aug = true

  [[datasets.subsets]]
  image_dir = "hiori"
  keep_tokens = 2
  caption_dropout_rate = 0.1
  caption_tag_dropout_rate = 0.2
"""


def test_a_dataset_with_two_subsets():
    read = read_dataset(TEXT)
    options = read.options
    assert not (read.found.unknown or read.found.ignored or read.found.unused)
    assert (options.resolution, options.batch_size, options.bucket_max) == (768, 2, 1280)
    assert options.buckets and not options.upscale
    mano, hiori = options.folders
    assert (str(mano.path), mano.repeats, mano.name, mano.flip) == ("mano", 10, "Sakuragi Mano", True)
    assert (hiori.repeats, hiori.name, hiori.flip) == (1, "", False)
    assert mano.captions.shuffle and mano.captions.keep_tokens == 1 and mano.captions.extension == ".txt"
    assert hiori.captions.keep_tokens == 2
    assert (hiori.captions.caption_dropout, hiori.captions.tag_dropout) == (0.1, 0.2)


def test_unknown_keys_are_listed():
    assert read_dataset("top = 1\n" + TEXT + "  odd = 1\n").found.unknown == ["top", "odd"]


@pytest.mark.parametrize(("old", "new", "words"), [
    ("resolution = 768", "resolution = 700", "resolution = 700 in [[datasets]] 1: 700 is not a multiple of 64"),
    ("resolution = 768", "resolution = [512, 768]", "not square: give one number, buckets keep its area"),
    ("resolution = 768", "resolution = [512, 640, 768]", "for several resolutions a [[datasets]] with each"),
    ("resolution = 768", 'resolution = "x"', "not a number"),
    ('image_dir = "mano"', "", "image_dir is missing"),
    ('image_dir = "mano"', "image_dir = 3", "expected the path of a folder"),
    ("num_repeats = 10", "num_repeats = 0", "0 is outside 1 to 10000"),
    ("num_repeats = 10", "num_repeats = 1.5", "expected a whole number"),
    ("flip_aug = true", "flip_aug = 1", "flip_aug = 1 for mano: expected true or false"),
    ("flip_aug = true", "color_aug = true", "color_aug = true for mano: pictures are trained in their own colours"),
    ("caption_dropout_rate = 0.1", "caption_dropout_rate = 2", "caption_dropout_rate = 2 for hiori: 2.0 is outside"),
    ("batch_size = 2", 'batch_size = "2"', "batch_size = \"2\" in [[datasets]] 1: expected a whole number"),
    ("[general]", "[[general]]", "expected a table"),
    ("[[datasets.subsets]]", "[[datasets.other]]", "needs [[datasets]]"),
])
def test_what_cannot_be(old, new, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_dataset(TEXT.replace(old, new))


def test_datasets_may_differ_in_resolution_batch_size_and_buckets_alone():
    second = '[[datasets]]\nresolution = 640\nbatch_size = 3\n[[datasets.subsets]]\nimage_dir = "b"\n'
    options = read_dataset(TEXT + second).options
    assert (options.resolution, options.batch_size) == (768, 2)
    assert [one.dataset for one in options.folders] == [0, 0, 1]
    first, _, last = map(options.of, options.folders)
    assert first is options and (last.resolution, last.batch_size, last.bucket_max) == (640, 3, 1024)
    same = read_dataset(TEXT + second.replace("resolution = 640\nbatch_size = 3", (
        "resolution = 768\nbatch_size = 2\nmax_bucket_reso = 1280\nbucket_no_upscale = true"))).options
    assert [(one.dataset, one.own) for one in same.folders] == [(0, None)] * 3
    with pytest.raises(SettingsError, match='latent_cache is "none" in one and "memory" in another; a run has one'):
        read_dataset(TEXT + second.replace("batch_size = 3", "cache_latents = true"))
    with pytest.raises(SettingsError, match="resolution is 768 in one and 512 in another; a dataset has one"):
        read_dataset(TEXT + "  resolution = 512\n")


def test_nothing_in_a_folder_goes_before_something_in_general():
    text = '[general]\ncaption_prefix = "a"\nclass_tokens = "b"\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "x"\n'
    (general,) = read_dataset(text).options.folders
    assert (general.captions.prefix, general.name) == ("a", "b")
    (own,) = read_dataset(text + 'caption_prefix = ""\nclass_tokens = ""\n').options.folders
    assert (own.captions.prefix, own.name) == ("", "")
