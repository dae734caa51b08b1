"""What the bytes of other years and tools mean, where it is not what they say today.

Read in LyCORIS's history (github.com/KohakuBlueleaf/LyCORIS): a rule is followed where the file's signs
are sufficient, and what was done, or could not be told, is a note of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isclose, sqrt

from torch import Tensor

from .. import product
from ..module import LohaModule

# Until then the forward pass of a Tucker module took `t1` for both products (mended in commit e7ae34d).
_SECOND_CORE_TRAINED = 1_697_155_200  # 2023-10-13, UTC
_CORE_START = 0.1  # standard deviation that cores start with; the mean is 0

Modules = Mapping[str, LohaModule]


def as_meant(modules: Modules, scalars: Mapping[str, float], metadata: Mapping[str, str]
             ) -> tuple[dict[str, LohaModule], list[str]]:
    """The modules with the ΔW that they were trained with, and a sentence on each rule.

    Args:
        scalars: `scalar` of modules that have one, by name.
    """
    found, notes = dict(modules), []
    for rule in (_second_core, _rank_stabilised):
        changed, note = rule(found, metadata)
        found |= changed
        notes += [note] if note else []
    for name, scalar in scalars.items():
        module = found[name]
        found[name] = replace(module, alpha=(module.rank if module.alpha is None else module.alpha) * scalar)
    if scalars:
        notes.append(f"scalar: {_counted(scalars)} multiplied by the number beside the factors, as LyCORIS's own "
                     "writer does")
    if means := [name for name, module in found.items()
                 if module.dora_scale is not None and product.dora_by_mean(module.dora_scale)]:
        notes.append(f"DoRA: in {_counted(means)} the magnitudes are means of the weights, not norms, as LyCORIS had "
                     "them until 2024-03-16 (a norm is not negative and has no kernel); they are applied so, and the "
                     "log names weights whose means are next to nothing")
    return found, notes


def _second_core(modules: Modules, metadata: Mapping[str, str]) -> tuple[dict[str, LohaModule], str]:
    tucker = [module for module in modules.values() if module.t2 is not None]
    if not tucker or not all(_untrained(module.t2) for module in tucker):
        return {}, ""
    began, tool = metadata.get("ss_training_started_at", ""), metadata.get("ss_network_module", "")
    looks = f"hada_t2 of the {_counted(tucker)} with a Tucker core looks as it was before training"
    try:
        early = float(began) < _SECOND_CORE_TRAINED
    except ValueError:
        early = None
    if "lycoris" in tool and early:
        return ({module.name: replace(module, t2=module.t1) for module in tucker},
                f"Tucker: {looks}, and LyCORIS trained none before 2023-10-13: hada_t1 is taken for both, as it was "
                "trained")
    kohya = any(module.name.startswith("lora_") for module in tucker)
    if early is False or (tool and "lycoris" not in tool) or not kohya:
        return {}, ""
    return {}, (f"Tucker: {looks}. LyCORIS of before 2023-10-13 took hada_t1 for both, and the file does not say when "
                "and by what it was trained: hada_t2 is used as it is")


def _untrained(core: Tensor) -> bool:
    """Whether a core can be a draw of N(0, 0.1²): within five standard errors, and the rounding of half precision."""
    values, count = core.double(), core.numel()
    spread, mean = float(values.std(correction=0)), float(values.mean())
    return (abs(mean) < 5 * _CORE_START / sqrt(count) + 1e-4
            and abs(spread / _CORE_START - 1) < 5 / sqrt(2 * count) + 1e-2)


def _rank_stabilised(modules: Modules, metadata: Mapping[str, str]) -> tuple[dict[str, LohaModule], str]:
    """rs_lora scales by alpha / √rank. From 2024-04-05 to 2024-07-09 alpha was stored as typed, since then · √rank."""
    try:
        args = json.loads(metadata.get("ss_network_args") or "{}")
        asked = str(args.get("rs_lora", "")).lower() in ("true", "1", "yes")
        typed = [float(value) for value in (metadata.get("ss_network_alpha"), args.get("conv_alpha"))
                 if value not in (None, "None", "")]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}, ""
    stated = [module for module in modules.values() if module.alpha is not None and module.rank > 1]
    if not asked or not stated:
        return {}, ""
    as_typed = all(_is_one_of(module.alpha, typed) for module in stated)
    multiplied = all(_is_one_of(module.alpha, [alpha * sqrt(module.rank) for alpha in typed]) for module in stated)
    if as_typed and not multiplied:
        return ({module.name: replace(module, alpha=module.alpha * sqrt(module.rank)) for module in stated},
                f"rs_lora: alpha is stored as it was typed, as LyCORIS did until 2024-07-09: {_counted(stated)} scaled "
                "by alpha / √rank")
    if multiplied and not as_typed:
        return {}, ""
    return {}, ("rs_lora: the file asks for alpha / √rank, and it cannot be told whether its alphas are stored as "
                "typed (until 2024-07-09) or already times √rank: the latter is taken")


def _is_one_of(value: float, candidates: Iterable[float]) -> bool:
    return any(isclose(value, one, rel_tol=5e-3) for one in candidates)  # alpha may be bfloat16


def _counted(modules: Mapping | list) -> str:
    return f"{len(modules)} module{'' if len(modules) == 1 else 's'}"
