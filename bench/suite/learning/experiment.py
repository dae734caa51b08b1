"""The whole of it: the base model learns, two trainers teach it the characters, everybody is painted and recognised."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from shinymas_loha.loha.training.settings import TrainingSettings

from .characters import NAMES, cast, training_data
from .recognition import Cell, recognised, right_by_tags
from .trainers import Lycoris, Ours
from .world import SETTINGS, Brush, learn, small_models

_STRENGTHS = (0.6, 0.8, 1.0)
_SEED = 0
_RATE = 5e-3


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Args:
        base_steps: of the base model's training.
        epochs: over the characters' pictures.
        painted: pictures of each character at each strength.
        sampler_steps: for each of them.
    """

    base_steps: int
    epochs: int
    painted: int
    sampler_steps: int


FULL, QUICK = Size(1500, 31, 12, 12), Size(3, 1, 1, 2)


@dataclass(frozen=True)
class Found:
    """What came of it.

    Args:
        cells: everybody at every strength, the base model first.
        right: their conditions → of the 96 looks, how many come out right when painted from their tags.
    """

    cells: list[Cell]
    right: dict[str, int]


def settings(epochs: int) -> TrainingSettings:
    """The model page's rank, alpha, schedule and epochs; a higher rate, as there are far fewer steps than there."""
    return replace(SETTINGS, learning_rate=_RATE, optimizer="AdamW", optimizer_args="fused=True",
                   max_train_epochs=epochs, seed=_SEED, output_name="learning")


def run(size: Size, out: Path, on_step: Callable[[str, int, int, float], None]) -> Found:
    """Everything, on the CPU. `on_step` gets what is trained, the step from 1, the steps and the loss.

    Args:
        out: an existing folder; our trained file stays there.
    """
    models, people = small_models(NAMES, _SEED), cast(_SEED)
    learn(models, size.base_steps, _SEED, partial(on_step, "base model"))
    chosen = settings(size.epochs)
    trainers = (Ours(models, chosen, out / "learning.safetensors"), Lycoris(models, chosen))
    with tempfile.TemporaryDirectory() as folder:
        data = training_data(people, Path(folder), _SEED)
        for trainer in trainers:
            trainer.train(data, partial(on_step, trainer.name))
    found = Found([], {})

    brush = Brush(models, size.sampler_steps, _SEED)

    def paint(condition: str) -> None:
        found.cells.extend(recognised(brush, people, size.painted, condition))
        found.right[condition] = right_by_tags(brush)

    paint("base")
    for trainer in trainers:
        for strength in _STRENGTHS:
            with trainer.on(strength):
                paint(f"{trainer.name} {strength}")
    return found
