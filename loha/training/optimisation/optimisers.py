"""Optimisers by name, from torch and from a short list of packages, with text arguments."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from typing import Any

import torch
from torch.optim import Optimizer

from ....text import show
from ...errors import SettingsError

# Names come from files of strangers: only what stands here is ever imported.
_PACKAGED = {
    name.lower(): f"{package}.{name}"
    for package, names in {
        "bitsandbytes.optim": ("AdamW8bit", "PagedAdamW8bit", "Lion8bit", "PagedLion8bit"),
        "prodigyopt": ("Prodigy",),
        "lion_pytorch": ("Lion",),
        "dadaptation": ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD"),
    }.items()
    for name in names
}
# LBFGS needs a closure, SparseAdam sparse gradients, and Muon takes no text encoder of mixed shapes.
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
_IN_TORCH = {
    name.lower(): name for name, item in vars(torch.optim).items()
    if inspect.isclass(item) and issubclass(item, Optimizer) and name not in _UNFIT
}
_INSTEAD = {"adamw8bit": "adamw", "pagedadamw8bit": "adamw"}
_CUDA_ONLY = "bitsandbytes.optim"


def optimiser_names() -> list[str]:
    """Every name that `make_optimiser` knows, installed or not."""
    packaged = (path.rpartition(".")[2] for path in _PACKAGED.values())
    return sorted([*_IN_TORCH.values(), *packaged], key=str.lower)


def make_optimiser(
    name: str, groups: list[dict[str, Any]], arguments: str = ""
) -> tuple[Optimizer, str]:
    """An optimiser over parameter groups, and a note for the report ("" if it is what was asked for).

    Args:
        name: as in torch.optim, kohya's or with its package (`prodigyopt.Prodigy`), whatever the case.
        groups: as torch takes them, each with its own "lr".
        arguments: `key=value`, apart by spaces; values are Python literals, a bare comma makes a tuple.

    Raises:
        SettingsError: an unknown name, a package that is not installed, arguments it does not take.
    """
    keywords = parse_arguments(arguments)
    if "lr" in keywords:
        raise SettingsError("optimizer_args: lr is not taken here; set learning_rate, unet_lr or text_encoder_lr")
    kind, note = _kind(name, groups)
    try:
        return kind(groups, **keywords), note
    except torch.OutOfMemoryError:
        raise
    # Whatever its checks stumble over: torch raises RuntimeError for what excludes each other, lion_pytorch asserts.
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"optimizer {show(name)} does not take {show(repr(arguments), 200)}: {show(error, 200)}"
        ) from error


def class_name(optimiser: Optimizer) -> str:
    """Such as `torch.optim.adamw.AdamW`: what really runs."""
    kind = type(optimiser)
    return f"{kind.__module__}.{kind.__qualname__}"


def check_optimiser(name: str, arguments: str = "") -> None:
    """What can be known of an optimiser before there is anything to train.

    One of bitsandbytes is looked for only: importing it loads CUDA's libraries. Any other is made, over one
    number.

    Raises:
        SettingsError: as `make_optimiser`.
    """
    path = _path(name)
    if not path.startswith(_CUDA_ONLY):
        make_optimiser(name, [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-3}], arguments)
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


def parse_arguments(text: str) -> dict[str, Any]:
    """`weight_decay=0.01 betas=0.9,0.99` → values. Raises `SettingsError` with the part that is wrong."""
    values = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if not (equals and key.isidentifier()):
            raise SettingsError(f"optimizer_args: {show(repr(part))} is not key=value")
        try:
            values[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise SettingsError(
                f"optimizer_args: {show(repr(value))} of {show(key)} is neither a number, True, False nor a list"
            ) from error
    return values


def _path(name: str) -> str:
    """Dotted path of a known optimiser, "" for one of torch."""
    wanted = name.lower()
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
    distribution = lacking.split(".")[0].replace("_", "-")
    return SettingsError(f"optimizer {attribute}: {reason}. Install it into ComfyUI's Python (pip install "
                         f"{distribution}), or choose AdamW.")


def _on_cuda(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.is_cuda for group in groups for parameter in group["params"])
