"""The run: epochs of steps, saved as it goes, to be cancelled and gone on with at any step."""

from __future__ import annotations

import math
import time
import traceback
from contextlib import suppress
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from ...module import Loha
from ..data import Batch, Latents, LossWeights, TrainingData
from ..models import Models
from ..network.loha_network import LohaNetwork
from ..objective.loss import Step
from ..objective.noise import draw
from ..optimisation import schedules
from ..optimisation.groups import rated
from ..optimisation.update import Update
from ..settings.hyper_parameters import TrainingSettings
from .characters import CharacterLosses
from .digest import compare_digest
from .ema import Ema
from .fingerprint import Comparison, Fingerprint, compare, fingerprint
from .folder import RunFolder
from .keeper import Keeper
from .memory import latent_bytes, optimiser_bytes
from .metadata import BaseFiles, RunFacts, training_metadata
from .nan_loss import REMEDY, not_finite
from .processes import World
from .progress import Progress, Stopped, TrainingError, Watcher
from .state import RunState
from .validation import Validator


class Training:
    """One run over `data`, from the start unless `resume` or `go_on_from` is called before `run`.

    Args:
        latents: of the same data.
        session: names the run in all its files.
        precision: fp16, bf16 or fp32: that of the settings, or another where the device asks for it.
        folder: where files go; None writes nothing. May be set until `run`, as `keeper.folder`.
        base: names and hashes of the files trained on, for the metadata.

    Raises:
        SettingsError: settings that leave nothing to train, or that the optimiser does not take.
    """

    def __init__(self, models: Models, data: TrainingData, latents: Latents, settings: TrainingSettings, *,
                 session: str, precision: str, folder: RunFolder | None = None,
                 base: BaseFiles = BaseFiles(), world: World = World()) -> None:  # noqa: B008
        self._models, self._data, self._latents, self._settings = models, data, latents, settings
        self._world, self._session, self._precision, self._base = world, session, precision, base
        self._weights = LossWeights(data, settings.seed)
        self.network = LohaNetwork(models, settings)
        repeat = not any(folder.options.captions.varies for folder in data.index.folders)
        self._step = Step(models, settings, precision, captions_repeat=repeat)

        self.steps_per_epoch, self.total_steps = schedules.run_length(settings, data.batches_per_epoch(world.size))
        self.keeper = Keeper(folder, world, self.state, self._lohas, settings, self.steps_per_epoch)
        device = models.device.type
        self.update = Update(
            list(self.network.parameters()),
            rated(self.network.parameter_groups(), self.network.factors.items(), settings),
            settings, limit=self.network.limit_norms, scales=precision == "fp16" and device == "cuda", device=device,
            steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps)
        self.notes = list(self.update.notes)
        self._ema = Ema(self.network.trained_tensors(), settings.ema_decay,
                        self.network.limit_norms if settings.scale_weight_norms else None)
        self.validator = Validator(models, data, settings, self._step, world, self.steps_per_epoch, self.total_steps)

        self.done = 0
        self.losses: list[float] = []
        self.characters = CharacterLosses(data.index)
        self._started = time.time()
        self._is_whole = True  # false while a step changes parameters

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of everything that a step's numbers follow from. Hashes the models' weights, which takes seconds."""
        machine = {
            "precision here": self._precision, "optimiser here": self.update.name,
            "loss scaling": self.update.scaler.is_enabled(), "kind of device": self._models.device.type,
            "processes": self._world.size, "predicts v": self._step.is_v,
        }
        return fingerprint(self._data, self._settings, self._models, self.total_steps, machine)

    def compare(self, state: RunState) -> Comparison:
        """In what this run differs from the one that left `state`; where in nothing, it may go on exactly."""
        if state.fingerprint is not None:
            return compare(state.fingerprint, self.fingerprint, self._data.index)
        machine = (self._precision, self.update.name, str(self.update.scaler.is_enabled()))
        return compare_digest(state.old_digest, self._data, self._settings, self._world, self.total_steps, machine)

    def resume(self, state: RunState) -> bool:
        """Go on exactly where `state` was taken; false, and nothing changed, where anything differs."""
        if self.compare(state).differences:
            return False
        self.take_up(state)
        return True

    def take_up(self, state: RunState) -> None:
        """Go on from `state`, whose run does not differ from this one."""
        self.network.load_state_dict(state.parameters)
        self.update.load_state_dicts(state.optimiser, state.schedule, state.scaler)
        self._ema.load_state_dict(state.ema)
        self.characters.load_state_dict(state.characters)
        self.validator.found = list(state.validations)
        self.done, self.losses, self._started = state.step, list(state.losses), state.started
        self._session, self.keeper.kept = state.session, state.step

    def go_on_from(self, loha: Loha) -> None:
        """Begin with this LoHa's weights instead of drawn ones. Raises as `LohaNetwork.take`."""
        self.notes += self.network.take(loha)
        self._ema.restart()

    def memory(self) -> tuple[int, int]:
        """Bytes that going on takes at least: on the device for a step, and in RAM for a cache of latents."""
        whole_epochs = self.total_steps // self.steps_per_epoch - math.ceil(self.done / self.steps_per_epoch)
        # With module dropout gradients are never there all at once.
        parameters = [] if self._settings.module_dropout else [
            parameter for parameter in self.network.computed_parameters() if parameter.requires_grad]
        step = optimiser_bytes(self.update.optimiser, parameters)
        return step, latent_bytes(self._data, whole_epochs, self._world.size)

    def run(self, watcher: Watcher = Watcher()) -> Loha:  # noqa: B008
        """Train to the end and return the LoHa; files are written as the settings say.

        Whatever ends it early (cancelling, running out of memory, a broken picture) leaves the state
        after the last whole step and a LoHa in the folder, and passes through.

        Raises:
            TrainingError: a loss or gradient is not finite.
            ProcessFailed: another process of the run failed, or is gone.
            Stopped: `watcher.should_stop` was true.
        """
        begin, before = time.monotonic(), self.done
        try:
            self._validate(watcher)  # which a cancelled run may have left undone
            if not self.done:
                self._give_loha(watcher)
            while self.done < self.total_steps and not self.validator.ends_run:
                epoch = self.done // self.steps_per_epoch
                self._train_epoch(epoch, watcher, begin, before)
                self._give_loha(watcher)
                self._validate(watcher)
                if self.done % self.steps_per_epoch == 0:
                    self._after_epoch(epoch + 1, watcher)
            self.keeper.final()
        except BaseException:
            if self._is_whole:
                self.keeper.what_there_is(self.done)
            raise
        return self.loha()

    def loha(self) -> Loha:
        """The network as it stands, with its metadata; the running mean of its factors, where there is one."""
        with self.update.in_use(), self._ema.in_place_of_factors():
            return self._loha()

    def _loha(self) -> Loha:
        facts = RunFacts(
            session_id=self._session, started_at=self._started, finished_at=time.time(),
            epoch=math.ceil(self.done / self.steps_per_epoch), steps=self.done, total_steps=self.total_steps,
            optimizer=self.update.name, precision=self._precision,
            processes=self._world.size, is_v=self._step.is_v, base=self._base)
        return Loha(self.network.modules_for_file(), metadata=training_metadata(self._settings, self._data, facts))

    def learning_rates(self) -> list[float]:
        """Of the first parameter group, at each step done, as planned."""
        return self.update.planned_rates()[:self.done]

    def state(self) -> RunState:
        """Where the run stands, for `resume`."""
        return RunState(
            self._session, self.fingerprint, self.done, self.network.state_dict(),
            *self.update.state_dicts(), tuple(self.losses), self._started, tuple(self.validator.found),
            self.characters.state_dict(), self._ema.state_dict())

    def _train_epoch(self, epoch: int, watcher: Watcher, begin: float, before: int) -> None:
        """The steps of an epoch that are not done yet, up to what wants the network off the models."""
        groups = self._settings.gradient_accumulation_steps
        batches = iter(self._data.epoch(self._settings.seed, epoch, self._world.size))
        for _ in range(self.done % self.steps_per_epoch * groups):
            next(batches)
        with self.network.attached():
            while self.done < self.total_steps and (group := list(islice(batches, groups))):
                rate = self.update.learning_rate
                loss, norm, stop = self._one_step(group, watcher)
                watcher.on_step(Progress(
                    self.done, self.total_steps, epoch + 1, math.ceil(self.total_steps / self.steps_per_epoch), loss,
                    rate, norm, time.monotonic() - begin, self.done - before))
                self.keeper.step(self.done)
                if stop:
                    raise Stopped(f"stopped after step {self.done} of {self.total_steps}")
                if self.validator.is_due(self.done) or watcher.wants_loha(self.done):
                    return

    def _one_step(self, group: list[Batch], watcher: Watcher) -> tuple[float, float, bool]:
        """One optimiser step over the batches of a group: its loss, its gradient's norm, whether to stop."""
        stop = watcher.should_stop()
        with watcher.breakable():
            told = self._world.sum_gradients(self.update.parameters, self._gradients(group, stop))
        norm = self.update.gradient_norm()
        # The one time in a step that the host waits for the device.
        norm, loss, stops, *seen = torch.cat((norm.to(told).view(1), told)).tolist()
        if reason := not_finite(loss, norm, self.update.scaler):
            self.update.forget_gradients()
            raise TrainingError(
                f"step {self.done + 1} of {self.total_steps}: {reason}; the network after step {self.done} is kept. "
                f"{REMEDY}")

        self._is_whole = False
        self.update.step(norm)
        self.losses.append(loss)
        self.characters.add(seen)
        self.done += 1
        self._ema.update(self.done)
        self._is_whole = True
        return loss, norm, stops > 0

    def _gradients(self, group: list[Batch], stop: bool) -> Tensor:
        """This process's share of a step's gradients, left in the parameters; its share of the loss, `stop`, and what
        `characters` tells."""
        batches = self._settings.gradient_accumulation_steps
        total = torch.zeros((), device=self._models.device)
        seen = torch.zeros(self.characters.told, device=self._models.device)
        try:
            for position, whole in enumerate(group):
                self.network.begin_step(self.done, position)
                part = whole.part(self._world.rank, self._world.size)
                if len(part):
                    losses = self._batch_losses(part)
                    # A share of the batch's mean. As in accelerate, a smaller last group is divided as a whole one.
                    loss = losses.sum() / (len(whole) * batches)
                    if loss.requires_grad:  # not where module dropout left no module
                        self.update.scaler.scale(loss).backward()
                    total += loss.detach() * (batches / len(group))
                    seen += self.characters.of(part, losses)
        except Exception as error:
            self._tell_the_others(error)
            raise
        self.network.end_step()
        return torch.cat((torch.stack((total, torch.full_like(total, float(stop)))), seen))

    def _tell_the_others(self, error: Exception) -> None:
        """They wait in this step's reduction."""
        if self._world.size == 1:
            return
        # Memory is the likeliest thing to be short of: what the step held goes before the reduction takes its own.
        traceback.clear_frames(error.__traceback__)
        self.update.forget_gradients()
        self.network.release_merged()
        # Where even this fails, they learn of it once this process leaves.
        with suppress(Exception):
            told = torch.zeros(2 + self.characters.told, device=self._models.device)
            self._world.sum_gradients(self.update.parameters, told, failed=True)

    def _batch_losses(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            posterior = self._latents(batch, self._settings.seed)
            drawn = draw(batch, self._settings, tuple(posterior.mean.shape[1:]), posterior)
            # Where the posterior lies: out of a cache that is the CPU, and nothing comes back from the device.
            latents = posterior.sample(drawn.posterior.to(posterior.mean)).to(self._models.device)
        captions = self._data.captions(batch, self._settings.seed, step=self.done, total_steps=self.total_steps)
        return self._step.losses(latents, drawn.to(self._models.device), captions, self._weights(batch))

    def _validate(self, watcher: Watcher) -> None:
        """Where it is time to; the best network so far is kept."""
        if not self.validator.is_due(self.done):
            return
        with self.update.in_use(), self._ema.in_place_of_factors(), self.network.attached(), watcher.breakable():
            found = self.validator(self.done, watcher.on_validating)
        if self.validator.is_best(found):
            self.keeper.best()
        self.validator.found.append(found)  # not before: where its LoHa could not be kept, going on validates again
        watcher.on_validation(found)

    def _give_loha(self, watcher: Watcher) -> None:
        if watcher.wants_loha(self.done):
            watcher.on_loha(self.done, self.loha)

    def _after_epoch(self, epoch: int, watcher: Watcher) -> None:
        self.keeper.epoch(self.done)
        self._world.wait()
        watcher.on_epoch(epoch, self.loha)

    def _lohas(self) -> dict[str, Loha]:
        """Those to write, see `Keeper`."""
        both = self._ema.is_on and self._settings.ema_keep_both
        return {"": self.loha()} | ({"-no-ema": self._loha()} if both else {})
