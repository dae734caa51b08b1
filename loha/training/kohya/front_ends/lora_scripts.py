"""lora-scripts (SD-Trainer): flat TOML with `model_train_type`, the network's arguments as keys of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Findings
from .texts import arguments, joined, with_numbers

_NETWORK = ("conv_dim", "conv_alpha", "dropout", "train_norm")


def is_one(flat: Mapping[str, Any]) -> bool:
    return "model_train_type" in flat or "lycoris_algo" in flat


def flattened(flat: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """The same under the scripts' keys."""
    found.note("read as a file of lora-scripts")
    values = with_numbers(flat)
    if algorithm := values.pop("lycoris_algo", ""):
        chosen = {name: values.pop(name) for name in _NETWORK if name in values}
        values["network_args"] = arguments({"algo": algorithm, **chosen})
    for key in ("network_args", "optimizer_args"):
        if own := values.pop(f"{key}_custom", None):
            values[key] = joined(values.get(key, []), own)
    factor = {"d0": values.pop("prodigy_d0", ""), "d_coef": values.pop("prodigy_d_coef", "")}
    if more := arguments(factor):
        values["optimizer_args"] = joined(values.get("optimizer_args", []), more)
    return values
