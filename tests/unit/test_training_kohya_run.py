"""A training configuration and its pictures together, and how long a run is, as in kohya's scripts."""

import math
from pathlib import Path

import pytest
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.optimisation.schedules import run_length

TRAINING = """
network_dim = 8
train_batch_size = 3
resolution = "768,768"
cache_latents = true
enable_bucket = true
max_bucket_reso = 1280
shuffle_caption = true
keep_tokens = 1
caption_extension = ".tags"
dataset_repeats = 7
flip_aug = true
"""


def folder_of(run):
    (folder,) = run.options.folders
    return folder


def test_the_training_file_says_what_the_dataset_does_not():
    """kohya looks for a value in the folder, its dataset, [general], then the training configuration."""
    run = read_run(TRAINING, dataset='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n')
    options, folder = run.options, folder_of(run)
    assert (options.batch_size, options.resolution, options.latent_cache) == (3, 768, "memory")
    assert options.bucket_max == 1280
    assert (folder.repeats, folder.flip) == (7, True)
    assert (folder.captions.shuffle, folder.captions.keep_tokens, folder.captions.extension) == (True, 1, ".tags")


def test_what_the_dataset_says_goes_before_the_training_file():
    run = read_run(TRAINING, dataset="""
[general]
keep_tokens = 2
caption_extension = ".txt"
[[datasets]]
resolution = 640
batch_size = 2
keep_tokens = 3
flip_aug = false
[[datasets.subsets]]
image_dir = "a"
keep_tokens = 4
num_repeats = 5
""")
    options, folder = run.options, folder_of(run)
    assert (options.batch_size, options.resolution, options.bucket_max) == (2, 640, 1280)
    assert (folder.repeats, folder.flip) == (5, False)
    assert (folder.captions.keep_tokens, folder.captions.extension) == (4, ".txt")


def test_nothing_typed_is_dropped_without_a_word():
    run = read_run(TRAINING + 'train_data_dir = "b"\nreg_data_dir = "c"\n',
                   dataset='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n')
    notes = [line for line in run.lines if line.startswith("note: ")]
    assert 'note: train_data_dir = "b" is not looked at: the dataset\'s folders count, as in kohya\'s scripts' in notes
    assert 'note: reg_data_dir = "c" is not looked at: the dataset\'s folders count, as in kohya\'s scripts' in notes


def test_a_configuration_may_name_its_dataset(tmp_path):
    dataset = tmp_path / "d.toml"
    dataset.write_text('[[datasets]]\nbatch_size = 5\n[[datasets.subsets]]\nimage_dir = "a"\n', encoding="utf-8")
    text = TRAINING + f"dataset_config = '{dataset}'\n"
    assert read_run(text).options.batch_size == 5
    given = read_run(text, folder="b")
    assert given.options.batch_size == 3 and folder_of(given).path == Path("b") and folder_of(given).repeats is None
    assert ("note: dataset_config of the configuration is not looked at: the folder that was given counts"
            in given.lines)
    with pytest.raises(FileError, match="no such file"):
        read_run(TRAINING + 'dataset_config = "gone.toml"\n')


def test_without_pictures_there_is_no_run():
    with pytest.raises(SettingsError, match="no pictures: give --data FOLDER or --dataset TOML, or train_data_dir"):
        read_run(TRAINING)
    assert folder_of(read_run(TRAINING + 'train_data_dir = "x"')).path == Path("x")


def test_kohyas_defaults_are_those_of_the_pictures_too():
    run = read_run('network_dim = 8\ntrain_data_dir = "x"', defaults="kohya")
    assert (run.options.batch_size, run.options.buckets, run.settings.max_token_length) == (1, False, 75)
    assert read_run('defaults = "kohya"\ntrain_data_dir = "x"').options.batch_size == 1


@pytest.mark.parametrize(("lines", "batches", "steps"), [
    ("max_train_steps = 1600", 10, 1600),  # 31 epochs of 10 would be 310
    ("max_train_steps = 7", 10, 7),
    ("max_train_epochs = 4", 10, 40),
    ("max_train_epochs = 4\nmax_train_steps = 7", 10, 40),
    ("max_train_epochs = 4\nmax_train_steps = 1600", 10, 40),
    ("max_train_epochs = 0\nmax_train_steps = 7", 10, 7),
    ("max_train_epochs = 4\nmax_train_steps = 0", 10, 40),
    ("max_train_epochs = 4\ngradient_accumulation_steps = 4", 10, 12),
    ("max_train_steps = 7\ngradient_accumulation_steps = 4", 10, 7),
    ("network_dim = 8", 10, 310),
    ('network_dim = 8\ndefaults = "kohya"', 10, 1600),
    ('max_train_epochs = 2\ndefaults = "kohya"', 10, 20),
])
def test_steps_and_epochs_as_kohya_has_them(lines, batches, steps):
    settings = read_settings(lines).settings
    per_epoch, total = run_length(settings, batches)
    assert total == steps
    assert per_epoch == math.ceil(batches / settings.gradient_accumulation_steps)


def test_steps_beside_epochs_are_told():
    lines = read_settings("max_train_epochs = 4\nmax_train_steps = 1600").lines()
    assert "note: max_train_steps = 1600 is not looked at: max_train_epochs counts, as in kohya's scripts" in lines
