"""kohya's dataset TOML, and the keys about pictures in a training configuration, as `DataOptions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import SettingsError
from ..settings.fields import coerced, describe
from ..settings.hyper_parameters import KOHYA, MODEL_CARD
from ..settings.pictures import MAX_REPEATS, CaptionOptions, DataOptions, FolderOptions
from .configuration import Configuration, read_configuration
from .findings import Findings, demand_nothing_refused
from .keys import KEYS, Part, is_of_pictures
from .origins import default_lines
from .toml import as_toml

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
    for key in ("num_repeats", "image_dir"):
        if key in usable:
            found.note(f"{key} is of a dataset's folder: in train_data_dir, folders are called N_name, for N repeats")
    folders = [_folder(usable["train_data_dir"], usable, None)] if "train_data_dir" in usable else []
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
    wholes: list[dict[str, Any]] = []
    folders: list[FolderOptions] = []
    for number, dataset in enumerate(_list(configuration.datasets, "datasets"), 1):
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        shared = {**general, **_usable(own, found, f" in [[datasets]] {number}")}
        for subset in _list(dataset.get("subsets", []), "datasets.subsets"):
            where = f" for {show(subset.get('image_dir', 'a folder'), 60)}"
            values = {**shared, **_usable(subset, found, where)}
            if "image_dir" not in values:
                found.refused.append("datasets.subsets: image_dir is missing: name the folder of the pictures")
                continue
            wholes.append(_whole(values))
            folders.append(_folder(values["image_dir"], values, values.get("num_repeats", 1)))
    if not (folders or found.refused):
        raise SettingsError(f"{configuration.origin}: a dataset's TOML needs [[datasets]] with [[datasets.subsets]] "
                            "and their image_dir")
    return _made(wholes, folders, defaults, found)


def kohya_options() -> dict[str, Any]:
    """The options that kohya's scripts have where nothing is chosen, as fields of `DataOptions`."""
    return _whole({key: row.default for key, row in KEYS.items() if row.part is Part.PICTURES and row.default
                   is not None})


def _made(wholes: Sequence[Mapping[str, Any]], folders: Sequence[FolderOptions], defaults: str,
          found: Findings) -> DataFile:
    base = kohya_options() if defaults == KOHYA else {}
    options = []
    for whole in wholes if not found.refused else ():
        try:
            options.append(DataOptions(tuple(folders), **coerced(DataOptions, {**base, **whole})))
        except SettingsError as error:
            found.refused.append(str(error))
            break
    for other in options[1:]:
        for name in describe(DataOptions):
            one, another = as_toml(getattr(options[0], name)), as_toml(getattr(other, name))
            text = f"datasets: {name} is {one} in one and {another} in another; a run has one"
            if one != another and text not in found.refused:
                found.refused.append(text)
    given = frozenset(name for whole in wholes for name in whole)
    return DataFile(options[0] if options else DataOptions(), given, found, defaults)


def _usable(values: Mapping[str, Any], found: Findings, where: str) -> dict[str, Any]:
    """Those of a table's keys that ask for something and can be honoured, their values of the right types."""
    usable: dict[str, Any] = {}
    for key, value in found.asked_for(values, where).items():
        if not is_of_pictures(key):
            found.ignore(key, _OF_TRAINING)
            continue
        try:
            usable[key] = _typed(key, value)
        except SettingsError as error:
            found.refuse(key, value, str(error).removeprefix(f"{KEYS[key].field}: "), where)
    return usable


def _typed(key: str, value: Any) -> Any:
    """`value` if it is of the key's type, as a field has it. Raises `SettingsError`."""
    row = KEYS[key]
    if key in _CHECKS:
        return _CHECKS[key](value)
    if type(row.default) is bool:
        return _flag(value)
    kind = DataOptions if row.part is Part.PICTURES else CaptionOptions
    value = coerced(kind, {row.field: value})[row.field]
    if kind is CaptionOptions:
        CaptionOptions(**{row.field: value})  # what its own check asks of one field
    return value


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `DataOptions` in usable values."""
    whole = {KEYS[key].field: value for key, value in values.items() if KEYS[key].part is Part.PICTURES}
    if "bucket_no_upscale" in values:
        whole["upscale"] = not values["bucket_no_upscale"]
    if "latent_cache" in whole:
        on_disk, in_memory = values.get("cache_latents_to_disk"), values.get("cache_latents")
        whole["latent_cache"] = "disk" if on_disk else "memory" if in_memory else "none"
    return whole


def _folder(path: Path, values: Mapping[str, Any], repeats: int | None) -> FolderOptions:
    captions = {KEYS[key].field: value for key, value in values.items() if KEYS[key].part is Part.CAPTIONS}
    return FolderOptions(path, repeats, CaptionOptions(**captions), flip=values.get("flip_aug", False),
                         name=values.get("class_tokens", ""), validation_split=values.get("validation_split", 0.0))


def _square(value: Any) -> Any:
    """640 out of 640, "640", "640,640" or [640, 640]."""
    sides = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        whole = [int(side) if isinstance(side, str) else side for side in sides]
    except ValueError as error:
        raise SettingsError("not a number") from error
    if len(whole) not in (1, 2) or whole[0] != whole[-1]:
        raise SettingsError("give one number, buckets keep its area")
    return coerced(DataOptions, {"resolution": whole[0]})["resolution"]


def _repeats(value: Any) -> int:
    if type(value) is not int:
        raise SettingsError("expected a whole number")
    if not 1 <= value <= MAX_REPEATS:
        raise SettingsError(f"{value} is outside 1 to {MAX_REPEATS}")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise SettingsError("expected a share from 0 to 1")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise SettingsError("expected true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError("expected text")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str):
        raise SettingsError("expected the path of a folder")
    return Path(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "resolution": _square, "num_repeats": _repeats, "dataset_repeats": _repeats, "class_tokens": _text,
    "validation_split": _share, "image_dir": _path, "train_data_dir": _path, "dataset_config": _text,
}


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
