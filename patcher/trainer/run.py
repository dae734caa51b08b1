"""One training run inside ComfyUI, for the node and for the command line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import psutil
import torch

from ...loha import Loha, files
from ...loha.errors import SettingsError
from ...loha.training.data import Latents, TrainingData
from ...loha.training.optimisation.schedules import run_length
from ...loha.training.run.digest import session_name
from ...loha.training.run.event_log import EventLog, lacking
from ...loha.training.run.fingerprint import Comparison
from ...loha.training.run.folder import RunFolder, check_output_name, state_beside
from ...loha.training.run.loop import Training
from ...loha.training.run.memory import require
from ...loha.training.run.metadata import BaseFiles
from ...loha.training.run.outcome import character_lines, validation_lines
from ...loha.training.run.processes import World
from ...loha.training.run.progress import Watcher
from ...loha.training.run.validation import check_validation
from ...loha.training.settings.hyper_parameters import TENSORBOARD, TrainingSettings
from ...text import show
from .. import loras
from .models import TrainingModels

OUT_OF_MEMORY = (
    "out of memory: lower the batch size or the resolution of the pictures, or turn gradient_checkpointing on. "
    "What was trained so far is kept in the run's folder."
)
# A CPU's allocator raises nothing of its own kind.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of any kind ran out; ComfyUI and torch have several names for it."""
    lacking = isinstance(error, comfy.model_management.OOM_EXCEPTION | MemoryError)
    return lacking or (isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error))


@contextmanager
def memory_advice(tell: Callable[[str], None]) -> Iterator[None]:
    """Running out of memory passes through untouched, once `tell` was given what to lower."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            tell(OUT_OF_MEMORY)
        raise


@dataclass(frozen=True, eq=False)
class Run:
    """A prepared run.

    Args:
        training: ready to `run`.
        models: to be loaded again after anything else used the models.
        folder: where its files go.
        notes: what a person should know before it starts, one sentence each.
        log: for TensorBoard, where it is wanted and this is the first process.
    """

    training: Training
    models: TrainingModels
    folder: Path
    notes: tuple[str, ...]
    log: EventLog | None = None

    @property
    def resumption(self) -> str:
        """How it goes on from an interrupted run, in lines; "" for a new one."""
        return "\n".join(note for note in self.notes if note.startswith(("resumed: ", "differs: ")))

    def go(self, watcher: Watcher) -> Loha:
        """Train. Raises as `Training.run`."""
        try:
            with torch.inference_mode(False), torch.enable_grad():
                return self.training.run(self.log.watching(watcher) if self.log else watcher)
        finally:
            if self.log:
                self.log.close()

    def kept(self) -> str:
        """What an early end has left, and how to go on from it."""
        kept = self.training.keeper.kept
        if not kept:
            return "nothing was trained that could be kept"
        return (f"the network after step {kept} is kept: go on with --resume and the newest file in "
                f"{show(self.folder, 300)}")

    def stopped_report(self) -> str:
        """`key: value` lines on a run that ended early: what is kept, where, and how to go on."""
        training, keeper = self.training, self.training.keeper
        lines = [f"stopped: after step {training.done} of {training.total_steps}"]
        if keeper.not_kept:
            lines.append(f"not kept: {keeper.not_kept}")
        lines += validation_lines(training)[:2]
        if not keeper.last_file:
            nothing = "nothing new; go on from the same file as before" if keeper.kept else "nothing"
            return "\n".join([*lines, f"kept: {nothing}"])
        path = Path(keeper.last_file.path)
        name = next((path.relative_to(root) for root in loras.folders() if path.is_relative_to(root)), path)
        return "\n".join([
            *lines, f"kept: step {keeper.kept}, in {show(path, 300)}",
            f"to go on: press R, choose {show(name, 200)} in Load LoHa, connect it to resume (in the shipped graphs: "
            "switch it on) and run; no step is lost",
            "to use it as it is: the same file, in Load LoHa before Apply LoHa",
        ])

    def report(self, loha: Loha, seconds: float) -> str:
        """`key: value` lines on what came out."""
        training = self.training
        losses = training.losses
        tail = losses[-max(1, len(losses) // 10):]
        return "\n".join([
            f"modules: {len(loha)}", f"steps: {training.done} of {training.total_steps}",
            f"steps per epoch: {training.steps_per_epoch}",
            f"loss: {losses[0]:.5f} at first, {sum(tail) / len(tail):.5f} over the last {len(tail)} steps",
            f"seconds: {seconds:.1f}",
            f"folder: {show(self.folder, 300)}", *validation_lines(training), *self.notes, *character_lines(training),
        ])

    def best(self, loha: Loha) -> Loha:
        """The LoHa that validated best, as its file says; `loha`, the last, without validation or where it is gone."""
        found = self.training.validator.best
        file = found and self.training.keeper.folder.best(found.step)
        return files.read(file) if file else loha


def prepare(model, clip, vae, data: TrainingData, settings: TrainingSettings, *, output: Path, cache: Path,
            start: Loha | None = None, world: World = World(), base: BaseFiles = BaseFiles(),  # noqa: B008
            logs: Callable[[str], Path] | None = None, notes: Sequence[str] = ()) -> Run:
    """Check everything that can be checked before the first step, and load the models.

    Args:
        output: the folder that the run's own folder is made in.
        cache: for latents, where the data options want them on disk.
        start: a LoHa to go on from: exactly, where its run's state lies beside its file and nothing
            that matters has changed, else from its weights.
        world: all processes of the run; each must come here.
        base: names and hashes of the files that are trained on, for the metadata.
        logs: the folder for TensorBoard's events of the run whose folder has this name; None: none are written.
        notes: what a person should know besides, one sentence each.

    Raises:
        LohaError: of whichever kind says what must be changed.
    """
    if start is not None and settings.init_from:
        raise SettingsError("network_weights in the configuration and a LoHa to go on from (resume) exclude each "
                            "other: keep one")
    if settings.init_from:
        start = files.read(settings.init_from)
    check_output_name(output, settings)
    run_length(settings, data.batches_per_epoch(world.size))
    check_validation(settings, data)
    models = TrainingModels(model, clip, vae, settings.mixed_precision)
    models.load()
    notes = [*notes, *models.notes]
    with torch.inference_mode(False):
        loaded = models.models()
        latents = Latents(data, loaded.encode, folder=cache, vae_key=loaded.vae_key)
        run = Training(loaded, data, latents, settings, session=world.share("session", session_name(settings)),
                       precision=models.precision, world=world, base=base)
        resumed = start is not None and not settings.init_from and _resumes(run, start, world, notes)
        if start is not None and not resumed:
            run.go_on_from(start)
        _require_memory(run, models.device)
        if world.is_first:
            _ = run.fingerprint  # now, and not while an early end is kept
        if resumed:
            path = Path(start.source.path).parent
        else:
            made = str(RunFolder.create(output, settings, loras.hidden_by).path) if world.is_first else None
            path = Path(world.share("folder", made))
        run.keeper.folder = RunFolder(path, settings)
    lacks, log = lacking(settings), None
    if settings.log_with == TENSORBOARD and logs and world.is_first and not lacks:
        log = EventLog(logs(path.name), run, settings)
    return Run(run, models, path, (*notes, *run.notes, *([lacks] if lacks else [])), log)


def _resumes(run: Training, start: Loha, world: World, notes: list[str]) -> bool:
    """Go on exactly, if the LoHa's run left a state and nothing differs; `notes` get what a person should know."""
    state = state_beside(start)
    if state is None:
        return False
    # One process decides for all.
    text = world.share("comparison", json.dumps(run.compare(state)) if world.is_first else None)
    found = Comparison(*map(tuple, json.loads(text)))
    if found.differences:
        notes.append(f"resumed: weights alone, {len(found.differences)} thing(s) differ from the interrupted run")
        notes.extend(f"differs: {one}" for one in found.differences)
        return False
    run.take_up(state)
    notes.append(f"resumed: exactly, after step {state.step}")
    if found.unchecked:
        notes.append(f"not compared, for the interrupted run did not note it: {', '.join(found.unchecked)}")
    return True


def _require_memory(run: Training, device: torch.device) -> None:
    """Raise where the run cannot fit. What is free is asked after the models and factors have their place."""
    step, latents = run.memory()
    ram = math.inf  # Windows and macOS make more swap when they need it: nobody knows how much
    if sys.platform.startswith("linux"):
        # Swap counts: what lies there is slow, and fits.
        ram = comfy.model_management.get_free_memory(torch.device("cpu")) + psutil.swap_memory().free
    if device.type in ("cpu", "cuda"):  # elsewhere ComfyUI's number is a guess
        free = ram if device.type == "cpu" else comfy.model_management.get_free_memory(device)
        require("gradients and the optimiser's state", step, free,
                "Lower network_rank, or narrow module_set or module_filter.")
    require("the latents of all pictures (latent_cache memory)", latents, ram,
            "Set latent_cache to disk or none, or lower the resolution.")
