"""Rates and ranks of parts of the network: by kohya's blocks of the U-Net, and by patterns of modules' names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ....text import show
from ...errors import SettingsError
from .patterns import by_pattern

# Of SD 1.5 as kohya-ss/sd-scripts (networks/lora.py) counts: 12 on the way down, the middle, 12 on the way up.
SIDE = 12
BLOCKS = 2 * SIDE + 1
_UP_DOWN = re.compile(r"(up|down)_blocks_(\d+)_(resnets|upsamplers|downsamplers|attentions)_(\d+)_")
_MOST, MOST_RANK = 10.0, 128


def block_of(name: str) -> int | None:
    """kohya's number, 0 … 24, of the block that a U-Net module lies in; None for those in no block.

    As `get_block_index`: the blocks down begin at 1, for that of conv_in has no module in kohya's networks.
    """
    if match := _UP_DOWN.search(name):
        side, block, kind, place = match.groups()
        index = 3 * int(block) + (2 if kind.endswith("samplers") else int(place))
        return 1 + index if side == "down" else SIDE + 1 + index
    return SIDE if "mid_block_" in name else None


def block_weights(text: str) -> tuple[float, ...]:
    """The 25 factors of `block_lr_weights`; () where it is empty. Raises `SettingsError`."""
    if not text.strip():
        return ()
    try:
        weights = tuple(map(float, text.split(",")))
    except ValueError as error:
        raise SettingsError(f"block_lr_weights: {show(repr(text), 200)} is no list of numbers") from error
    if len(weights) != BLOCKS:
        raise SettingsError(f"block_lr_weights: {len(weights)} numbers, and there are {BLOCKS} blocks: {SIDE} down, "
                            f"the middle, {SIDE} up")
    if not all(0 <= weight <= 1000 for weight in weights):
        raise SettingsError("block_lr_weights: a factor is outside 0 to 1000")
    return weights


def module_rates(text: str) -> tuple[tuple[re.Pattern[str], float], ...]:
    """(pattern, rate) of `module_lrs`, such as `attn1=1e-4, _mid_block_=0`. Raises `SettingsError`."""
    return by_pattern(text, "module_lrs", "a rate", float, 0, _MOST)


def module_ranks(text: str) -> tuple[tuple[re.Pattern[str], int], ...]:
    """(pattern, rank) of `module_ranks`, such as `attn1=8, _mid_block_=0`. Raises `SettingsError`."""
    return by_pattern(text, "module_ranks", "a whole rank", int, 0, MOST_RANK)


def rank_of(text: str) -> Callable[[str], int | None]:
    """What gives a module's rank by its name: that of the first pattern found in it; 0 leaves it out."""
    patterns = module_ranks(text)
    return lambda name: next((rank for pattern, rank in patterns if pattern.search(name)), None)


def rate_of(blocks: str, modules: str) -> Callable[[str, float], tuple[float, str]] | None:
    """What gives a module's rate, and kohya's word for its group, from its name and its part's rate.

    None where nothing is chosen. The first pattern that is found in the name counts, and goes before the blocks.
    """
    weights, patterns = block_weights(blocks), module_rates(modules)
    if not (weights or patterns):
        return None

    def rate(name: str, base: float) -> tuple[float, str]:
        for number, (pattern, value) in enumerate(patterns):
            if pattern.search(name):
                return value, f"reg_lr_{number}"
        block = block_of(name) if weights and not name.startswith("lora_te") else None
        return (base, "") if block is None else (base * weights[block], f"block{block}")

    return rate


def kohyas_blocks(down: str, mid: str, up: str, threshold: float) -> str:
    """`block_lr_weights` of kohya's down_lr_weight, mid_lr_weight, up_lr_weight and block_lr_zero_threshold.

    As `get_block_lr_weight`: a missing list is of ones, a short one is filled with ones, a long one cut; factors up
    to the threshold are 0. A word such as `sine+.25` is a curve from block to block.

    Raises:
        SettingsError: neither numbers nor such a word.
    """
    parts = ((_list(text, length), length) for text, length in ((down, SIDE), (mid, 1), (up, SIDE)))
    filled = [weights and (weights + [1.0] * length)[:length] for weights, length in parts]
    cut = [[weight if weight > threshold else 0.0 for weight in weights] if weights else [1.0] * length
           for weights, length in zip(filled, (SIDE, 1, SIDE), strict=True)]
    return ",".join(repr(weight) for part in cut for weight in part)


def _list(text: str, length: int) -> list[float]:
    if not text:
        return []
    word, _, base = text.partition("+")
    try:
        if "," in text or length == 1:
            return [float(one) if one.strip() else 0.0 for one in text.split(",")]
        return [_CURVES[word](place / (length - 1)) + float(base or 0.0) for place in range(length)]
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{show(repr(text), 100)} is neither {length} numbers with commas nor one of "
                            f"{', '.join(_CURVES)} with +number behind it or not") from error


_CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda place: math.sin(math.pi * (1 - place) / 2), "sine": lambda place: math.sin(math.pi * place / 2),
    "linear": lambda place: place, "reverse_linear": lambda place: 1 - place, "zeros": lambda place: 0.0,
}
