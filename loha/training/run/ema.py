"""A running mean of the factors (exponential moving average), beside those that are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """mean ← decay · mean + (1 − decay) · factors after each step, in the factors' dtype and on their device.

    Args:
        parameters: by name; also what else training moves.
        decay: of a long run; 0 for no means: then nothing here does anything. The first steps have
            (1 + step) / (10 + step) where that is less, as TensorFlow's ExponentialMovingAverage, so that the start,
            where ΔW = 0, is soon forgotten.
        limit: called with the means in place of the factors, for a ΔW of means may be larger than any of its factors'.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, limit: Callable[[], None] | None = None) -> None:
        self._parameters, self._decay, self._limit = dict(parameters), decay, limit
        self._means = {name: parameter.detach().clone() for name, parameter in self._parameters.items() if decay}

    @property
    def is_on(self) -> bool:
        return self._decay > 0

    def restart(self) -> None:
        """Begin anew at the factors as they are."""
        self.load_state_dict(self._parameters)

    def update(self, step: int) -> None:
        """After `step` steps, from 1."""
        if not self.is_on:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(self._means.values()), list(self._parameters.values()), None)
        if self._limit:
            with self.in_place_of_factors():
                self._limit()

    @contextmanager
    def in_place_of_factors(self) -> Iterator[None]:
        """Inside, the network has the means for its factors. Nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, mean in self._means.items():
                mean.copy_(state[name])

    def _swap(self) -> None:
        for name, mean in self._means.items():
            parameter = self._parameters[name]
            parameter.data, self._means[name] = mean, parameter.data
