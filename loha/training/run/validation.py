"""The loss on pictures that are never trained on: on noise and timesteps that are the same each time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ....text import show
from ...errors import SettingsError
from ..data import Latents, LossWeights, TrainingData, seed_for, varied
from ..data.tags import character_of
from ..models import Models
from ..objective.loss import Step
from ..objective.noise import Draw, adapted
from ..randomness import stream
from ..settings.hyper_parameters import TrainingSettings
from .nan_loss import REMEDY
from .processes import World
from .progress import TrainingError

# The middles of four bands. kohya's (sd-scripts, train_network.py), so that the numbers compare.
TIMESTEPS = (200, 400, 600, 800)


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Args:
        step: optimiser steps before it.
        loss: mean over pictures and timesteps.
        by_timestep: mean over the pictures at each of `TIMESTEPS`.
        by_character: character → mean over her pictures, for those that can be told; most pictures first.
    """

    step: int
    loss: float
    by_timestep: tuple[float, ...]
    by_character: dict[str, float]


def check_validation(settings: TrainingSettings, data: TrainingData) -> None:
    """Raise `SettingsError` where the run is to end by validation and there are no pictures for it."""
    if settings.early_stop and data.validation is None:
        raise SettingsError(f"early_stop {settings.early_stop} needs pictures to validate on, and none are set apart: "
                            "set validation_split or validation_folder in LoHa Training Data, or early_stop to 0.")


class Validator:
    """Validates a network on `data.validation`: one pass of the U-Net a picture, at all `TIMESTEPS` at once.

    A picture is seen as it is, never mirrored, with its whole caption; its noise follows from the validation seed
    and its name. Latents are kept. Where no pictures are set apart it is never time to.

    Args:
        step: computes the losses, as it does in training.

    `found` are the validations of the run so far, in their order, `pictures` the positions of those looked at.
    """

    def __init__(self, models: Models, data: TrainingData, settings: TrainingSettings, step: Step,
                 world: World, steps_per_epoch: int, total_steps: int) -> None:
        self._data, self._settings, self._step, self._world = data.validation, settings, step, world
        self._device, self._steps_per_epoch, self._total_steps = models.device, steps_per_epoch, total_steps
        self.found: list[Validation] = []
        self.pictures: tuple[int, ...] = ()
        if self._data is not None:
            self._latents = Latents(self._data, models.encode)
            self._weights = LossWeights(self._data, settings.seed)
            number = len(self._data.index)
            most = min(settings.max_validation_steps * data.options.batch_size, number) or number
            # Spread over the folders, and so over the characters.
            self.pictures = tuple(place * number // most for place in range(most))

    @property
    def best(self) -> Validation | None:
        """The one with the lowest loss, the first of equals."""
        return min(self.found, key=lambda one: one.loss, default=None)

    def is_best(self, new: Validation) -> bool:
        """Whether one that is not among them yet is better than all."""
        return self.best is None or new.loss < self.best.loss

    @property
    def ends_run(self) -> bool:
        """Whether so many in a row were no better than the best that the run is to end."""
        since_best = len(self.found) - 1 - self.found.index(self.best) if self.found else 0
        return 0 < self._settings.early_stop <= since_best

    def is_due(self, done: int) -> bool:
        """Whether to validate after `done` steps: that may be after a resumed run's last, too."""
        if not (self.pictures and done) or (self.found and self.found[-1].step == done):
            return False
        epochs, steps = self._settings.validate_every_n_epochs, self._settings.validate_every_n_steps
        by_epochs = epochs and (done % (epochs * self._steps_per_epoch) == 0 or done == self._total_steps)
        return bool(by_epochs or (steps and done % steps == 0))

    def __call__(self, done: int, tell: Callable[[int, int], None]) -> Validation:
        """Validate after `done` steps; the network is on the models. `tell` gets pictures done, and all.

        Raises:
            TrainingError: a loss is not finite.
        """
        losses = torch.zeros(len(self.pictures), len(TIMESTEPS), device=self._device)
        for place in range(self._world.rank, len(self.pictures), self._world.size):
            losses[place] = self._losses(self.pictures[place])
            tell(place + 1, len(self.pictures))
        summed = self._world.sum_gradients([], losses.flatten()).view_as(losses).double().cpu()
        self._refuse_not_finite(summed, done)
        characters: dict[str, list[float]] = defaultdict(list)
        for picture, loss in zip(self.pictures, summed.mean(1).tolist(), strict=True):
            name = character_of(self._data.index, picture)
            if name is not None:
                characters[name].append(loss)
        found = sorted(characters.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return Validation(done, float(summed.mean()), tuple(summed.mean(0).tolist()),
                          {name: fmean(values) for name, values in found})

    @torch.no_grad()
    def _losses(self, picture: int) -> Tensor:
        """(timesteps,) losses of one picture."""
        index, seed = self._data.index, self._data.options.validation_seed
        posterior = self._latents.of(picture)
        generator = torch.Generator().manual_seed(
            seed_for(seed, "validation", index.folder(picture).label, index.names[picture]))
        shape = tuple(posterior.mean.shape[1:])
        latents = posterior.sample(torch.randn(1, *shape, generator=generator))
        noise = torch.randn(len(TIMESTEPS), *shape, generator=generator)
        if offset := self._settings.noise_offset:
            if scale := self._settings.adaptive_noise_scale:
                offset = adapted(offset, latents.cpu().float(), scale)
            noise = noise + offset * torch.randn(len(TIMESTEPS), shape[0], 1, 1, generator=generator)
        drawn = Draw(noise, torch.empty(0), torch.tensor(TIMESTEPS)).to(self._device)
        latents = latents.to(self._device).expand_as(drawn.noise)
        options = index.folder(picture).options.captions.without_chance
        return self._step.losses(latents, drawn, [varied(index.captions[picture], options, stream(seed))],
                                 self._weights.of(picture))

    def _refuse_not_finite(self, losses: Tensor, done: int) -> None:
        for picture, row in zip(self.pictures, losses.tolist(), strict=True):
            if not all(map(math.isfinite, row)):
                name = show(self._data.index.path(picture), 200)
                raise TrainingError(f"validation after step {done}: the loss of {name} is not finite. {REMEDY}")
