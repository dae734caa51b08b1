"""kohya's keys of validation, in a training file and in a dataset's."""

from __future__ import annotations

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.kohya.training_file import read_settings


def test_of_a_training_file(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("validation_split = 0.1\nvalidation_seed = 42\nvalidate_every_n_epochs = 2\n"
                      "validate_every_n_steps = 100\nmax_validation_steps = 8\ntrain_data_dir = 'a'", encoding="utf-8")
    found = read_run(str(config))
    settings = found.settings
    assert (settings.validate_every_n_epochs, settings.validate_every_n_steps, settings.max_validation_steps) == (
        2, 100, 8)
    assert found.options.validation_seed == 42
    assert [folder.validation_split for folder in found.options.folders] == [0.1]


def test_of_a_dataset_a_folder_s_own_goes_before_the_datasets():
    found = read_dataset("""
[[datasets]]
validation_split = 0.1
validation_seed = 7
[[datasets.subsets]]
image_dir = "a"
[[datasets.subsets]]
image_dir = "b"
validation_split = 1.0
[[datasets.subsets]]
image_dir = "c"
validation_split = 0
[[datasets.subsets]]
image_dir = "d"
validation_split = false
""")
    assert found.options.validation_seed == 7
    assert [folder.validation_split for folder in found.options.folders] == [0.1, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("defaults", ["model card", "kohya"])
def test_without_them_nothing_is_set_apart_and_an_epoch_is_a_validation(defaults):
    settings = read_settings("seed = 1", defaults).settings
    assert (settings.validate_every_n_epochs, settings.validate_every_n_steps) == (1, 0)
    dataset = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"'
    assert read_dataset(dataset, defaults=defaults).options.folders[0].validation_split == 0.0


@pytest.mark.parametrize("share", ["1.5", "-0.1", '"a tenth"', "true", "nan"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(SettingsError, match="validation_split.*expected a share from 0 to 1"):
        read_dataset(f'[[datasets]]\nvalidation_split = {share}\n[[datasets.subsets]]\nimage_dir = "a"')
