"""Values of the keys about pictures, of the types that they have here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import SettingsError
from ..settings.fields import coerced, describe
from ..settings.pictures import BUCKET_STEP, MAX_REPEATS, CaptionOptions, DataOptions
from .keys import KEYS, Part

_LONGEST, _LONGEST_STEP = (int(describe(DataOptions)[name].high) for name in ("bucket_max", "bucket_step"))


def typed(key: str, value: Any) -> Any:
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


def _square(value: Any) -> Any:
    """640 out of 640, "640", "640,640" or [640, 640]."""
    sides = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        whole = [int(side) if isinstance(side, str) else side for side in sides]
    except ValueError as error:
        raise SettingsError("not a number") from error
    if len(whole) not in (1, 2):
        raise SettingsError("give one number, and for several resolutions a [[datasets]] with each")
    if whole[0] != whole[-1]:
        raise SettingsError("not square: give one number, buckets keep its area")
    return coerced(DataOptions, {"resolution": whole[0]})["resolution"]


def _side(value: Any) -> int:
    """A bucket's shortest or longest side; `_in_steps` makes whole steps of it."""
    if type(value) is not int:
        raise SettingsError("expected a whole number")
    if not BUCKET_STEP <= value <= _LONGEST:
        raise SettingsError(f"{value} is outside {BUCKET_STEP} to {_LONGEST}")
    return value


def _bucket_step(value: Any) -> int:
    if type(value) is not int or value % BUCKET_STEP or not BUCKET_STEP <= value <= _LONGEST_STEP:
        raise SettingsError(f"expected a multiple of {BUCKET_STEP} up to {_LONGEST_STEP}, as kohya's scripts do for SD "
                            f"1.5. Write {BUCKET_STEP}")
    return value


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
    "resolution": _square, "min_bucket_reso": _side, "max_bucket_reso": _side, "bucket_reso_steps": _bucket_step,
    "num_repeats": _repeats, "dataset_repeats": _repeats, "class_tokens": _text,
    "validation_split": _share, "image_dir": _path, "train_data_dir": _path, "reg_data_dir": _path,
    "conditioning_data_dir": _path,
    "dataset_config": _text,
}
