"""One step of the parameters: optimiser, gradient scaler and schedule together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..settings.hyper_parameters import TrainingSettings
from . import schedules
from .by_class import restorable
from .optimisers import class_name, finds_its_rate, is_schedule_free, load_state, make_optimiser


class Update:
    """What moves a network's parameters along their gradients.

    Args:
        parameters: all of them.
        groups: the same, as `LohaNetwork.parameter_groups` has them.
        limit: called after they have moved.
        scales: whether gradients are scaled, for a forward pass in fp16.
        device: kind of device, such as "cuda".
        steps_per_epoch, total_steps: of the optimiser.

    `notes` are what a person should know, one sentence each.

    Raises:
        SettingsError: an optimiser or schedule that cannot be had, or does not take its arguments.
    """

    def __init__(self, parameters: list[nn.Parameter], groups: list[dict[str, Any]], settings: TrainingSettings, *,
                 limit: Callable[[], None], scales: bool, device: str, steps_per_epoch: int, total_steps: int) -> None:
        self.parameters, self._limit, self._settings = parameters, limit, settings
        self._peak = groups[0]["lr"]
        self.optimiser, note = make_optimiser(settings.optimizer, groups, settings.optimizer_args)
        self.notes = [note] if note else []
        self._course = schedules.course(settings, steps_per_epoch, total_steps)
        self._name, self._is_schedule_free = settings.lr_scheduler, is_schedule_free(self.optimiser)
        if self._is_schedule_free or finds_its_rate(self.optimiser):
            # As kohya's scripts: whatever schedule is chosen, there is none.
            self._name, self._course = "constant", {**self._course, "warmup": 0, "kind": "", "arguments": ""}
            if self._is_schedule_free and settings.lr_scheduler != "constant":
                self.notes.append(f"{type(self.optimiser).__name__} has no schedule: lr_scheduler is not used; a "
                                  "warm-up is an argument of its own (warmup_steps)")
        self._schedule = schedules.build(self._name, self.optimiser, **self._course)
        self.scaler = torch.amp.GradScaler(device, enabled=scales)
        self._has_gradients = False

    @property
    def name(self) -> str:
        """The optimiser's class, as `class_name` has it."""
        return class_name(self.optimiser)

    @property
    def learning_rate(self) -> float:
        """Of the next step and the first parameter group."""
        return float(self.optimiser.param_groups[0]["lr"])

    def learning_rates(self) -> list[float]:
        """Of the next step and each parameter group."""
        return [float(group["lr"]) for group in self.optimiser.param_groups]

    def planned_rates(self) -> list[float]:
        """Of the first parameter group, at each step of the run."""
        return schedules.curve(self._name, learning_rate=self._peak, **self._course)

    def gradient_norm(self) -> Tensor:
        """Clip the gradients of a whole step; their norm before, (), on the device."""
        # The same on every process. Without any, the scaler refuses to be asked, and no parameter moves.
        self._has_gradients = any(parameter.grad is not None for parameter in self.parameters)
        if self._has_gradients:
            self.scaler.unscale_(self.optimiser)
        return torch.nn.utils.clip_grad_norm_(self.parameters, self._settings.max_grad_norm or math.inf).detach()

    def step(self, norm: float) -> None:
        """Move the parameters, after `gradient_norm`, which gave `norm`; the gradients are gone afterwards."""
        if self._has_gradients:
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self._limit()
        if math.isfinite(norm):  # else the scaler left the step out, and the schedule waits, as accelerate's
            self._schedule.step()
        self.forget_gradients()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, parameters are those to be used, of a schedule-free optimiser; afterwards as before, to the bit."""
        if not self._is_schedule_free:
            yield
            return
        # Its way back from them rounds.
        before = [parameter.detach().clone() for parameter in self.parameters]
        self.optimiser.eval()
        try:
            yield
        finally:
            self.optimiser.train()
            with torch.no_grad():
                for parameter, value in zip(self.parameters, before, strict=True):
                    parameter.copy_(value)

    def forget_gradients(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)

    def state_dicts(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Of the optimiser, the schedule and the scaler."""
        return self.optimiser.state_dict(), self._schedule.state_dict(), self.scaler.state_dict()

    def load_state_dicts(self, optimiser: Mapping[str, Any], schedule: Mapping[str, Any],
                         scaler: Mapping[str, Any]) -> None:
        load_state(self.optimiser, optimiser)
        self._schedule.load_state_dict(restorable(dict(schedule)))
        self.scaler.load_state_dict(scaler)
