"""What a run leaves in its folder, when."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...errors import FileError
from ...module import Loha, Source
from ..settings.hyper_parameters import TrainingSettings
from .folder import RunFolder
from .processes import World
from .state import RunState

_log = logging.getLogger(__name__)


class Keeper:
    """Writes LoHas and the state; the LoHa first: a state may be older than the file beside it, never newer.

    Args:
        folder: of the run; None writes nothing. Only the first process writes.
        state: makes the run's state as it stands.
        lohas: makes the LoHas to write, by the ending of their name: "" for the one that the run gives out.
        settings: after how many epochs and steps.
    """

    def __init__(self, folder: RunFolder | None, world: World, state: Callable[[], RunState],
                 lohas: Callable[[], dict[str, Loha]], settings: TrainingSettings, steps_per_epoch: int) -> None:
        self.folder, self._world, self._state, self._lohas = folder, world, state, lohas
        self._steps, self._epochs = settings.save_every_n_steps, settings.save_every_n_epochs
        self._steps_per_epoch = steps_per_epoch
        self.kept = 0  # the step whose state is on the disk
        self.last_file: Source | None = None  # that this session wrote
        self.not_kept = ""  # why the last step is not on the disk, after an early end

    def step(self, done: int) -> None:
        """After every step."""
        if self._is_due(done) and not self._due_epoch(done):
            self._keep_step(done)

    def epoch(self, done: int) -> None:
        """After every epoch, `done` steps being done in all."""
        epoch = self._due_epoch(done)
        if epoch and self._is_due(done):  # not before: an early end in between would leave one of the files out
            self._keep_step(done)
        if epoch:
            self._keep(lambda loha, ending: self.folder.write_epoch(loha, epoch, ending))

    def final(self) -> None:
        self._keep(lambda loha, ending: self.folder.write_final(loha, ending))

    def best(self) -> None:
        """The LoHa alone: the run goes on from its newest state."""
        if self._writes:
            self.folder.write_best(self._lohas()[""])

    def what_there_is(self, done: int) -> None:
        """After an early end, `done` steps being whole. A failure here must not hide what ended the run."""
        if not self._writes:
            return
        if not done:
            self.folder.remove_if_empty()
        elif done > self.kept:
            # Going on from the end of an epoch begins behind it.
            keep = self.epoch if self._due_epoch(done) else self._keep_step
            try:
                keep(done)
            except FileError as error:
                self.not_kept = str(error)
                _log.error("the state after step %d could not be kept: %s", done, error)

    @property
    def _writes(self) -> bool:
        return self.folder is not None and self._world.is_first

    def _is_due(self, done: int) -> bool:
        return bool(self._steps) and done % self._steps == 0

    def _due_epoch(self, done: int) -> int:
        """The epoch, from 1, that ends after `done` steps and is to be kept; else 0."""
        epoch, steps = divmod(done, self._steps_per_epoch)
        return epoch if self._epochs and not steps and epoch % self._epochs == 0 else 0

    def _keep_step(self, done: int) -> None:
        self._keep(lambda loha, ending: self.folder.write_step(loha, done, ending))

    def _keep(self, write: Callable[[Loha, str], Source]) -> None:
        if not self._writes:
            return
        # The one that is given out last: it is the one to go on from.
        written = [write(loha, ending) for ending, loha in sorted(self._lohas().items(), reverse=True)]
        state = self._state()
        self.folder.write_state(state)
        self.kept, self.last_file = state.step, written[-1]
