"""kohya's dataset TOML, and the keys about pictures in a training configuration, as `DataOptions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import SettingsError
from ..settings.fields import coerced, describe
from ..settings.hyper_parameters import KOHYA, MODEL_CARD
from ..settings.pictures import OF_A_DATASET, CaptionOptions, DataOptions, FolderOptions
from .configuration import Configuration, read_configuration
from .findings import Findings, demand_nothing_refused
from .keys import KEYS, Part, is_of_pictures
from .origins import default_lines
from .toml import as_toml
from .values import typed

# A training configuration's names of a dataset's keys.
_OTHER_NAMES = {"train_batch_size": "batch_size", "dataset_repeats": "num_repeats", "caption_extention":
                "caption_extension"}
_OF_TRAINING = "of the training configuration, not of a dataset"
_NOT_BESIDE = ("train_data_dir", "reg_data_dir", "in_json", "dataset_config", "image_dir")


@dataclass(frozen=True)
class DataFile:
    """What a dataset's TOML said: the options, which of them it names, and what else is to be said."""

    options: DataOptions
    given: frozenset[str] = frozenset()
    found: Findings = field(default_factory=Findings)
    defaults: str = MODEL_CARD

    def lines(self) -> list[str]:
        """`kind: …` lines for a report; names from the file are escaped."""
        return [*default_lines(self.options, self.given, self.defaults, kohya_options()), *self.found.lines()]


def read_dataset(source: str, beside: Mapping[str, Any] | None = None, defaults: str = MODEL_CARD) -> DataFile:
    """Options out of a dataset TOML's path or pasted TOML: [general], [[datasets]], [[datasets.subsets]].

    A subset's key goes before its dataset's, that before the general one's, that before `beside`'s.

    Args:
        beside: what the training configuration beside it says about pictures (`SettingsFile.data`).
        defaults: whose values count where nothing is said.

    Raises:
        FileError: the file cannot be read.
        SettingsError: not such a TOML, or all that cannot be honoured in one message: keys, values, datasets that
            differ in what has one value here, such as the resolution.
    """
    configuration = read_configuration(source)
    found = configuration.found
    beside = {**(beside or {}), **{key: value for key, value in configuration.values.items() if is_of_pictures(key)}}
    for key in found.asked_for({key: value for key, value in configuration.values.items() if key not in beside}):
        found.ignore(key, _OF_TRAINING)
    read = dataset_of(configuration, beside, defaults, found)
    demand_nothing_refused((configuration.origin, found))
    return read


def pictures_of(values: Mapping[str, Any], defaults: str, found: Findings) -> DataFile:
    """Options out of a training configuration's keys (`SettingsFile.data`), `train_data_dir` as kohya lays it out.

    What is to be said is put into `found`.
    """
    usable = _usable(values, found, "")
    if "conditioning_data_dir" in usable:
        found.refuse("conditioning_data_dir", values["conditioning_data_dir"], "masks are of a dataset's folder. Write "
                     "them into [[datasets.subsets]], beside image_dir")
    for key in ("num_repeats", "image_dir"):
        if key in usable:
            found.note(f"{key} is of a dataset's folder: in train_data_dir, folders are called N_name, for N repeats")
    folders = [_folder(usable[key], {**usable, "is_reg": key == "reg_data_dir"}, None)
               for key in ("train_data_dir", "reg_data_dir") if key in usable]
    _note_masks([usable], folders, found)
    return _made([_whole(usable)], folders, defaults, found)


def dataset_of(configuration: Configuration, beside: Mapping[str, Any], defaults: str, found: Findings) -> DataFile:
    """The dataset that a configuration holds; what is to be said is put into `found`.

    Raises:
        SettingsError: it holds none, or its tables are not laid out as a dataset's are.
    """
    level = {_OTHER_NAMES.get(key, key): value for key, value in beside.items() if key not in _NOT_BESIDE}
    for key in beside.keys() & set(_NOT_BESIDE):
        if not KEYS[key].asks_for_nothing(beside[key]):
            found.note(f"{key} = {as_toml(beside[key])} is not looked at: the dataset's folders count, as in kohya's "
                       "scripts")
    general = {**_usable(level, found, " in the training configuration"),
               **_usable(_table(configuration.general, "general"), found, " in [general]")}
    asked: list[dict[str, Any]] = []
    folders: list[FolderOptions] = []
    for number, dataset in enumerate(_list(configuration.datasets, "datasets")):
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        shared = {**general, **_usable(own, found, f" in [[datasets]] {number + 1}")}
        for subset in _list(dataset.get("subsets", []), "datasets.subsets"):
            where = f" for {show(subset.get('image_dir', 'a folder'), 60)}"
            values = {**shared, **_usable(subset, found, where)}
            if "image_dir" not in values:
                found.refused.append("datasets.subsets: image_dir is missing: name the folder of the pictures")
                continue
            asked.append(values)
            masks = values.get("conditioning_data_dir")
            if masks is not None and values.get("masked_loss") is False:
                found.refuse("conditioning_data_dir", str(masks), "masked_loss is false. Write masked_loss = true, or "
                             "take it out", where)
            folders.append(_folder(values["image_dir"], values, values.get("num_repeats", 1), number))
    if not (folders or found.refused):
        raise SettingsError(f"{configuration.origin}: a dataset's TOML needs [[datasets]] with [[datasets.subsets]] "
                            "and their image_dir")
    _note_masks(asked, folders, found)
    return _made([_whole(values) for values in asked], folders, defaults, found)


def kohya_options() -> dict[str, Any]:
    """The options that kohya's scripts have where nothing is chosen, as fields of `DataOptions`."""
    return _whole({key: row.default for key, row in KEYS.items() if row.part is Part.PICTURES and row.default
                   is not None})


def _made(wholes: Sequence[Mapping[str, Any]], folders: Sequence[FolderOptions], defaults: str,
          found: Findings) -> DataFile:
    base = {"bucketing": KOHYA} | (kohya_options() if defaults == KOHYA else {})
    options = []
    for whole in wholes if not found.refused else ():
        try:
            options.append(DataOptions(**coerced(DataOptions, _in_steps({**base, **whole}, found))))
        except SettingsError as error:
            found.refused.append(str(error))
            break
    given = frozenset(name for whole in wholes for name in whole)
    if not options or _differ(options, folders, found):
        return DataFile(DataOptions(), given, found, defaults)
    if len(set(options)) > 1:
        folders = [replace(folder, own=None if one == options[0] else one)
                   for folder, one in zip(folders, options, strict=True)]
    elif not any(folder.is_reg for folder in folders):  # it does not matter whose they are
        folders = [replace(folder, dataset=0) for folder in folders]
    try:
        return DataFile(replace(options[0], folders=tuple(folders)), given, found, defaults)
    except SettingsError as error:
        found.refused.append(str(error))
        return DataFile(DataOptions(), given, found, defaults)


def _differ(options: Sequence[DataOptions], folders: Sequence[FolderOptions], found: Findings) -> bool:
    """Whether folders differ in what has one value in a run, or in a dataset; told is in what."""
    first: dict[int, DataOptions] = {}
    differ = False
    for folder, other in zip(folders, options, strict=False):
        own = first.setdefault(folder.dataset, other)
        for name in describe(DataOptions):
            whose, one = ("dataset", own) if name in OF_A_DATASET else ("run", options[0])
            values = as_toml(getattr(one, name)), as_toml(getattr(other, name))
            text = f"datasets: {name} is {values[0]} in one and {values[1]} in another; a {whose} has one"
            if values[0] != values[1]:
                differ = True
                if text not in found.refused:
                    found.refused.append(text)
    return differ


def _usable(values: Mapping[str, Any], found: Findings, where: str) -> dict[str, Any]:
    """Those of a table's keys that ask for something and can be honoured, their values of the right types."""
    usable: dict[str, Any] = {}
    for key, value in found.asked_for(values, where).items():
        if not is_of_pictures(key):
            found.ignore(key, _OF_TRAINING)
            continue
        try:
            usable[key] = typed(key, value)
        except SettingsError as error:
            found.refuse(key, value, str(error).removeprefix(f"{KEYS[key].field}: "), where)
    return usable


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `DataOptions` in usable values."""
    whole = {KEYS[key].field: value for key, value in values.items() if KEYS[key].part is Part.PICTURES}
    if "bucket_no_upscale" in values:
        whole["upscale"] = not values["bucket_no_upscale"]
    if "latent_cache" in whole:
        on_disk, in_memory = values.get("cache_latents_to_disk"), values.get("cache_latents")
        whole["latent_cache"] = "disk" if on_disk else "memory" if in_memory else "none"
    return whole


def _note_masks(asked: Sequence[Mapping[str, Any]], folders: Sequence[FolderOptions], found: Findings) -> None:
    if any(values.get("masked_loss") for values in asked) and not any(one.masks or one.alpha_mask for one in folders):
        found.note("masked_loss = true changes nothing without alpha_mask, or conditioning_data_dir in "
                   "[[datasets.subsets]]")


def _in_steps(whole: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """The same with `bucket_min` rounded down and `bucket_max` up to whole steps, as kohya's scripts do."""
    step = whole.get("bucket_step", DataOptions.bucket_step)
    rounded = dict(whole)
    for name, key, up in (("bucket_min", "min_bucket_reso", 0), ("bucket_max", "max_bucket_reso", step - 1)):
        own = whole.get(name, getattr(DataOptions, name))
        rounded[name] = (own + up) // step * step
        if name in whole and rounded[name] != own:
            found.note(f"{key} = {own} is taken as {rounded[name]}: bucket_reso_steps is {step}")
    return rounded


def _folder(path: Path, values: Mapping[str, Any], repeats: int | None, dataset: int = 0) -> FolderOptions:
    captions = {KEYS[key].field: value for key, value in values.items() if KEYS[key].part is Part.CAPTIONS}
    is_reg = values.get("is_reg", False)
    return FolderOptions(path, repeats, CaptionOptions(**captions), flip=values.get("flip_aug", False),
                         name=values.get("class_tokens", ""), is_reg=is_reg, dataset=dataset,
                         random_crop=values.get("random_crop", False),
                         alpha_mask=values.get("alpha_mask", False), masks=values.get("conditioning_data_dir"),
                         # As in kohya's scripts, regularisation pictures are never set apart.
                         validation_split=0.0 if is_reg else values.get("validation_split", 0.0))


# What was read may be no dataset's TOML at all: of what stands where a table should be, nothing is told.
def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name}: expected a table [{name}]")
    return value


def _list(value: Any, name: str) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):  # [datasets], of which there is one
        value = [value]
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{name}: expected tables [[{name}]]")
    return [_table(one, name) for one in value]
