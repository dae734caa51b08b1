"""The scale of a PEFT LoHa: it stands in `adapter_config.json` beside the file, not in the file.

PEFT (github.com/huggingface/peft, tuners/loha and utils/other.py) scales by alpha / r, both per module
through `alpha_pattern` and `rank_pattern`. The rank shows in the factors, so only alpha is looked up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path

from ..errors import FileError
from ..module import LohaModule
from .opening import open_regular

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
_MAX_CONFIG = 1_000_000
# Patterns are regular expressions of a stranger, which may be made to run for hours: only names are followed.
_PLAIN = re.compile(r"[\w.-]+")


def alphas(path: str | os.PathLike[str], modules: Iterable[LohaModule]) -> tuple[dict[str, float], str | None]:
    """Return alpha by name for the PEFT modules that lack one, and a note where the scale is a guess."""
    lacking = [module for module in modules if module.alpha is None and module.name.startswith(PREFIX)]
    if not lacking:
        return {}, None
    try:
        alpha, patterns, ranks = _load(Path(path).parent / CONFIG)
    except FileError as error:
        return {}, (f"The scale is a guess (1): this is a PEFT file, and {CONFIG} beside it, where its alpha stands, "
                    f"{error} Put the {CONFIG} that came with the file into its folder.")
    strange = sorted({module.rank for module in lacking} - ranks)
    if strange:
        return {}, (f"The scale is a guess (1): {CONFIG} beside the file is for rank {_listed(ranks)}, the file has "
                    f"rank {_listed(strange)}; put the file's own {CONFIG} there.")
    found = {module.name: _for(module.name.removeprefix(PREFIX), patterns, alpha) for module in lacking}
    if not all(_PLAIN.fullmatch(pattern) for pattern in patterns):
        return found, (f"The scale of some modules is a guess: alpha_pattern in {CONFIG} holds "
                       "regular expressions, which are not followed.")
    return found, None


def _load(path: Path) -> tuple[float, dict[str, float], set[int]]:
    """alpha, alpha by pattern, and every rank that the configuration gives."""
    try:
        if not path.exists():
            raise FileError("is missing.")
        with open_regular(path) as file:
            text = file.read(_MAX_CONFIG + 1)
    except OSError as error:
        raise FileError("cannot be read.") from error
    if len(text) > _MAX_CONFIG:
        raise FileError(f"is larger than {_MAX_CONFIG} bytes.")
    try:
        config = json.loads(text.decode("utf-8"))
        kind, alpha, rank = config["peft_type"], config["alpha"], config["r"]
        alpha_pattern, rank_pattern = config.get("alpha_pattern") or {}, config.get("rank_pattern") or {}
        numbers = (alpha, rank, *alpha_pattern.values(), *rank_pattern.values())
        sound = kind == "LOHA" and all(type(number) in (int, float) and isfinite(number) for number in numbers)
        patterns = {str(pattern): float(value) for pattern, value in alpha_pattern.items()}
        if sound:
            return float(alpha), patterns, {int(rank), *map(int, rank_pattern.values())}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise FileError("is not a valid LoHa configuration of PEFT.") from error
    raise FileError("is not a valid LoHa configuration of PEFT.")


def _for(path: str, patterns: dict[str, float], default: float) -> float:
    """The first pattern that is the module's path or the end of it, as PEFT chooses."""
    return next(
        (alpha for pattern, alpha in patterns.items() if path == pattern or path.endswith(f".{pattern}")), default
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
