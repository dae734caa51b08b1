"""kohya_ss, the GUI by bmaltais: a JSON of all its widgets, and its presets.

What the GUI makes of its widgets before it starts the scripts is done here as there (`kohya_gui/lora_gui.py`).
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping
from typing import Any

from .....text import show
from ..findings import Findings
from ..keys import KEYS
from .texts import arguments, with_numbers

_SIGNS = {"LoRA_type", "max_resolution", "lora_network_weights", "LyCORIS_preset"}
_RENAMED = {"max_resolution": "resolution", "lora_network_weights": "network_weights", "optimizer": "optimizer_type"}
_MODULES = {"LyCORIS/LoHa": "lycoris.kohya", "Kohya LoHa": "networks.loha"}
# Widgets that become network_args of a LoHa.
_NETWORK = ("conv_dim", "conv_alpha", "use_tucker", "rank_dropout", "module_dropout", "rank_dropout_scale",
            "bypass_mode", "dora_wd", "use_scalar", "train_norm")


def is_one(tables: Mapping[str, Any]) -> bool:
    return bool(_SIGNS & tables.keys())


def flattened(tables: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Its values under the scripts' keys. Widgets of other models and networks are named in one note."""
    found.note("read as a file of kohya_ss, the GUI")
    values = with_numbers({_RENAMED.get(key, key): value for key, value in tables.items()})
    values |= _typed(values.pop("additional_parameters", ""), found)
    _network(values, found)
    _length(values)
    _noise(values, found)
    if not (values.get("unet_lr") or values.get("text_encoder_lr")):  # zero for both: learning_rate for both
        values = {key: value for key, value in values.items() if key not in ("unet_lr", "text_encoder_lr")}
    if not values.get("seed"):
        values.pop("seed", None)
    for key in [key for key in values if key.endswith("_checkbox")]:
        if values.pop(key):
            found.refuse(key, True, "this trainer is for SD 1.5. Take it out")
    others = [key for key in values if key not in KEYS]
    if others:
        found.note(f"of the GUI itself, of other models or networks, and not read: {', '.join(map(show, others))}")
    return {key: value for key, value in values.items() if key in KEYS}


def _network(values: dict[str, Any], found: Findings) -> None:
    if "LoRA_type" not in values:
        return
    kind = values.pop("LoRA_type")
    chosen = {name: values.pop(name) for name in _NETWORK if name in values}
    if values.pop("use_cp", False):
        chosen["use_tucker"] = True
    preset = values.pop("LyCORIS_preset", "") or "full"
    if not isinstance(kind, str) or kind not in _MODULES:
        found.refuse("LoRA_type", kind, "this trains a LoHa. Write LoRA_type = \"LyCORIS/LoHa\"")
        return
    values["network_module"] = _MODULES[kind]
    values["network_args"] = arguments({"algo": "loha", "preset": preset, **chosen})


def _length(values: dict[str, Any]) -> None:
    """Without a number of steps the GUI computes one out of the epochs that the widget `epoch` says."""
    epochs = values.pop("epoch", None)
    counted = values.get("max_train_epochs") or values.get("max_train_steps") or values.get("dataset_config")
    if epochs and not counted:
        values["max_train_epochs"] = epochs
    if epochs and values.get("lr_scheduler_num_cycles", 1) == "":
        values["lr_scheduler_num_cycles"] = epochs
    share = values.pop("lr_warmup", 0)  # per cent
    if share and not values.get("lr_warmup_steps"):
        values["lr_warmup_steps"] = share / 100 if type(share) in (int, float) else share


def _noise(values: dict[str, Any], found: Findings) -> None:
    """One of two kinds of noise is chosen, and the widgets of the other are not looked at."""
    kind = values.pop("noise_offset_type", None)
    other = {"Original": ("multires_noise_iterations", "multires_noise_discount"),
             "Multires": ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")}
    for key in other.get(kind, ()) if isinstance(kind, str) else ():
        if values.pop(key, None):
            found.note(f"{key} is not looked at: noise_offset_type is {kind}")


def _typed(text: Any, found: Findings) -> dict[str, Any]:
    """`--key value` and `--key=value`, as one types them behind a script's name."""
    if not isinstance(text, str):
        found.refuse("additional_parameters", text, "expected text")
        return {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        found.refuse("additional_parameters", text, f"{error}: write --key=value")
        return {}
    typed: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            typed[key] = [value] if value else []
        elif key:
            typed[key].append(word)
        else:
            found.refuse("additional_parameters", text, f"{show(word)} has no --key before it")
    return {key: True if not items else _literal(items[0]) if len(items) == 1 else items
            for key, items in typed.items()}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
