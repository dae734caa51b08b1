"""Which layers of the models get a LoHa."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from ....text import show
from ...errors import SettingsError
from ..settings.hyper_parameters import TrainingSettings
from ..settings.module_rates import rank_of

_TEXT = ("_q_proj", "_k_proj", "_v_proj", "_out_proj", "_mlp_fc1", "_mlp_fc2")
_SMALL = ("_time_emb_proj", "_conv_shortcut", "_time_embedding_linear_1", "_time_embedding_linear_2")
_CONVOLUTIONS = ("_conv1", "_conv2", "samplers_0_conv", "_unet_conv_in", "_unet_conv_out")


def select(layers: Mapping[str, nn.Module], settings: TrainingSettings) -> dict[str, nn.Module]:
    """The layers to train, by kohya name, in the order of `layers`.

    On SD 1.5 the sets are 264 (attention and MLP), 302 (linear and 1×1, the model page's) and 354 modules.

    Raises:
        SettingsError: nothing is left, or a chosen layer is neither a Linear nor an ungrouped Conv2d.
    """
    patterns = [pattern.strip() for pattern in settings.module_filter.split(",") if pattern.strip()]
    own_rank = rank_of(settings.module_ranks)
    chosen = {
        name: layer for name, layer in layers.items()
        if _in_set(name, layer, settings.module_set)
        and (settings.train_text_encoder if is_text(name) else settings.train_unet)
        and (not patterns or any(fnmatchcase(name, pattern) for pattern in patterns))
        and own_rank(name) != 0
    }
    if not chosen:
        raise SettingsError(
            f"no module is left to train: module_set {settings.module_set}, module_filter "
            f"{show(repr(settings.module_filter))}, module_ranks {show(repr(settings.module_ranks))}. The model has "
            f"{len(layers)} modules with kohya names such as "
            f"{show(next(iter(layers), '(none)'))}."
        )
    for name, layer in chosen.items():
        if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or isinstance(layer.padding, str)
                                             or layer.padding_mode != "zeros"):
            raise SettingsError(f"{name}: a convolution with groups or named padding cannot be trained")
    return chosen


def is_text(name: str) -> bool:
    """Whether a kohya name is the text encoder's."""
    return name.startswith("lora_te")


def is_wide(layer: nn.Module) -> bool:
    """Whether the layer is a convolution with a kernel larger than 1×1."""
    return isinstance(layer, nn.Conv2d) and layer.weight.shape[2:].numel() > 1


def _in_set(name: str, layer: nn.Module, module_set: str) -> bool:
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return False
    if is_text(name):
        return "_encoder_layers_" in name and name.endswith(_TEXT)
    if is_wide(layer):
        return module_set == "all" and name.endswith(_CONVOLUTIONS)
    return "_attentions_" in name or (module_set != "attention-mlp" and name.endswith(_SMALL))
