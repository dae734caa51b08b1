"""Schedules by the names of their classes in torch, with text arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ....text import show
from ...errors import SettingsError
from .arguments import parse_arguments

SETTING = "lr_scheduler_args"
# Those whose arguments are numbers, texts and lists. Names come from files of strangers: no other is looked up.
_KNOWN = ("StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR",
          "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR")
_HOME = "torch.optim.lr_scheduler."
# Makes of a schedule something that its state in JSON would not bring back.
_OF_ITS_ARGUMENTS = {"milestones"}


def named_schedule(name: str, optimizer: Optimizer, arguments: str, total_steps: int) -> LRScheduler:
    """A schedule of torch's, as kohya-ss/sd-scripts' `lr_scheduler_type` has it; nothing warms up before it.

    Args:
        name: such as CosineAnnealingLR, with `torch.optim.lr_scheduler.` before it or without.
        arguments: `key=value`, apart by spaces; see `parse_arguments`.
        total_steps: of the run, which a schedule must not end before.

    Raises:
        SettingsError: another name; arguments that it does not take; a schedule that ends before the run.
    """
    short = name.strip().removeprefix(_HOME)
    if short not in _KNOWN:
        raise SettingsError(f"lr_scheduler_type: {show(repr(name))} is not one of torch's that take numbers: "
                            f"{', '.join(_KNOWN)}. Nothing is loaded from other packages.")
    keywords = parse_arguments(arguments, SETTING)
    if "optimizer" in keywords:
        raise SettingsError(f"{SETTING}: optimizer is not taken here")
    try:
        schedule = getattr(torch.optim.lr_scheduler, short)(optimizer, **keywords)
    # Whatever its checks stumble over, or its first rate.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise SettingsError(
            f"lr_scheduler_type {short} does not take {show(repr(arguments), 200)}: {show(error, 200)}") from error
    ends = getattr(schedule, "total_steps", total_steps)
    if ends < total_steps:
        raise SettingsError(f"{SETTING}: {short} ends after {ends} steps, and the run has {total_steps}: raise "
                            "total_steps, or epochs and steps_per_epoch")
    return schedule


def restorable(state: dict[str, Any]) -> dict[str, Any]:
    """Of a schedule's state what changes from step to step; the rest follows from its arguments."""
    return {key: value for key, value in state.items() if key not in _OF_ITS_ARGUMENTS}
