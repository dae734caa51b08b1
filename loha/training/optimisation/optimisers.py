"""Optimisers by name, from torch and from a short list of packages, with text arguments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ....text import show
from ...errors import SettingsError
from .arguments import parse_arguments

# Names come from files of strangers: only what stands here is ever imported.
_PACKAGED = {
    name.lower(): f"{package}.{name}"
    for package, names in {
        "bitsandbytes.optim": ("AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "PagedAdamW32bit", "Lion8bit",
                               "PagedLion8bit", "AdEMAMix8bit", "PagedAdEMAMix8bit"),
        "prodigyopt": ("Prodigy",),
        "prodigyplus": ("ProdigyPlusScheduleFree",),
        "schedulefree": ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"),
        "lion_pytorch": ("Lion",),
        "came_pytorch": ("CAME",),
        "dadaptation": ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD"),
        "dadaptation.experimental": ("DAdaptAdamPreprint", "DAdaptAdanIP"),
    }.items()
    for name in names
}
# By these alone: torch has an Adafactor too, and there are two CAMEs.
_ADAFACTOR = "transformers.optimization.Adafactor"
_BY_PATH = {
    "transformers.adafactor": _ADAFACTOR, _ADAFACTOR.lower(): _ADAFACTOR,
    "pytorch_optimizer.came": "pytorch_optimizer.CAME",
    "prodigyplus.prodigy_plus_schedulefree.prodigyplusschedulefree": "prodigyplus.ProdigyPlusScheduleFree",
}
# kohya's names for others with arguments: what they are, and arguments that count where none are given.
_MOMENTUM = {"momentum": 0.9, "nesterov": True}
_ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgdnesterov": ("SGD", _MOMENTUM), "sgdnesterov8bit": ("bitsandbytes.optim.SGD8bit", _MOMENTUM),
    "dadaptation": ("DAdaptAdamPreprint", {}),
}
_DISTRIBUTIONS = {"prodigyplus": "prodigy-plus-schedule-free"}
# They find the rate by themselves, around a given one that is best left at 1; and one for all.
_ADAPTIVE, _ONE_RATE = ("prodigyopt.", "dadaptation.", "prodigyplus."), ("prodigyopt.", "dadaptation.")
_LOW_RATE = 0.1
# LBFGS needs a closure, SparseAdam sparse gradients.
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}
_IN_TORCH = {
    name.lower(): name for name, item in vars(torch.optim).items()
    if inspect.isclass(item) and issubclass(item, Optimizer) and name not in _UNFIT
}
_INSTEAD = {"adamw8bit": "adamw", "pagedadamw8bit": "adamw"}
_CUDA_ONLY = "bitsandbytes.optim"


def optimiser_names() -> list[str]:
    """Every name that `make_optimiser` knows, installed or not."""
    packaged = (path.rpartition(".")[2] for path in _PACKAGED.values())
    return sorted([*_IN_TORCH.values(), *packaged, "transformers.Adafactor", "pytorch_optimizer.CAME", "SGDNesterov"],
                  key=str.lower)


def make_optimiser(
    name: str, groups: list[dict[str, Any]], arguments: str = ""
) -> tuple[Optimizer, str]:
    """An optimiser over parameter groups, and a note for the report ("" if it is what was asked for).

    As kohya-ss/sd-scripts makes it (library/train_util.py, get_optimizer): transformers' Adafactor finds its own rate
    unless `relative_step=False`, a schedule-free one is in its mode for training.

    Args:
        name: as in torch.optim, kohya's or with its package (`prodigyopt.Prodigy`), whatever the case.
        groups: as torch takes them, each with its own "lr".
        arguments: `key=value`, apart by spaces; see `parse_arguments`.

    Raises:
        SettingsError: an unknown name, a package that is not installed, arguments it does not take.
    """
    keywords = parse_arguments(arguments)
    if "lr" in keywords:
        raise SettingsError("optimizer_args: lr is not taken here; set learning_rate, unet_lr or text_encoder_lr")
    name, defaults = _ALIASES.get(name.lower(), (name, {}))
    keywords = {**defaults, **keywords}
    kind, note = _kind(name, groups)
    path = _path(name)
    if path == _ADAFACTOR:
        return _adafactor(kind, groups, keywords, arguments)
    if path and not path.startswith(_CUDA_ONLY):
        keywords["lr"] = groups[0]["lr"]  # CAME asks for one beside its groups'
    if path.startswith(_ADAPTIVE):
        note = _check_rates(kind.__name__, groups, one=path.startswith(_ONE_RATE))
    optimiser = _made(kind, groups, keywords, name, arguments)
    if is_schedule_free(optimiser):
        optimiser.train()
    return optimiser, note


def is_schedule_free(optimiser: Optimizer) -> bool:
    """Whether it has other parameters for training than for use, `train()` and `eval()` between them, and no schedule
    beside it (Defazio et al. 2024)."""
    return type(optimiser).__name__.lower().endswith("schedulefree")


def finds_its_rate(optimiser: Optimizer) -> bool:
    """Whether it is an Adafactor whose rate follows from the step alone: no other has a meaning."""
    return any(group.get("relative_step") for group in optimiser.param_groups)


def _made(kind: Any, groups: list[dict[str, Any]], keywords: dict[str, Any], name: str, arguments: str) -> Optimizer:
    try:
        return kind(groups, **keywords)
    except torch.OutOfMemoryError:
        raise
    # Whatever its checks stumble over: torch raises RuntimeError for what excludes each other, lion_pytorch asserts.
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"optimizer {show(name)} does not take {show(repr(arguments), 200)}: {show(error, 200)}"
        ) from error


def _adafactor(kind: Any, groups: list[dict[str, Any]], keywords: dict[str, Any],
               arguments: str) -> tuple[Optimizer, str]:
    """transformers' Adafactor, its `relative_step` on unless it is turned off, and by `warmup_init` in any case."""
    keywords.setdefault("relative_step", True)
    keywords["relative_step"] = keywords["relative_step"] or bool(keywords.get("warmup_init"))
    if not keywords["relative_step"]:
        return _made(kind, groups, keywords, "Adafactor", arguments), ""
    rates = [group["lr"] for group in groups]
    optimiser = _made(kind, [{**group, "lr": None} for group in groups], keywords, "Adafactor", arguments)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate  # is not looked at; a schedule needs a number
    return optimiser, ("Adafactor finds its own rate (relative_step): lr_scheduler, learning_rate, unet_lr and "
                       "text_encoder_lr are not used")


def _check_rates(name: str, groups: list[dict[str, Any]], *, one: bool) -> str:
    """A note on a rate that is low for one that finds its own. Raises `SettingsError` for two where it takes one."""
    rates = sorted({float(group["lr"]) for group in groups} - {0.0})
    if one and len(rates) > 1:
        raise SettingsError(f"optimizer {name} takes one learning rate for all, and there are {rates[0]} and "
                            f"{rates[-1]}: leave unet_lr and text_encoder_lr at 0, so that learning_rate counts, and "
                            "rates of blocks and modules out.")
    low = rates and rates[0] <= _LOW_RATE
    return f"{name} finds its own rate, times learning_rate: {rates[0]} is low, 1 is usual" if low else ""


def class_name(optimiser: Optimizer) -> str:
    """Such as `torch.optim.adamw.AdamW`: what really runs."""
    kind = type(optimiser)
    return f"{kind.__module__}.{kind.__qualname__}"


def found_rates(optimiser: Optimizer) -> list[float | None]:
    """For each group the rate that an optimiser has found by itself, times the one given; None of all others."""
    return [float(group["d"] * group["lr"]) if "d" in group else None for group in optimiser.param_groups]


def load_state(optimiser: Optimizer, state: Mapping[str, Any]) -> None:
    """Take up a `state_dict` exactly: `Optimizer.load_state_dict` alone makes everything of the parameters' dtype, and
    leaves tensors of groups where they are."""
    optimiser.load_state_dict(state)
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        mine = optimiser.state.get(parameter, {})
        for key, value in state["state"].get(number, {}).items():
            if isinstance(value, Tensor) and isinstance(mine.get(key), Tensor) and mine[key].dtype != value.dtype:
                mine[key] = value.to(mine[key].device, copy=True)
    for group in optimiser.param_groups:
        for key, value in group.items():
            if isinstance(value, Tensor):
                group[key] = value.to(group["params"][0].device)


def check_optimiser(name: str, arguments: str = "") -> None:
    """What can be known of an optimiser before there is anything to train.

    One of bitsandbytes is looked for only: importing it loads CUDA's libraries. Any other is made, over one
    number in a matrix, as Muon asks for.

    Raises:
        SettingsError: as `make_optimiser`.
    """
    path = _path(name)
    if not path.startswith(_CUDA_ONLY):
        make_optimiser(name, [{"params": [torch.nn.Parameter(torch.zeros(1, 1))], "lr": 1e-3}], arguments)
        return
    parse_arguments(arguments)
    package, _, attribute = path.rpartition(".")
    is_there = importlib.util.find_spec("bitsandbytes") is not None
    if attribute.lower() in _INSTEAD:
        if not (torch.cuda.is_available() and is_there):  # what will run instead must take the arguments
            check_optimiser(_INSTEAD[attribute.lower()], arguments)
        return
    if not torch.cuda.is_available():
        raise _unusable(attribute, "bitsandbytes works on CUDA alone, and there is none here")
    if not is_there:
        raise _unusable(attribute, "bitsandbytes is not installed", package)


def _path(name: str) -> str:
    """Dotted path of a known optimiser, "" for one of torch."""
    wanted = name.lower()
    if wanted in _BY_PATH:
        return _BY_PATH[wanted]
    if wanted in _ALIASES:
        return _path(_ALIASES[wanted][0])
    if name == _ALIASES["sgdnesterov8bit"][0]:
        return name
    for path in _PACKAGED.values():
        if wanted in (path.lower(), path.replace(".optim", "").lower()):
            return path
    short = wanted.removeprefix("torch.optim.")
    if short in _IN_TORCH:
        return ""
    if wanted in _PACKAGED:
        return _PACKAGED[wanted]
    raise SettingsError(f"optimizer: {show(repr(name))} is not known. Known: {', '.join(optimiser_names())}")


def _kind(name: str, groups: list[dict[str, Any]]) -> tuple[Any, str]:
    path = _path(name)
    if not path:
        return getattr(torch.optim, _IN_TORCH[name.lower().removeprefix("torch.optim.")]), ""
    package, _, attribute = path.rpartition(".")
    instead = _INSTEAD.get(attribute.lower())
    lacking = package  # what installing would mend
    if package == _CUDA_ONLY and not _on_cuda(groups):
        reason, lacking = "bitsandbytes works on CUDA alone", ""
    else:
        try:
            return getattr(importlib.import_module(package), attribute), ""
        # bitsandbytes raises other errors than ImportError where its CUDA library does not load.
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            reason = f"{package.split('.')[0]} cannot be imported ({show(error, 120)})"
    if instead is None:
        raise _unusable(attribute, reason, lacking)
    return getattr(torch.optim, _IN_TORCH[instead]), f"{attribute} → {_IN_TORCH[instead]}: {reason}"


def _unusable(attribute: str, reason: str, lacking: str = "") -> SettingsError:
    if not lacking:
        return SettingsError(f"optimizer {attribute}: {reason}. Choose AdamW.")
    package = lacking.split(".")[0]
    distribution = _DISTRIBUTIONS.get(package, package.replace("_", "-"))
    return SettingsError(f"optimizer {attribute}: {reason}. Install it into ComfyUI's Python (pip install "
                         f"{distribution}), or choose AdamW.")


def _on_cuda(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.is_cuda for group in groups for parameter in group["params"])
