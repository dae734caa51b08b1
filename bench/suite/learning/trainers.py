"""Who teaches: this pack's trainer, and LyCORIS' modules beside it on the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import torch
from lycoris.modules.loha import LohaModule as LycorisModule
from shinymas_loha.loha import Loha, files, kernels
from shinymas_loha.loha.module import FACTOR_NAMES
from shinymas_loha.loha.product import flat_factors
from shinymas_loha.loha.training.data import Latents, TrainingData
from shinymas_loha.loha.training.models import Models
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import draw
from shinymas_loha.loha.training.optimisation import schedules
from shinymas_loha.loha.training.optimisation.optimisers import make_optimiser
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Watcher
from shinymas_loha.loha.training.settings import TrainingSettings

# Step from 1, steps, loss.
OnStep = Callable[[int, int, float], None]


class Ours:
    """As Train LoHa trains; what is put on the models is read back from the fp16 file at `path`."""

    name = "ours"

    def __init__(self, models: Models, settings: TrainingSettings, path: Path) -> None:
        self._models, self._settings, self._path = models, settings, path
        self._loha = Loha({})

    def train(self, data: TrainingData, on_step: OnStep) -> None:
        run = Training(self._models, data, Latents(data, self._models.encode), self._settings, session="learning",
                       precision="fp32")
        trained = run.run(Watcher(on_step=lambda at: on_step(at.step, at.total_steps, at.loss)))
        files.save(trained, self._path, overwrite=True)
        self._loha = files.read(self._path)

    @contextmanager
    def on(self, strength: float) -> Iterator[None]:
        """Inside, the models' weights are W + strength · ΔW; afterwards the very same as before."""
        layers = {name: self._models.layers[name] for name in self._loha.modules}
        before = {name: layer.weight.clone() for name, layer in layers.items()}
        try:
            for name, module in self._loha.modules.items():
                kernels.merge_(layers[name].weight, flat_factors(module), strength * module.scale)
            yield
        finally:
            for name, layer in layers.items():
                layer.weight.copy_(before[name])


class Lycoris:
    """LyCORIS' modules on the layers that the settings choose, beginning with the factors that ours begin with."""

    name = "LyCORIS"

    def __init__(self, models: Models, settings: TrainingSettings) -> None:
        self._models, self._settings = models, settings
        self._modules = torch.nn.ModuleList()
        for name, factors in LohaNetwork(models, settings).factors.items():
            module = LycorisModule(name, models.layers[name], 1.0, factors.rank, factors.alpha)
            for key in FACTOR_NAMES:
                getattr(module, key).data.copy_(getattr(factors, key))
            self._modules.append(module)

    def train(self, data: TrainingData, on_step: OnStep) -> None:
        """The batches, noise, loss, optimiser and schedule that ours has, in a loop of its own."""
        settings, seed = self._settings, self._settings.seed
        latents, objective = Latents(data, self._models.encode), Step(self._models, settings, "fp32")
        parameters = list(self._modules.parameters())
        groups = [{"params": parameters, "lr": settings.learning_rate}]
        optimiser, _ = make_optimiser(settings.optimizer, groups, settings.optimizer_args)
        steps_per_epoch, steps = schedules.run_length(settings, data.batches_per_epoch())
        schedule = schedules.build(settings.lr_scheduler, optimiser, steps_per_epoch=steps_per_epoch, total_steps=steps)
        batches = (batch for epoch in count() for batch in data.epoch(seed, epoch))
        with self.on(1.0):
            for step, batch in enumerate(islice(batches, steps), 1):
                means = latents(batch, seed).mean
                drawn = draw(batch, settings, tuple(means.shape[1:]))
                loss = objective.losses(means, drawn, data.captions(batch, seed)).mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
                on_step(step, steps, loss.item())

    @contextmanager
    def on(self, strength: float) -> Iterator[None]:
        """Inside, the layers' forward is LyCORIS' own, at that strength.

        Not its `merge_to`: that of 3.4.0 multiplies by alpha / rank twice.
        """
        try:
            for module in self._modules:
                module.multiplier = strength
                module.apply_to()
            yield
        finally:
            for module in self._modules:
                module.restore()
