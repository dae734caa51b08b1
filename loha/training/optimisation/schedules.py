"""Learning rate over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from ....text import show
from ...errors import SettingsError
from ..settings.hyper_parameters import MODEL_CARD, PIECEWISE, TrainingSettings
from .arguments import parse_arguments
from .by_class import SETTING, named_schedule

_Shape = Callable[[float, int], float]
_END_RATE = 1e-7  # of polynomial


def build(
    name: str,
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup: int = 0,
    cycles: int = 1,
    decay: int = 0,
    power: float = 1.0,
    floor: float = 0.0,
    timescale: int = 0,
    base_rate: float = 0.0,
    kind: str = "",
    arguments: str = "",
) -> LRScheduler:
    """The schedule of a run; call its `step` after each step of the optimiser.

    "model card" is the model page's own, made of torch's classes as printed there; it looks at neither
    `total_steps` nor `warmup` nor `cycles`. The others rise from 0 over `warmup` steps, then follow the formulas of
    diffusers' and transformers' `optimization.py`. `state_dict` and `load_state_dict`, together with the optimiser's,
    resume any of them to the step.

    Args:
        name: one of `settings.SCHEDULES`.
        steps_per_epoch: optimiser steps, so batches divided by the accumulation, rounded up.
        total_steps: optimiser steps of the whole run.
        cycles: of the cosines.
        decay: last steps of warmup_stable_decay, in which it falls.
        power: of polynomial, which ends at a rate of 1e-7.
        floor: share of the peak at which cosine_with_min_lr and warmup_stable_decay end.
        timescale: of inverse_sqrt; 0 is `warmup`, or 10 000 without one.
        base_rate: what polynomial's end is a share of; 0 is the first group's rate.
        kind: a class of torch's instead of `name`, which then does not count; nothing else but `arguments` does.
        arguments: `key=value` for `kind`, or those of `_ARGUMENTS`.

    Raises:
        SettingsError: an unknown name, arguments that are not taken, or a warm-up or decay that leaves no step.
    """
    if kind:
        return named_schedule(kind, optimizer, arguments, total_steps)
    keywords = _arguments(name, arguments)
    if name == MODEL_CARD:
        return _model_card(optimizer, steps_per_epoch)
    if name == PIECEWISE:  # as diffusers' it has no warm-up
        return LambdaLR(optimizer, _piecewise(keywords.get("step_rules")))
    if name not in _FACTORS:
        raise SettingsError(f"lr_scheduler: {show(repr(name))} is not one of {MODEL_CARD}, {', '.join(_FACTORS)}")
    check_warmup(warmup, total_steps, decay)
    base = base_rate or float(optimizer.param_groups[0]["lr"]) or 1.0
    if "min_lr" in keywords:
        if floor:
            raise SettingsError(f"{SETTING}: min_lr and lr_scheduler_min_lr_ratio {floor} exclude each other: keep one")
        floor = keywords["min_lr"] / base
    shape = _FACTORS[name](cycles=cycles, power=power, floor=floor, end=keywords.get("lr_end", _END_RATE) / base,
                           warmup=warmup, decay=decay, timescale=timescale or warmup or 10_000, total=total_steps,
                           waves=keywords.get("num_cycles", 0.5))

    def factor(step: int) -> float:
        if step < warmup:
            rise = step / warmup
            return rise * (1 - floor) + floor if name == "warmup_stable_decay" else rise
        # One step more than planned may be asked for: the last `step` looks ahead.
        return shape(min(1.0, (step - warmup) / max(1, total_steps - warmup)), step)

    return LambdaLR(optimizer, factor)


def run_length(settings: TrainingSettings, batches_per_epoch: int) -> tuple[int, int]:
    """Optimiser steps of an epoch and of the whole run.

    Raises:
        SettingsError: a warm-up that leaves no step.
    """
    steps_per_epoch = math.ceil(batches_per_epoch / settings.gradient_accumulation_steps)
    by_epochs = settings.max_train_epochs * steps_per_epoch
    total = min(by_epochs or settings.max_train_steps, settings.max_train_steps or by_epochs)
    course(settings, steps_per_epoch, total)
    return steps_per_epoch, total


def course(settings: TrainingSettings, steps_per_epoch: int, total_steps: int) -> dict[str, Any]:
    """The arguments of `build` that follow from the settings; shares of the run are rounded down to whole steps.

    Raises:
        SettingsError: a warm-up or decay that leaves no step.
    """
    warmup = int(settings.lr_warmup_share * total_steps) or settings.lr_warmup_steps
    decay = settings.lr_decay_steps if settings.lr_scheduler == "warmup_stable_decay" else 0
    decay = int(decay * total_steps if decay < 1 else decay)
    if settings.lr_scheduler != PIECEWISE:
        check_warmup(warmup, total_steps, decay)
    made = {"steps_per_epoch": steps_per_epoch, "total_steps": total_steps, "warmup": warmup, "decay": decay,
            "cycles": settings.lr_num_cycles, "power": settings.lr_scheduler_power,
            "base_rate": settings.learning_rate, "floor": settings.lr_scheduler_min_lr_ratio,
            "timescale": settings.lr_scheduler_timescale, "kind": settings.lr_scheduler_type,
            "arguments": settings.lr_scheduler_args}
    if _is_open(settings):
        _try(settings.lr_scheduler, settings.learning_rate, **made)
    return made


def check_schedule(settings: TrainingSettings) -> None:
    """What can be known of a schedule before it is known how long the run is.

    Raises:
        SettingsError: as `build`.
    """
    if _is_open(settings):
        _try(settings.lr_scheduler, settings.learning_rate, steps_per_epoch=1, total_steps=1,
             floor=settings.lr_scheduler_min_lr_ratio, kind=settings.lr_scheduler_type,
             arguments=settings.lr_scheduler_args)


def check_warmup(warmup: int, total_steps: int, decay: int = 0) -> None:
    """Raise `SettingsError` for a warm-up that leaves no step of the run, or none before the decay."""
    if warmup and warmup >= total_steps:
        raise SettingsError(f"lr_warmup_steps: {warmup} steps of warm-up leave nothing of a run of {total_steps}: "
                            "lower it, or train for more epochs")
    if decay and warmup + decay > total_steps:
        raise SettingsError(f"lr_decay_steps: {warmup} steps of warm-up and {decay} of decay are more than a run of "
                            f"{total_steps}: lower them, or train for more epochs")


def curve(name: str, *, learning_rate: float, total_steps: int, **course: Any) -> list[float]:
    """The learning rate of each of `total_steps` steps, for a chart. The rest is as in `build`."""
    optimizer = _stand_in(learning_rate)
    schedule = build(name, optimizer, total_steps=total_steps, **course)
    rates = []
    for _ in range(total_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def _is_open(settings: TrainingSettings) -> bool:
    """Whether a person's own arguments say what the schedule is."""
    return bool(settings.lr_scheduler_type or settings.lr_scheduler_args) or settings.lr_scheduler == PIECEWISE


def _try(name: str, rate: float, **course: Any) -> None:
    """Raise `SettingsError` for what a schedule stumbles over in its first step."""
    optimizer = _stand_in(rate)
    schedule = build(name, optimizer, **course)
    optimizer.step()
    try:
        schedule.step()
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise SettingsError(f"{SETTING}: {show(repr(course['arguments']), 200)} makes no learning rate: "
                            f"{show(error, 200)}") from error


def _stand_in(rate: float) -> Optimizer:
    """An optimiser over one number, for a schedule to look at."""
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def _arguments(name: str, text: str) -> dict[str, Any]:
    """`lr_scheduler_args` of a schedule by its own name."""
    values = parse_arguments(text, SETTING)
    taken = _ARGUMENTS.get(name, {})
    for key, value in values.items():
        if key not in taken:
            known = f"takes {' and '.join(taken)}" if taken else "takes none"
            raise SettingsError(f"{SETTING}: {show(key)} is not taken by {show(name)}, which {known}. Warm-up, cycles, "
                                "power and their like are settings of their own.")
        if isinstance(value, bool) or not isinstance(value, taken[key]):
            raise SettingsError(f"{SETTING}: {show(repr(value))} is no value of {key}")
    return values


def _piecewise(rules: Any) -> Callable[[int], float]:
    """The factor at a step by rules such as "1:10,0.1:20,0.01": 1 before step 10, 0.1 before 20, then 0.01."""
    try:
        *pairs, last = rules.split(",")
        split = [pair.split(":") for pair in pairs]
        until = sorted((int(step), float(factor)) for step, factor in {step: factor for factor, step in split}.items())
        end = float(last)
    except (AttributeError, ValueError, TypeError) as error:
        raise SettingsError(f"{SETTING}: piecewise_constant needs step_rules such as step_rules=\"1:10,0.1:20,0.01\": "
                            "a factor before each step, and one for the rest") from error
    return lambda step: next((factor for limit, factor in until if step < limit), end)


def _model_card(optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    return SequentialLR(optimizer, [
        LinearLR(optimizer, 0.1, total_iters=steps_per_epoch),
        CosineAnnealingWarmRestarts(optimizer, steps_per_epoch * 2, T_mult=2),
    ], [steps_per_epoch])


def _cosine(progress: float, cycles: float = 1.0) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * cycles * progress))


def _cosine_with_restarts(progress: float, cycles: int) -> float:
    return 0.0 if progress >= 1.0 else _cosine(progress * cycles % 1.0)


def _inverse_sqrt(*, warmup: int, timescale: int, **_: Any) -> _Shape:
    return lambda progress, step: 1.0 / math.sqrt((step + timescale - warmup) / timescale)


def _stable(*, total: int, decay: int, floor: float, cycles: int, **_: Any) -> _Shape:
    def factor(progress: float, step: int) -> float:
        fallen = step - (total - decay)
        if fallen < 0:
            return 1.0
        return floor + (1 - floor) * _cosine(fallen / decay, cycles) if fallen < decay else floor

    return factor


# Name → what makes of its arguments the factor at (progress after the warm-up in 0 … 1, step).
_FACTORS: dict[str, Callable[..., _Shape]] = {
    "cosine_with_restarts": lambda cycles, **_: lambda progress, step: _cosine_with_restarts(progress, cycles),
    "cosine": lambda waves, **_: lambda progress, step: _cosine(progress, 2.0 * waves),
    "constant": lambda **_: lambda progress, step: 1.0,
    "linear": lambda **_: lambda progress, step: 1.0 - progress,
    "polynomial": lambda power, end, **_: lambda progress, step: (1.0 - end) * (1.0 - progress) ** power + end,
    "cosine_with_min_lr": lambda floor, cycles, **_: lambda progress, step: (
        floor + (1 - floor) * _cosine(progress, cycles)),
    "inverse_sqrt": _inverse_sqrt,
    "warmup_stable_decay": _stable,
}
# What kohya's scripts pass on to diffusers' and transformers' functions, and is no setting of its own.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    PIECEWISE: {"step_rules": str},
    "cosine": {"num_cycles": int | float},  # waves; half a one is the default
    "polynomial": {"lr_end": int | float},
    "cosine_with_min_lr": {"min_lr": int | float},
}
