"""A run's folder: its LoHa files and the state to go on from."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ....text import show
from ... import files
from ...errors import FileError
from ...files.atomic import write_whole
from ...module import Loha, Source
from ...precision import DTYPES
from ..settings.hyper_parameters import TrainingSettings
from .state import RunState, pack, unpack

_log = logging.getLogger(__name__)
# Not .safetensors, so that it is in no list of LoRAs.
STATE_FILE = "training.state"


class RunFolder:
    """One run's own folder; what is in it is this run's, so it may replace it.

    Args:
        path: of the run that goes on; `create` makes one for a new run.
        settings: output_name, save_precision and what says which files are kept are looked at.

    Raises:
        FileError: output_name is no safe file name.
    """

    def __init__(self, path: Path, settings: TrainingSettings) -> None:
        self.path = path
        self._name = _target(path, settings).name
        self._dtype = DTYPES[settings.save_precision]
        self._keep_last = settings.keep_last
        self._every, self._steps = settings.save_every_n_steps, settings.keep_last_steps

    @classmethod
    def create(cls, parent: Path, settings: TrainingSettings,
               taken: Callable[[Path], object] = lambda path: None) -> RunFolder:
        """Make `parent/output_name`, or `output_name-2`, `-3` … where that is there or `taken`.

        Raises:
            FileError: no folder can be made there, or output_name is no safe file name.
        """
        base = _target(parent, settings)
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                path = base if number == 1 else base.with_name(f"{base.name}-{number}")
                if taken(path):
                    continue
                with suppress(FileExistsError):
                    path.mkdir()
                    return cls(path, settings)
        except OSError as error:
            raise FileError(f"{show(base, 200)}: the run's folder cannot be made ({error.strerror}). Check the free "
                            "space and the permissions.") from error

    def write_epoch(self, loha: Loha, epoch: int, ending: str = "") -> Source:
        """Write the LoHa after `epoch` (from 1); remove the oldest of that ending beyond `keep_last`."""
        return self._among_the_last(loha, f"{self._name}-{epoch:06d}", ending)

    def write_step(self, loha: Loha, step: int, ending: str = "") -> Source:
        """Write the LoHa after `step` steps, in between or of a run that ended early.

        It counts as an epoch's does, unless `keep_last_steps` says how far back files of steps go: then those are
        removed that kohya-ss/sd-scripts has removed by now (library/train_util.py, get_remove_step_no).
        """
        name = f"{self._name}-step{step:08d}"
        if not self._steps_apart:
            return self._among_the_last(loha, name, ending)
        written = self._write(loha, f"{name}{ending}")
        last = step - self._steps - 1
        last -= last % self._every
        for path, number in self._found(r"step(\d{8,})", ending):
            if number <= last:
                _remove(path)
        return written

    def write_final(self, loha: Loha, ending: str = "") -> Source:
        return self._write(loha, f"{self._name}{ending}")

    def write_best(self, loha: Loha) -> Source:
        """Write the LoHa that validated best so far, in place of the one before."""
        return self._write(loha, f"{self._name}-best")

    def best(self, step: int) -> Path | None:
        """The file of the LoHa that validated best, after `step` steps; None where it is not there any more.

        It may have another name: a run that goes on may have a new one.
        """
        for path in sorted(self.path.glob("*-best.safetensors")):
            with suppress(FileError):
                if files.read(path).metadata.get("ss_steps") == str(step):
                    return path
        return None

    def write_state(self, state: RunState) -> None:
        """Replace the state, whole or not at all. Raises `FileError` when it cannot be written."""
        write_whole(self.path / STATE_FILE, [save(*pack(state))], overwrite=True)

    def remove_if_empty(self) -> None:
        """Of a run that ended before its first step."""
        with suppress(OSError):
            self.path.rmdir()

    def _write(self, loha: Loha, name: str) -> Source:
        return files.save(loha, self.path / f"{name}.safetensors", self._dtype, overwrite=True)

    @property
    def _steps_apart(self) -> bool:
        """Whether files of steps are kept by a rule of their own, as with save_every_n_steps alone they may."""
        return bool(self._steps and self._every)

    def _among_the_last(self, loha: Loha, name: str, ending: str) -> Source:
        written = self._write(loha, f"{name}{ending}")
        if self._keep_last:
            for path in self._intermediate(ending)[:-self._keep_last]:
                _remove(path)
        return written

    def _intermediate(self, ending: str) -> list[Path]:
        """Files of epochs, and of steps where these count too, in the order in which they were written."""
        numbers = r"(\d{6,})" if self._steps_apart else r"(?:step(?=\d{8}))?(\d{6,})"
        found = (path for path, _ in self._found(numbers, ending))
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _found(self, number: str, ending: str) -> list[tuple[Path, int]]:
        """This run's files with such a number and ending, and the number."""
        pattern = re.compile(f"{re.escape(self._name)}-{number}{re.escape(ending)}\\.safetensors")
        matches = ((path, pattern.fullmatch(path.name)) for path in self.path.iterdir())
        return [(path, int(match[1])) for path, match in matches if match]


def check_output_name(parent: Path, settings: TrainingSettings) -> None:
    """Raise `FileError` where `RunFolder.create` would for the name; makes nothing."""
    _target(parent, settings)


def state_beside(loha: Loha) -> RunState | None:
    """The state of the run that wrote this LoHa's file, if it lies beside it and is not newer.

    A state that is newer than the file means that somebody chose to go back: then the file's
    weights alone count, and there is none.

    Raises:
        FileError: the state is there and broken.
    """
    if loha.source is None:
        return None
    path = Path(loha.source.path).parent / STATE_FILE
    if not path.is_file():
        return None
    state = read_state(path)
    steps = loha.metadata.get("ss_steps", "")
    same_run = loha.metadata.get("ss_session_id") == state.session
    return state if same_run and steps.isdecimal() and state.step <= int(steps) else None


def read_state(path: Path) -> RunState:
    """Read a state that `RunFolder.write_state` wrote. Raises `FileError`."""
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            # Copies: the file is replaced at the next save, which Windows refuses while it is mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        return unpack(tensors, metadata)
    except (SafetensorError, OSError) as error:
        # The library's own words may quote what stands in the file.
        raise FileError(f"{show(path, 200)}: the training state cannot be read; remove it to go on from the LoHa's "
                        "weights alone.") from error
    except FileError as error:
        raise FileError(f"{show(path, 200)}: {error}; remove it to go on from the LoHa's weights alone.") from error


def _remove(path: Path) -> None:
    """Where it may be: Windows keeps a file that some program has open. The next time tries again."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed now: %s", show(path, 200), show(error.strerror or error))


def _target(parent: Path, settings: TrainingSettings) -> Path:
    try:
        return files.resolve_name(parent, settings.output_name).with_suffix("")
    except FileError as error:
        raise FileError(f"output_name: {error}") from error
