"""kohya's dataset TOML, and the keys about pictures in a training TOML, as `DataOptions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import SettingsError
from ..settings.fields import coerced, describe
from ..settings.pictures import CaptionOptions, DataOptions, FolderOptions
from .keys import KEYS, SUBSET_KEYS, Part
from .toml import parse

# What a dataset's TOML may hold; `train_data_dir` is a training configuration's way to name a folder.
_KNOWN = {key for key, row in KEYS.items() if row.is_of_pictures} - {"train_data_dir"} | set(SUBSET_KEYS)
_NOT_ONE = "a dataset's TOML needs [[datasets]] with [[datasets.subsets]] and their image_dir"


@dataclass(frozen=True)
class DataFile:
    """What a dataset's TOML said: the options, and the keys that mean nothing to this trainer."""

    options: DataOptions
    unknown: tuple[str, ...] = ()


def read_dataset(source: str) -> DataFile:
    """Options out of a dataset TOML's path or pasted TOML: [general], [[datasets]], [[datasets.subsets]].

    A subset's key goes before its dataset's, that before the general one's.

    Raises:
        FileError: the file cannot be read.
        SettingsError: not such a TOML; a key that cannot be honoured; datasets that differ in what
            has one value here, such as the resolution.
    """
    tables = parse(source)
    if "datasets" not in tables:
        raise SettingsError(_NOT_ONE)
    general = _table(tables.get("general", {}), "general")
    wholes: list[dict[str, Any]] = []
    folders: list[FolderOptions] = []
    unknown = {key for key in tables if key not in ("general", "datasets")}
    for dataset in _list(tables.get("datasets", []), "datasets"):
        for subset in _list(dataset.get("subsets", []), "datasets.subsets"):
            values = {**general, **{key: dataset[key] for key in dataset if key != "subsets"}, **subset}
            if "image_dir" not in values:
                raise SettingsError("datasets.subsets: image_dir is missing: name the folder of the pictures")
            unknown |= values.keys() - _KNOWN
            wholes.append(_whole(values))
            folders.append(_folder(_path("image_dir", values["image_dir"]), values, _repeats(values)))
    if not folders:
        raise SettingsError(_NOT_ONE)
    first, *others = (_options(whole, folders) for whole in wholes)
    for other in others:
        for name in describe(DataOptions):
            if getattr(other, name) != getattr(first, name):
                raise SettingsError(
                    f"datasets: {name} is {show(repr(getattr(first, name)))} in one and "
                    f"{show(repr(getattr(other, name)))} in another; a run has one"
                )
    return DataFile(first, tuple(sorted(unknown)))


def data_options(values: Mapping[str, Any]) -> DataOptions:
    """Options out of a training TOML's keys (`SettingsFile.data`), `train_data_dir` as kohya lays it out.

    Raises:
        SettingsError: a key that cannot be honoured, or a value out of its range.
    """
    folder = values.get("train_data_dir")
    found = [] if folder is None else [_folder(_path("train_data_dir", folder), values, None)]
    return _options(_whole(values), found)


def _options(whole: Mapping[str, Any], folders: Iterable[FolderOptions]) -> DataOptions:
    return DataOptions(tuple(folders), **coerced(DataOptions, whole))


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for key, value in values.items():
        row = KEYS.get(key)
        if row is None:
            continue
        if row.part is Part.ONLY_PICTURES and value not in row.allowed:
            raise SettingsError(
                f"{key} = {show(repr(value))} cannot be honoured: take it out or set it to "
                f"{show(repr(row.allowed[0]))}"
            )
        if row.part is Part.PICTURES and row.field not in ("upscale", "latent_cache"):
            whole[row.field] = _square(value) if row.field == "resolution" else value
    if "bucket_no_upscale" in values:
        whole["upscale"] = not _flag(values, "bucket_no_upscale")
    if _flag(values, "cache_latents_to_disk"):
        whole["latent_cache"] = "disk"
    elif _flag(values, "cache_latents"):
        whole["latent_cache"] = "memory"
    return whole


def _folder(path: Path, values: Mapping[str, Any], repeats: int | None) -> FolderOptions:
    chosen = {KEYS[key].field: value for key, value in values.items()
              if key in KEYS and KEYS[key].part is Part.CAPTIONS}
    name = values.get("class_tokens", "")
    if not isinstance(name, str):
        raise SettingsError(f"class_tokens: expected text, found {show(repr(name))}")
    captions = CaptionOptions(**coerced(CaptionOptions, chosen))
    return FolderOptions(path, repeats, captions, flip=_flag(values, "flip_aug"), name=name)


def _square(value: Any) -> Any:
    """640 out of 640, "640", "640,640" or [640, 640]."""
    sides = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        whole = [int(side) if isinstance(side, str) else side for side in sides]
    except ValueError as error:
        raise SettingsError(f"resolution: {show(repr(value))} is not a number") from error
    if len(whole) not in (1, 2) or whole[0] != whole[-1]:
        raise SettingsError(
            f"resolution: {show(repr(value))} cannot be honoured: give one number, buckets keep its area"
        )
    return whole[0]


def _repeats(values: Mapping[str, Any]) -> int:
    repeats = values.get("num_repeats", 1)
    if type(repeats) is not int:
        raise SettingsError(f"num_repeats: expected a whole number, found {show(repr(repeats))}")
    return repeats


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key, False)
    if type(value) is not bool:
        raise SettingsError(f"{key}: expected true or false, found {show(repr(value))}")
    return value


def _path(key: str, value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{key}: expected the path of a folder, found {show(repr(value))}")
    return Path(value)


# What was read may be no dataset's TOML at all: of what stands where a table should be, nothing is told.
def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name}: expected a table [{name}]")
    return value


def _list(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise SettingsError(f"{name}: expected tables [[{name}]]")
    return [_table(one, name) for one in value]
