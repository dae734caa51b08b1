"""What a run tells whoever started it, and how it ends early."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import LohaError
from ...module import Loha

if TYPE_CHECKING:
    from .validation import Validation


class TrainingError(LohaError):
    """The run cannot go on; its last good state is kept."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: steps and epochs from 1; the losses are the mean over the batch.

    `seconds` is what this session's steps took, `steps_here` how many they were. `learning_rate` is the
    one that the step was made with, of the first parameter group.
    """

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    steps_here: int


@dataclass(frozen=True, eq=False)
class Watcher:
    """What a run tells whoever started it. What these raise ends the run, with its state kept.

    Args:
        on_step: after every step.
        on_validating: (pictures done, of how many) in a validation.
        on_validation: after every validation.
        on_epoch: (epoch from 1, a function that makes the LoHa) after every epoch, the network off the models.
        wants_loha: asked before the first step and after each, with the steps done, whether `on_loha` is to be called.
        on_loha: (steps done, a function that makes the LoHa), the network off the models.
        should_stop: asked on every process before every step; true on any ends the run on all after it.
        breakable: around the part of each step that something from outside, such as a signal's handler, may break
            off with an exception of its own: nothing is changed in it. Outside of it that would lose the run.
    """

    on_step: Callable[[Progress], None] = lambda progress: None
    on_validating: Callable[[int, int], None] = lambda done, number: None
    on_validation: Callable[[Validation], None] = lambda validation: None
    on_epoch: Callable[[int, Callable[[], Loha]], None] = lambda epoch, loha: None
    wants_loha: Callable[[int], bool] = lambda done: False
    on_loha: Callable[[int, Callable[[], Loha]], None] = lambda done, loha: None
    should_stop: Callable[[], bool] = lambda: False
    breakable: Callable[[], AbstractContextManager[None]] = nullcontext


class Stopped(Exception):
    """The run ended early because `Watcher.should_stop` said so; its state is kept."""
