"""Learning rate over the steps of a run."""

from __future__ import annotations

import math

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
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings


def build(
    name: str,
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup: int = 0,
    cycles: int = 1,
) -> LRScheduler:
    """The schedule of a run; call its `step` after each step of the optimiser.

    "model card" is the model page's own, made of torch's classes as printed there; it looks at neither
    `total_steps` nor `warmup` nor `cycles`. The others rise from 0 over `warmup` steps, then follow
    the formulas of diffusers' `optimization.py`. `state_dict` and `load_state_dict`, together with the
    optimiser's, resume any of them to the step.

    Args:
        name: one of `settings.SCHEDULES`.
        steps_per_epoch: optimiser steps, so batches divided by the accumulation, rounded up.
        total_steps: optimiser steps of the whole run.

    Raises:
        SettingsError: an unknown name, or a warm-up that leaves no step.
    """
    if name == MODEL_CARD:
        return _model_card(optimizer, steps_per_epoch)
    if name not in _FACTORS:
        raise SettingsError(f"lr_scheduler: {show(repr(name))} is not one of {MODEL_CARD}, {', '.join(_FACTORS)}")
    check_warmup(warmup, total_steps)
    shape = _FACTORS[name]

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        # One step more than planned may be asked for: the last `step` looks ahead.
        return shape(min(1.0, (step - warmup) / max(1, total_steps - warmup)), cycles)

    return LambdaLR(optimizer, factor)


def run_length(settings: TrainingSettings, batches_per_epoch: int) -> tuple[int, int]:
    """Optimiser steps of an epoch and of the whole run.

    Raises:
        SettingsError: a warm-up that leaves no step.
    """
    steps_per_epoch = math.ceil(batches_per_epoch / settings.gradient_accumulation_steps)
    by_epochs = settings.max_train_epochs * steps_per_epoch
    total = min(by_epochs or settings.max_train_steps, settings.max_train_steps or by_epochs)
    check_warmup(settings.lr_warmup_steps, total)
    return steps_per_epoch, total


def check_warmup(warmup: int, total_steps: int) -> None:
    """Raise `SettingsError` for a warm-up that leaves no step of the run."""
    if warmup and warmup >= total_steps:
        raise SettingsError(f"lr_warmup_steps: {warmup} steps of warm-up leave nothing of a run of {total_steps}: "
                            "lower it, or train for more epochs")


def curve(
    name: str,
    *,
    learning_rate: float,
    steps_per_epoch: int,
    total_steps: int,
    warmup: int = 0,
    cycles: int = 1,
) -> list[float]:
    """The learning rate of each of `total_steps` steps, for a chart. Raises as `build`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    schedule = build(
        name, optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps, warmup=warmup, cycles=cycles
    )
    rates = []
    for _ in range(total_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def _model_card(optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    return SequentialLR(optimizer, [
        LinearLR(optimizer, 0.1, total_iters=steps_per_epoch),
        CosineAnnealingWarmRestarts(optimizer, steps_per_epoch * 2, T_mult=2),
    ], [steps_per_epoch])


def _cosine(progress: float, cycles: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _cosine_with_restarts(progress: float, cycles: int) -> float:
    return 0.0 if progress >= 1.0 else _cosine(progress * cycles % 1.0, 1)


def _constant(progress: float, cycles: int) -> float:
    return 1.0


def _linear(progress: float, cycles: int) -> float:
    return 1.0 - progress


_FACTORS = {
    "cosine_with_restarts": _cosine_with_restarts, "cosine": _cosine, "constant": _constant,
    "linear": _linear,
}
