"""kohya's training TOML, such as the model page prints, as `TrainingSettings`.

Every key ends in one of four places: honoured, ignored with a reason, listed as unknown, or an
error where what it asks for cannot be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ....text import show
from ...errors import SettingsError
from ..optimisation.optimisers import check_optimiser
from ..settings.fields import coerced
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings
from .keys import KEYS, Key, Part
from .network_args import network_settings
from .toml import flatten, parse


@dataclass(frozen=True)
class SettingsFile:
    """What a configuration said.

    Args:
        settings: what it asks for, the page's values where it says nothing.
        data: keys about the pictures, for `settings_dataset.data_options`; values as in the file.
        ignored: key → why it changes nothing here.
        unknown: keys that mean nothing to this trainer, in the file's order.
    """

    settings: TrainingSettings
    data: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """`key: value` lines for a report; names from the file are escaped."""
        return [
            *(f"ignored: {show(key)}: {reason}" for key, reason in self.ignored.items()),
            *(f"unknown: {show(key)}" for key in self.unknown),
        ]


def read_settings(source: str) -> SettingsFile:
    """Settings out of a TOML file's path or pasted TOML, sections in any order and under any name.

    Raises:
        FileError: the file cannot be read.
        SettingsError: not TOML; a value of a wrong type or out of range; a key that cannot be
            honoured; keys that exclude each other; a dataset's TOML.
    """
    tables = parse(source)
    if "datasets" in tables:
        raise SettingsError(
            "this is the TOML of a dataset ([[datasets]]): give it to LoHa Training Data, and a training "
            "configuration here"
        )
    values = flatten(tables, KEYS)
    changes: dict[str, Any] = {}
    data: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    unknown: list[str] = []
    for key, value in values.items():
        row = KEYS.get(key)
        if row is None:
            unknown.append(key)
        elif row.part is Part.ONLY:
            _demand(key, row, value)
        elif row.part is Part.RUN:
            changes[row.field] = _CONVERTED[key](value) if key in _CONVERTED else value
        elif row.part is Part.IGNORED:
            ignored[key] = row.why
        elif row.is_of_pictures:
            data[key] = value
    changes |= _parts(values) | network_settings(values)
    settings = TrainingSettings(**coerced(TrainingSettings, changes))
    check_optimiser(settings.optimizer, settings.optimizer_args)
    return SettingsFile(settings, MappingProxyType(data), MappingProxyType(ignored), tuple(unknown))


def _demand(key: str, row: Key, value: Any) -> None:
    if not any(type(value) is type(one) and value == one for one in row.allowed):
        raise SettingsError(
            f"{key} = {show(repr(value))} cannot be honoured: {row.why}. Take the key out, or set it to "
            f"{show(repr(row.allowed[0]))}."
        )


def _parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Which of U-Net and text encoder are trained."""
    unet_only = values.get("network_train_unet_only", False)
    text_only = values.get("network_train_text_encoder_only", False)
    for key, value in (("network_train_unet_only", unet_only), ("network_train_text_encoder_only", text_only)):
        if type(value) is not bool:
            raise SettingsError(f"{key}: expected true or false, found {show(repr(value))}")
    if unet_only and text_only:
        raise SettingsError(
            "network_train_unet_only and network_train_text_encoder_only exclude each other: keep one"
        )
    # A learning rate of zero trains a part as little as leaving it out does.
    return {
        "train_unet": not text_only and values.get("unet_lr") != 0,
        "train_text_encoder": not unet_only and values.get("text_encoder_lr") != 0,
    }


def _chosen(names: Mapping[Any, str]) -> Callable[[Any], Any]:
    """A converter of kohya's names into ours; others go through, for the check to refuse."""
    return lambda value: names.get(value, value) if isinstance(value, str | bool) else value


def _optimizer_args(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.replace(" ", "") for part in value)
    return value


def _sample_prompts(value: Any) -> Any:
    """kohya takes a file's path here, which would be drawn as a prompt."""
    if isinstance(value, str) and value.strip().lower().endswith((".txt", ".toml", ".json")):
        raise SettingsError(f"sample_prompts: {show(repr(value))} is a file, and none is opened from a configuration: "
                            "write the prompts here, as a list")
    return "\n".join(value) if isinstance(value, list) else value


def _warmup(value: Any) -> Any:
    """kohya takes a fraction of the run below 1; how long the run is, is not known here."""
    if isinstance(value, float) and not value.is_integer():
        raise SettingsError(f"lr_warmup_steps: {value} is a fraction; give a whole number of steps")
    return int(value) if isinstance(value, float) else value


# Key → how its value is spelt here.
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "lr_scheduler": _chosen({"custom": MODEL_CARD, "constant_with_warmup": "constant"}),
    "lr_warmup_steps": _warmup,
    "mixed_precision": _chosen({"no": "fp32"}),
    "save_precision": _chosen({"float": "fp32"}),
    "v_parameterization": _chosen({False: "epsilon", True: "v"}),
    "optimizer_args": _optimizer_args,
    "sample_prompts": _sample_prompts,
}
