"""A whole run out of kohya's files: the training configuration, and the pictures that it, or another, names."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SettingsError
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings
from ..settings.pictures import DataOptions
from .configuration import read_configuration
from .dataset_file import dataset_of, pictures_of
from .findings import demand_nothing_refused
from .training_file import settings_of


@dataclass(frozen=True)
class RunFile:
    """What to train and on which pictures; `lines` say where values came from and what was not used."""

    settings: TrainingSettings
    options: DataOptions
    lines: tuple[str, ...]


def read_run(config: str, *, dataset: str = "", folder: str = "", defaults: str = MODEL_CARD) -> RunFile:
    """As kohya's scripts put the two together: what a dataset does not say, the training configuration does.

    Args:
        config: a training configuration's path or text.
        dataset: a dataset TOML's path or text; "" takes the configuration's own `dataset_config`, its own
            `[[datasets]]`, or its `train_data_dir`, whichever there is.
        folder: of pictures, instead of all those.
        defaults: whose values count where the files say nothing.

    Raises:
        FileError: a file cannot be read.
        SettingsError: all that cannot be honoured in either, in one message; no pictures.
    """
    training = read_configuration(config)
    read = settings_of(training, defaults)
    found, defaults = read.found, read.settings.defaults
    values = dict(read.data)
    named = values.pop("dataset_config", None)
    dataset = dataset or (named if isinstance(named, str) else "")
    if folder:
        for key, there in (("datasets", training.datasets), ("dataset_config", named)):
            if there:
                found.note(f"{key} of the configuration is not looked at: the folder that was given counts")
        pictures = pictures_of({**values, "train_data_dir": folder}, defaults, found)
    elif dataset:
        other = read_configuration(dataset)
        pictures = dataset_of(other, values, defaults, other.found)
        demand_nothing_refused((training.origin, found), (other.origin, other.found))
    elif training.datasets:
        pictures = dataset_of(training, values, defaults, found)
    else:
        pictures = pictures_of(values, defaults, found)
    demand_nothing_refused((training.origin, found))
    if not pictures.options.folders:
        raise SettingsError("no pictures: give --data FOLDER or --dataset TOML, or train_data_dir in the configuration")
    return RunFile(read.settings, pictures.options, tuple(dict.fromkeys([*read.lines(), *pictures.lines()])))
