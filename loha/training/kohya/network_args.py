"""kohya's `network_module` and `network_args` for a LoHa, LyCORIS's or kohya's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....text import show
from ...errors import SettingsError
from ..settings.module_rates import block_weights, kohyas_blocks, module_ranks, module_rates
from .findings import Findings

_KOHYAS_OWN = "networks.loha"
_MODULES = ("lycoris.kohya", "lycoris.loha", "shinymas.loha", _KOHYAS_OWN)


@dataclass(frozen=True)
class _Preset:
    """Which modules of SD 1.5 are trained.

    Args:
        module_set, module_filter: as in `TrainingSettings`.
        has_conv: whether the 3×3 convolutions belong to it, where they have a rank.
        has_text: whether the text encoder does.
    """

    module_set: str = "linear"
    module_filter: str = ""
    has_conv: bool = True
    has_text: bool = True


# LyCORIS's (lycoris/config.py), by what they are on SD 1.5; ia3 is another algorithm's.
_PRESETS = {
    "full": _Preset(),
    "full-lin": _Preset(has_conv=False),
    "attn-mlp": _Preset("attention-mlp", has_conv=False),
    "attn-only": _Preset("attention-mlp", "*_attn1_*, *_attn2_*, *_self_attn_*", has_conv=False),
    "unet-only": _Preset(has_text=False),
    "unet-transformer-only": _Preset("attention-mlp", has_conv=False, has_text=False),
    "unet-convblock-only": _Preset(
        "linear", "*_resnets_*, *_downsamplers_*, *_upsamplers_*, *_unet_conv_in, *_unet_conv_out", has_text=False),
}
# kohya's own LoHa takes no preset: attention and MLP, and with conv_dim the blocks of convolutions too.
_OWN = _Preset("attention-mlp", has_conv=False)
_OWN_WITH_CONV = _Preset("linear", "lora_te_*, *_attentions_*, *_resnets_*, *_downsamplers_*, *_upsamplers_*")
_YES, _NO = ("true", "1", "yes"), ("false", "0", "0.0", "no", "none", "")
# Not part of a LoHa as the page trained it; "off" is fine.
_OFF = (
    "dropout", "use_scalar", "train_norm", "constraint", "rescaled", "dora_wd", "weight_decompose",
    "full_matrix", "bypass_mode", "rs_lora", "decompose_both", "rank_dropout_scale", "unbalanced_factorization",
)
_LORA_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
_WITHOUT_MEANING = ("disable_conv_cp", "factor", "wd_on_output", "block_size", "train_on_input")


def network_settings(values: Mapping[str, Any], rank: int, found: Findings) -> dict[str, Any]:
    """Fields of `TrainingSettings` out of the network's keys.

    As LyCORIS has it: `conv_dim=0` leaves the 3×3 convolutions out; where `network_args` names no `conv_dim` they are
    trained at `rank`; an alpha of 0 is the rank. kohya's own LoHa leaves them out then, and takes neither an algorithm
    nor a preset. What cannot be honoured is put into `found`.
    """
    module = values.get("network_module", _MODULES[0])
    if module not in _MODULES:
        found.refuse("network_module", module, "this trains a LoHa: write network_module = \"lycoris.kohya\" and "
                                               "network_args = [\"algo=loha\"]")
        return {}
    is_own = module == _KOHYAS_OWN
    if "network_args" not in values and not is_own:
        return {}
    arguments = _arguments(values.get("network_args", []), found)
    if arguments is None:
        return {}
    read = _Reader(arguments, found)
    algorithm = arguments.pop("algo", "loha" if is_own else "lora")
    if algorithm.lower() != "loha":
        read.refuse("algo", algorithm, "algo must be loha, other algorithms are not trained here")
    conv_rank = read.number("conv_dim", int, 0 if is_own else rank)
    if is_own:
        preset = _OWN_WITH_CONV if conv_rank else _OWN
    else:
        name = arguments.pop("preset", "full")
        if name not in _PRESETS:
            read.refuse("preset", name, f"a preset is one of {', '.join(_PRESETS)}; module_filter chooses more closely")
        preset = _PRESETS.get(name, _Preset())
    changes: dict[str, Any] = {"module_set": preset.module_set}
    if preset.module_filter:
        changes["module_filter"] = preset.module_filter
    if not preset.has_text:
        changes["train_text_encoder"] = False
    conv_alpha = read.number("conv_alpha", float, None)
    if preset.has_conv and conv_rank:
        no_alpha = conv_alpha == 0 or (conv_alpha is None and values.get("network_alpha") == 0)
        changes |= {"module_set": "all", "conv_rank": conv_rank,
                    "conv_alpha": float(conv_rank) if no_alpha else conv_alpha or 0.0}
    if any([read.yes(name) for name in ("use_tucker", "use_cp", "use_conv_cp")]):
        changes["use_tucker"] = True
    for name in ("rank_dropout", "module_dropout"):
        if name in arguments:
            changes[name] = read.number(name, float, 0.0)
    changes |= _rates(arguments, read)
    if ranks := arguments.pop("network_reg_dims", ""):
        try:
            module_ranks(ranks)
            changes["module_ranks"] = ranks
        except SettingsError as error:
            read.refuse("network_reg_dims", ranks, str(error))
    for name in _OFF:
        if (text := arguments.pop(name, "")).lower() not in _NO:
            read.refuse(name, text, "this LoHa does not have it: take it out")
    plus = [name for name in _LORA_PLUS if not is_own and arguments.pop(name, "").lower() not in _NO]
    if plus:
        found.note(f"{', '.join(plus)}: changes nothing, as in LyCORIS: the ratio is of lora_up, and a LoHa has none")
    for name in _WITHOUT_MEANING:
        arguments.pop(name, None)
    for name, text in arguments.items():
        read.refuse(name, text, "not known: take it out")
    return changes


def _rates(arguments: dict[str, str], read: _Reader) -> dict[str, Any]:
    """Rates of blocks and of modules by their names, as kohya's networks.lora and networks.lora_flux have them."""
    blocks = [arguments.pop(name, "") for name in ("down_lr_weight", "mid_lr_weight", "up_lr_weight")]
    threshold = read.number("block_lr_zero_threshold", float, 0.0)
    rates = arguments.pop("network_reg_lrs", "")
    changes: dict[str, Any] = {}
    try:
        if any(blocks):
            changes["block_lr_weights"] = kohyas_blocks(*blocks, threshold)
            block_weights(changes["block_lr_weights"])
        if rates:
            module_rates(rates)
            changes["module_lrs"] = rates
    except SettingsError as error:
        read.refuse("network_reg_lrs" if changes or not any(blocks) else "*_lr_weight", rates or ",".join(blocks),
                    str(error))
        return {}
    return changes


class _Reader:
    """Takes arguments out of a table, one by one, and says what is wrong with them."""

    def __init__(self, arguments: dict[str, str], found: Findings) -> None:
        self._arguments, self._found = arguments, found

    def refuse(self, name: str, text: str, why: str) -> None:
        self._found.refuse("network_args", f"{name}={text}", why)

    def number(self, name: str, kind: type, default: Any) -> Any:
        text = self._arguments.pop(name, "")
        if text.lower() in ("", "none"):
            return default
        try:
            return kind(text)
        except ValueError:
            self.refuse(name, text, f"{name} is not a {'whole ' if kind is int else ''}number")
            return default

    def yes(self, name: str) -> bool:
        text = self._arguments.pop(name, "")
        if text.lower() not in (*_YES, *_NO):
            self.refuse(name, text, f"{name} is neither true nor false")
        return text.lower() in _YES


def _arguments(value: Any, found: Findings) -> dict[str, str] | None:
    parts = value.split() if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) and "=" in part for part in parts):
        found.refuse("network_args", value, "expected a list such as [\"conv_dim=0\", \"algo=loha\"]")
        return None
    pairs = [(key.strip(), text.strip().strip("\"'")) for key, _, text in (part.partition("=") for part in parts)]
    for key, text in pairs:
        if dict(pairs)[key] != text:
            found.refuse("network_args", value, f"{show(key)} is given twice, with different values: keep one")
            return None
    return dict(pairs)
