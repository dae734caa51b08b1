"""A run's losses and rates for TensorBoard, under the names that kohya's scripts give them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ....text import show
from ...errors import FileError
from ...module import Loha
from ..network.selection import is_text
from ..optimisation.optimisers import found_rates
from ..settings.hyper_parameters import TENSORBOARD, TrainingSettings
from .loop import Training
from .progress import Progress, Watcher
from .validation import Validation


def lacking(settings: TrainingSettings) -> str:
    """A sentence where a log is wanted and cannot be written; "" otherwise."""
    if settings.log_with != TENSORBOARD or importlib.util.find_spec("tensorboard") is not None:
        return ""
    return ("log_with: tensorboard is not installed into this Python (pip install tensorboard): the losses are in the "
            "report alone")


class EventLog:
    """Writes events for TensorBoard into `folder`, after those that a resumed run has there.

    As kohya-ss/sd-scripts (train_network.py, generate_step_logs): the average is over the last epoch's steps, rates
    are those of the next step, losses of epochs stand at the epoch's number.

    Raises:
        FileError: nothing can be written there.
    """

    def __init__(self, folder: Path, training: Training, settings: TrainingSettings) -> None:
        # Not at import: it takes a second, and may not be there.
        from torch.utils.tensorboard import SummaryWriter

        self._training, self._settings = training, settings
        parts = set(map(is_text, training.network.factors))
        whole = [name for name, part in (("unet", False), ("textencoder", True)) if part in parts]
        groups = training.update.optimiser.param_groups
        self._groups = [group["name"] for group in groups] if "name" in groups[0] else whole
        try:
            self._writer = SummaryWriter(str(folder), purge_step=training.done + 1 if training.done else None)
        except OSError as error:
            raise FileError(f"logging_dir: {show(folder, 200)} cannot be written ({error.strerror}): check the free "
                            "space and the permissions") from error

    def watching(self, watcher: Watcher) -> Watcher:
        """The same watcher, with everything told to the log first."""

        def on_step(progress: Progress) -> None:
            self._step(progress.step, progress.loss)
            watcher.on_step(progress)

        def on_validation(found: Validation) -> None:
            self._validation(found)
            watcher.on_validation(found)

        def on_epoch(epoch: int, loha: Callable[[], Loha]) -> None:
            self._write(epoch, {"loss/epoch_average": self._average()})
            self._writer.flush()
            watcher.on_epoch(epoch, loha)

        return replace(watcher, on_step=on_step, on_validation=on_validation, on_epoch=on_epoch)

    def close(self) -> None:
        self._writer.close()

    def _step(self, step: int, loss: float) -> None:
        values = {"loss/current": loss, "loss/average": self._average()}
        update = self._training.update
        for name, rate, found in zip(self._groups, update.learning_rates(), found_rates(update.optimiser),
                                     strict=True):
            values[f"lr/{name}"] = rate
            if found is not None:
                values[f"lr/d*lr/{name}"] = found
        self._write(step, values)

    def _validation(self, found: Validation) -> None:
        divergence = found.loss - self._average()
        every, (epoch, rest) = self._settings.validate_every_n_steps, divmod(
            found.step, self._training.steps_per_epoch)
        if every and found.step % every == 0:
            self._write(found.step, {"loss/validation/step_average": found.loss,
                                     "loss/validation/step_divergence": divergence})
        if self._settings.validate_every_n_epochs and not rest and epoch % self._settings.validate_every_n_epochs == 0:
            self._write(epoch, {"loss/validation/epoch_average": found.loss,
                                "loss/validation/epoch_divergence": divergence})

    def _average(self) -> float:
        return fmean(self._training.losses[-self._training.steps_per_epoch:])

    def _write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
