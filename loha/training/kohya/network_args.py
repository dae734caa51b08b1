"""kohya's `network_module` and `network_args` for LyCORIS's LoHa."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....text import show
from ...errors import SettingsError

_MODULES = ("lycoris.kohya", "lycoris.loha", "shinymas.loha")
_PRESETS = {"full": "linear", "attn-mlp": "attention-mlp"}
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no", "none", "")
# Not part of a LoHa as the page trained it; "off" is fine.
_OFF = (
    "dropout", "use_scalar", "train_norm", "constraint", "rescaled", "dora_wd", "weight_decompose",
    "full_matrix", "bypass_mode", "rs_lora", "decompose_both", "block_size", "unbalanced_factorization",
)
_WITHOUT_MEANING = ("disable_conv_cp", "factor", "wd_on_output")


def network_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainingSettings` out of the network's keys.

    As LyCORIS has it: `conv_dim=0` leaves the 3×3 convolutions out, and where `network_args` names no
    `conv_dim` they are trained at `network_dim`.

    Raises:
        SettingsError: another network than a LoHa, half precision factors, two precisions at once,
            arguments that are unknown or cannot be honoured.
    """
    module = values.get("network_module", _MODULES[0])
    if module not in _MODULES:
        raise SettingsError(
            f"network_module = {show(repr(module))} cannot be honoured: this trains a LoHa, "
            "network_module = \"lycoris.kohya\" with algo=loha"
        )
    _precisions(values)
    if values.get("network_dropout", 0) != 0:
        raise SettingsError("network_dropout cannot be honoured: LoHa knows rank_dropout and module_dropout")
    if "network_args" not in values:
        return {}
    arguments = _arguments(values["network_args"])
    if arguments.pop("algo", "lora").lower() != "loha":
        raise SettingsError("network_args: algo must be loha; other algorithms cannot be honoured")
    changes: dict[str, Any] = {}
    preset = arguments.pop("preset", "full")
    if preset not in _PRESETS:
        raise SettingsError(f"network_args: preset {show(repr(preset))} is not one of {', '.join(_PRESETS)}")
    changes["module_set"] = _PRESETS[preset]
    conv_rank = _number(arguments, "conv_dim", int, values.get("network_dim", 16))
    conv_alpha = _number(arguments, "conv_alpha", float, 0.0)
    if preset == "full" and conv_rank:
        changes |= {"module_set": "all", "conv_rank": conv_rank, "conv_alpha": conv_alpha}
    if any([_yes(arguments, name) for name in ("use_tucker", "use_cp", "use_conv_cp")]):
        changes["use_tucker"] = True
    for name in ("rank_dropout", "module_dropout"):
        changes[name] = _number(arguments, name, float, 0.0)
    for name in _OFF:
        if (value := arguments.pop(name, "")).lower() not in (*_NO, "0.0"):
            raise SettingsError(
                f"network_args: {name}={show(value)} cannot be honoured by this LoHa: take it out"
            )
    for name in _WITHOUT_MEANING:
        arguments.pop(name, None)
    if arguments:
        raise SettingsError(f"network_args: unknown {', '.join(show(name) for name in arguments)}")
    return changes


def _precisions(values: Mapping[str, Any]) -> None:
    if values.get("fp16") and values.get("bf16"):
        raise SettingsError("fp16 and bf16 exclude each other: set mixed_precision to one of them")
    for name in ("full_fp16", "fp16", "bf16"):
        if values.get(name):
            raise SettingsError(f"{name} = true cannot be honoured: the factors are trained in fp32; "
                                "set mixed_precision for the forward pass")


def _arguments(value: Any) -> dict[str, str]:
    parts = value.split() if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) and "=" in part for part in parts):
        raise SettingsError(
            f"network_args: expected a list such as [\"conv_dim=0\", \"algo=loha\"], found {show(repr(value))}"
        )
    pairs = [(key.strip(), text.strip()) for key, _, text in (part.partition("=") for part in parts)]
    for key, text in pairs:
        if dict(pairs)[key] != text:
            raise SettingsError(f"network_args: {show(key)} is given twice, with different values")
    return dict(pairs)


def _number(arguments: dict[str, str], name: str, kind: type, default: Any) -> Any:
    text = arguments.pop(name, None)
    if text is None:
        return default
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"network_args: {name}={show(text)} is not a number") from error


def _yes(arguments: dict[str, str], name: str) -> bool:
    text = arguments.pop(name, "").lower()
    if text not in (*_YES, *_NO):
        raise SettingsError(f"network_args: {name}={show(text)} is neither true nor false")
    return text in _YES
