"""Parameter groups with rates of their own for parts of the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ...errors import SettingsError
from ..settings.hyper_parameters import TrainingSettings
from ..settings.module_rates import rate_of


def rated(groups: list[dict[str, Any]], modules: Iterable[tuple[str, nn.Module]],
          settings: TrainingSettings) -> list[dict[str, Any]]:
    """The groups split by the rates of blocks and modules, each with kohya's name for it as "name".

    Where no such rates are chosen they stay as they are.

    Parameters whose rate is 0 are in none and get no gradient: their modules stay as they are.

    Args:
        groups: of whole parts, the U-Net and the text encoder.
        modules: (kohya name, module with its parameters).

    Raises:
        SettingsError: no rate is above 0.
    """
    rates = rate_of(settings.block_lr_weights, settings.module_lrs)
    if rates is None:
        return groups
    base = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    made: dict[tuple[bool, str], dict[str, Any]] = {}
    for name, module in modules:
        parameters = list(module.parameters())
        is_text = name.startswith("lora_te")
        rate, word = rates(name, base[id(parameters[0])])
        if not rate:
            for parameter in parameters:
                parameter.requires_grad_(False)
            continue
        part = "textencoder" if is_text else "unet"
        title = part if not word else f"{part}_{word}" if word.startswith("block") else f"{part} {word}"
        made.setdefault((is_text, title), {"params": [], "lr": rate, "name": title})["params"] += parameters
    if not made:
        raise SettingsError("block_lr_weights and module_lrs leave no module with a learning rate above 0")
    # The U-Net's first, as without.
    return [made[key] for key in sorted(made, key=lambda key: key[0])]
