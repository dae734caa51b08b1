"""A training configuration for kohya's scripts, such as the model page prints, as `TrainingSettings`.

Every key ends in one of five places: honoured, ignored with a reason, listed as not asked for or unknown, or refused
where what it asks for cannot be done. All that is refused is said in one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...errors import SettingsError
from ..optimisation.optimisers import check_optimiser
from ..optimisation.schedules import check_schedule
from ..settings.fields import coerced
from ..settings.hyper_parameters import KOHYA, MODEL_CARD, TENSORBOARD, TrainingSettings
from .configuration import Configuration, read_configuration
from .findings import Findings, demand_nothing_refused
from .keys import KEYS, Part, is_of_pictures
from .network_args import network_settings
from .origins import default_lines
from .toml import as_toml

_FOR_EVER = 100_000_000  # steps: no run has more


@dataclass(frozen=True)
class SettingsFile:
    """What a configuration said.

    Args:
        settings: what it asks for, and defaults where it says nothing.
        data: keys about the pictures, for `dataset_file`; values as in the file.
        given: the settings that the file names; the others are defaults.
        has_dataset: whether folders of pictures are in it too, for `read_dataset`.
        found: what else is to be said.
    """

    settings: TrainingSettings
    data: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    has_dataset: bool = False
    found: Findings = field(default_factory=Findings)

    def lines(self) -> list[str]:
        """`kind: …` lines for a report: where values came from, and what was not used; names are escaped."""
        return [*default_lines(self.settings, self.given, self.settings.defaults, kohya_settings()),
                *self.found.lines()]


def read_settings(source: str, defaults: str = MODEL_CARD) -> SettingsFile:
    """Settings out of a configuration's path or pasted text, sections in any order and under any name.

    Args:
        defaults: whose values count where the file says nothing; its own key `defaults` goes before.

    Raises:
        FileError: the file cannot be read.
        SettingsError: neither TOML nor JSON; a dataset's TOML; or all that cannot be honoured, in one message:
            values of a wrong type or out of range, keys that exclude each other or ask for what is not done here.
    """
    configuration = read_configuration(source)
    read = settings_of(configuration, defaults)
    demand_nothing_refused((configuration.origin, read.found))
    return read


def settings_of(configuration: Configuration, defaults: str = MODEL_CARD) -> SettingsFile:
    """The same of what has been read, with everything to refuse left in `configuration.found`.

    Raises:
        SettingsError: it holds a dataset and nothing of a training.
    """
    found = configuration.found
    if not configuration.says_how_to_train:
        raise SettingsError(
            f"{configuration.origin} is the TOML of a dataset ([[datasets]]): give it to LoHa Training Data, or to "
            "train.py with --dataset, and a training configuration here"
        )
    data = {key: value for key, value in configuration.values.items() if is_of_pictures(key)}
    values = found.asked_for({key: value for key, value in configuration.values.items() if key not in data})
    already = len(found.refused)
    given = {_field(key, value): value for key, value in values.items() if KEYS[key].part is Part.RUN}
    changes = kohya_settings() if given.get("defaults", defaults) == KOHYA else {"defaults": MODEL_CARD}
    changes |= _checked(values, found)
    changes |= _length(values, found)
    if values.get("network_alpha") == 0:
        changes["network_alpha"] = float(changes.get("network_rank", TrainingSettings.network_rank))
    changes |= _kept(changes)
    changes |= _logs(values, changes, found)
    changes |= _parts(values, found)
    network = network_settings(values, changes.get("network_rank", TrainingSettings.network_rank), found)
    changes |= network
    settings = TrainingSettings()
    try:
        if len(found.refused) == already:  # else what is left would contradict itself
            settings = TrainingSettings(**coerced(TrainingSettings, changes))
            check_schedule(settings)
    except SettingsError as error:
        found.refused.append(str(error))
    try:
        check_optimiser(changes.get("optimizer", settings.optimizer), changes.get("optimizer_args", ""))
    except SettingsError as error:
        found.refused.append(str(error))
    if given.keys() & {"max_train_epochs", "max_train_steps"}:  # one decides over the other
        given |= dict.fromkeys(("max_train_epochs", "max_train_steps"))
    return SettingsFile(settings, MappingProxyType(data), frozenset((*given, *network)),
                        bool(configuration.datasets), found)


def kohya_settings() -> dict[str, Any]:
    """The settings that a run of kohya's scripts has where nothing is chosen, as fields of `TrainingSettings`."""
    rows = ((key, row, row.when_off if row.default is None else row.default)
            for key, row in KEYS.items() if row.part is Part.RUN)
    chosen = {row.field: _convert(key, value) for key, row, value in rows if value is not None}
    return {**chosen, "max_train_epochs": 0, "defaults": KOHYA}


def _checked(values: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Fields of `TrainingSettings` with values of their types, the other keys refused."""
    checked: dict[str, Any] = {}
    for key, value in values.items():
        row = KEYS[key]
        if type(row.default) is bool and type(value) is not bool:
            found.refuse(key, value, "expected true or false")
        elif row.part is Part.RUN and not (key == "network_alpha" and value == 0):
            try:
                field = _field(key, value)
                checked |= coerced(TrainingSettings, {field: _convert(key, value)})
            except SettingsError as error:
                found.refuse(key, value, str(error).removeprefix(f"{field}: "))
    return checked


def _length(values: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Steps alone count by themselves; where epochs are given too, kohya's scripts overwrite the steps."""
    if "max_train_epochs" in values:
        if "max_train_steps" in values:
            found.note(f"max_train_steps = {as_toml(values['max_train_steps'])} is not looked at: max_train_epochs "
                       "counts, as in kohya's scripts")
        return {"max_train_steps": 0}
    return {"max_train_epochs": 0} if "max_train_steps" in values else {}


def _kept(changes: Mapping[str, Any]) -> dict[str, Any]:
    """kohya's save_last_n_epochs counts files of epochs alone: of steps all stay, unless save_last_n_steps says so."""
    apart = changes.get("keep_last") and changes.get("save_every_n_steps") and not changes.get("keep_last_steps")
    return {"keep_last_steps": _FOR_EVER} if apart else {}


def _logs(values: Mapping[str, Any], changes: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """kohya's prepare_accelerator: a place alone asks for TensorBoard; the prefix begins the folder's name in it."""
    if str(values.get("log_with", "")).lower() in ("wandb", "all"):
        found.ignore("log_with", "nothing is sent to wandb: the losses are in the report and in the log")
    place, prefix = changes.get("logging_dir"), values.get("log_prefix")
    if not place:
        if prefix is not None:
            found.ignore("log_prefix", "of logging_dir, which is not given")
        return {}
    asked = {} if "log_with" in values else {"log_with": TENSORBOARD}
    return {**asked, "logging_dir": f"{place}/{'' if prefix is None else prefix}"}


def _parts(values: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Which of U-Net and text encoder are trained."""
    unet_only = values.get("network_train_unet_only", False)
    text_only = values.get("network_train_text_encoder_only", False)
    if unet_only is True and text_only is True:
        found.refuse("network_train_unet_only", True, "excludes network_train_text_encoder_only = true: keep one")
        return {}
    # A learning rate of zero trains a part as little as leaving it out does.
    return {
        "train_unet": not text_only and values.get("unet_lr") != 0,
        "train_text_encoder": not unet_only and _text_encoder_rate(values.get("text_encoder_lr")) != 0,
    }


def _convert(key: str, value: Any) -> Any:
    return _CONVERTED[key](value) if key in _CONVERTED else value


def _chosen(names: Mapping[Any, str]) -> Callable[[Any], Any]:
    """A converter of kohya's names into ours; others go through, for the check to refuse."""
    return lambda value: names.get(value, value) if isinstance(value, str | bool) else value


def _optimizer(value: Any) -> Any:
    """kohya's Adafactor is transformers'; the name alone is torch's here."""
    return "transformers.Adafactor" if isinstance(value, str) and value.lower() == "adafactor" else value


def _joined(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.replace(" ", "") for part in value)
    return value


def _sample_prompts(value: Any) -> Any:
    """kohya takes a file's path here; ours may be the prompts themselves."""
    return "\n".join(map(str, value)) if isinstance(value, list) else value


def _is_share(key: str, value: Any) -> bool:
    return key == "lr_warmup_steps" and type(value) is float and not value.is_integer()


def _field(key: str, value: Any) -> str:
    """Which setting a key becomes: a warm-up that is a fraction is a share of the run, as in kohya's scripts."""
    return "lr_warmup_share" if _is_share(key, value) else KEYS[key].field


def _warmup(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _text_encoder_rate(value: Any) -> Any:
    """kohya takes a list, a rate for each text encoder; SD 1.5 has one, and the first is its."""
    return value[0] if isinstance(value, list) and value else value


# Key → how its value is spelt here.
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "lr_scheduler": _chosen({"custom": MODEL_CARD, "constant_with_warmup": "constant"}),
    "lr_warmup_steps": _warmup,
    "text_encoder_lr": _text_encoder_rate,
    "mixed_precision": _chosen({"no": "fp32"}),
    "save_precision": _chosen({"float": "fp32"}),
    "v_parameterization": _chosen({False: "epsilon", True: "v"}),
    "log_with": _chosen({"wandb": "none", "all": TENSORBOARD}),
    "optimizer_type": _optimizer,
    "optimizer_args": _joined,
    "lr_scheduler_args": _joined,
    "sample_prompts": _sample_prompts,
}
