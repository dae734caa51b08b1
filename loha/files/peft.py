"""The scale of a PEFT LoHa: it stands in `adapter_config.json` beside the file, not in the file.

PEFT (github.com/huggingface/peft, tuners/loha and utils/other.py) scales by alpha / r, both per module
through `alpha_pattern` and `rank_pattern`. The rank shows in the factors, so only alpha is looked up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ..errors import FileError
from ..module import LohaModule
from .opening import open_regular
from .patterns import NotFollowed, Pattern

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
_MAX_CONFIG = 1_000_000
_MAX_EXPRESSIONS = 50
_MAX_PATTERNS = 5_000
_PLAIN = re.compile(r"[\w.-]+")


def alphas(path: str | os.PathLike[str], modules: Iterable[LohaModule]) -> tuple[dict[str, float], str | None]:
    """Return alpha by name for the modules that lack one, and a note where their scale is a guess.

    PEFT's own names say whose file it is. Other names with dots (a tool has changed the prefix) need a configuration
    beside the file that is for just them; without one they are a file of a tool that scales by 1.
    """
    lacking = [module for module in modules if module.alpha is None and "." in module.name]
    if not lacking:
        return {}, None
    ours = all(module.name.startswith(PREFIX) for module in lacking)
    try:
        config = _load(Path(path).parent / CONFIG)
    except FileError as error:
        note = (f"The scale is a guess (1): this is a PEFT file, and {CONFIG} beside it, where its alpha stands, "
                f"{error} Put the {CONFIG} that came with the file into its folder.")
        return {}, note if ours else None
    paths = {module.name: module.name.removeprefix(PREFIX) for module in lacking}
    if not ours and not all(config.is_for(name) for name in paths.values()):
        return {}, None
    try:
        found, ranks = _followed(config.alphas, paths, config.alpha), _followed(config.ranks, paths, config.rank)
    except NotFollowed as error:
        return {}, (f"The scale is a guess (1): {CONFIG} beside the file holds patterns that are not followed "
                    f"({error}). Write the modules' names in their place.")
    strange = sorted({module.rank for module in lacking if module.rank != ranks[module.name]})
    if strange:
        return {}, (f"The scale is a guess (1): {CONFIG} beside the file is for rank {_listed(set(ranks.values()))}, "
                    f"the file has rank {_listed(strange)}; put the file's own {CONFIG} there.")
    return found, None


def doubt_of_others(others: Mapping[str, Mapping[str, object]]) -> str | None:
    """A note where modules of other kinds lack their scale: ComfyUI's adapters apply them, and know none either."""
    lacking = [name for name, tensors in others.items() if name.startswith(PREFIX) and "alpha" not in tensors
               and any(suffix.startswith(("lora_", "lokr_")) for suffix in tensors)]
    if not lacking:
        return None
    return (f"The scale of {len(lacking)} module{'' if len(lacking) == 1 else 's'} of another kind is a guess (1): "
            f"PEFT keeps it in {CONFIG} beside the file, which is read for LoHas alone. It is lora_alpha / r there: "
            "give that as the strength.")


@dataclass(frozen=True)
class _Config:
    """`targets`: names, or one expression, or None for whatever the model has."""

    alpha: float
    rank: int
    alphas: Mapping[str, float]
    ranks: Mapping[str, int]
    targets: list[str] | str | None

    def is_for(self, path: str) -> bool:
        """Whether PEFT would give the layer of this path, or of the end of it, a LoHa."""
        if isinstance(self.targets, list):
            return any(path == one or path.endswith(f".{one}") for one in self.targets)
        if self.targets in (None, "all-linear"):
            return False
        try:
            return Pattern(f"(.*\\.)?(?:{self.targets})").fullmatch(path)
        except NotFollowed:
            return False


def _load(path: Path) -> _Config:
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
        kind, alpha, rank, targets = config["peft_type"], config["alpha"], config["r"], config.get("target_modules")
        alphas, ranks = config.get("alpha_pattern") or {}, config.get("rank_pattern") or {}
        numbers = (alpha, rank, *alphas.values(), *ranks.values())
        sound = kind == "LOHA" and all(type(number) in (int, float) and isfinite(number) for number in numbers)
        sound = sound and (targets is None or isinstance(targets, str)
                           or all(isinstance(target, str) for target in targets))
        if sound:
            return _Config(float(alpha), int(rank), alphas, ranks, targets)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise FileError("is not a valid LoHa configuration of PEFT.") from error
    raise FileError("is not a valid LoHa configuration of PEFT.")


def _followed(patterns: Mapping[str, float], paths: Mapping[str, str], default: float) -> dict[str, float]:
    """Name → the value of the first pattern that its path matches, as PEFT matches: `(.*\\.)?(PATTERN)$`.

    Raises:
        NotFollowed: a pattern is no expression that can be followed safely, or there are too many.
    """
    expressions = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
    if len(expressions) > _MAX_EXPRESSIONS or len(patterns) > _MAX_PATTERNS:
        raise NotFollowed("too many")
    # One without repetition is safe, and quicker, as it is.
    matches = {pattern: Pattern(f"(.*\\.)?({pattern})").fullmatch if pattern in expressions
               else re.compile(f"(.*\\.)?({pattern})").fullmatch for pattern in patterns}
    return {name: next((value for pattern, value in patterns.items() if matches[pattern](path)), default)
            for name, path in paths.items()}


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
