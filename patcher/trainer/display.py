"""What a person sees of a run in ComfyUI: progress, text in the node, the live chart, samples."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils

from ...loha import Loha
from ...loha.training.run.chart import thinned
from ...loha.training.run.outcome import validation_line
from ...loha.training.run.progress import Progress, Watcher
from ...loha.training.run.validation import Validation
from ..messages import clock
from .run import Run
from .samples import Samples

_log = logging.getLogger(__name__)

_EVENT = "shinymas.training"
_SECONDS = 0.5  # between two messages to the browser
_POINTS = 500  # of the curve in a message: some 13 KB


class RunView:
    """What node `node_id` shows of a run: a line and the curve as it goes, and the last word where it ends early.

    To every page, and each time the whole of it: one that was loaded anew, was cut off for a while or is open in a
    second tab has all with the next message.
    """

    def __init__(self, node_id: str) -> None:
        # Not at import: the command line has no server.
        from server import PromptServer

        self._server = PromptServer.instance
        self._node_id = node_id
        self._advice: list[str] = []
        self._curve: dict[str, Any] = {"total": 1, "points": [], "validation": []}
        self._send(line="preparing")  # and nothing of the run before stays

    def show(self, line: str, losses: Sequence[float], total: int, validation: Sequence[tuple[int, float]]) -> None:
        """The run as it goes: `line` over the curve of the `losses` of all steps so far, out of `total`, and of the
        validations (step, loss)."""
        self._curve = {"total": total, "points": thinned(losses, _POINTS), "validation": validation[-_POINTS:]}
        self._send(line=line)

    def say(self, line: str) -> None:
        """What goes on before the first step."""
        self._send(line=line)

    def advise(self, text: str) -> None:
        """What a person can do about an error that is not ours to word: into the log, and before the last word."""
        _log.error("%s", text)
        self._advice.append(text)

    def end(self, text: str) -> None:
        """The last word of a run that ends without an output."""
        self._send(line="", output=self.output("\n".join([text, *self._advice])))

    def output(self, text: str) -> dict[str, list]:
        """A node's `ui`: its text, and the curve so far."""
        return {"text": [text], "shinymas_curve": [self._curve]}

    def _send(self, **more: Any) -> None:
        self._server.send_sync(_EVENT, {"node": self._node_id, **self._curve, **more})


class Display:
    """Tells `view` about the run of node `node_id`, and stops it when somebody cancels."""

    def __init__(self, view: RunView, node_id: str, run: Run, samples: Samples) -> None:
        self._view = view
        self._training = run.training
        self._samples = samples
        self._bar = comfy.utils.ProgressBar(run.training.total_steps, node_id=node_id)
        # Beside the progress all along: whether to go on like this is the person's choice, and it is made early.
        self._below = f"\n{run.resumption}" if run.resumption else ""
        if run.resumption:
            _log.warning("Train LoHa: %s", run.resumption)
        self._told = 0.0
        self._line = ""

    def watcher(self) -> Watcher:
        return Watcher(on_step=self._on_step, on_epoch=self._on_epoch, on_validating=self._on_validating,
                       on_validation=self._on_validation, wants_loha=self._samples.is_due, on_loha=self._on_loha)

    def _on_step(self, progress: Progress) -> None:
        self._line = progress_line(progress)
        if self._is_time() or progress.step == progress.total_steps:
            self._bar.update_absolute(progress.step, progress.total_steps)
            self._show(self._line)
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _on_validating(self, done: int, number: int) -> None:
        if self._is_time():
            self._show(f"{self._line}\nvalidating: picture {done} of {number}")
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _on_validation(self, validation: Validation) -> None:
        _log.info("Train LoHa: %s", validation_line(validation, self._training.validator.best))
        self._show(self._line)

    def _show(self, line: str) -> None:
        found = self._training.validator.found
        if found:
            line += f"\n{validation_line(found[-1], self._training.validator.best)}"
        self._view.show(line + self._below, self._training.losses, self._training.total_steps,
                        [(one.step, one.loss) for one in found])

    def _is_time(self) -> bool:
        """Whether a message is due, which then is to be sent."""
        now = time.monotonic()
        if now - self._told < _SECONDS:
            return False
        self._told = now
        return True

    def _on_epoch(self, epoch: int, loha: Callable[[], Loha]) -> None:
        if self._samples.is_due(self._samples.steps_done, epoch):
            self._draw(f"epoch-{epoch:06d}", loha)

    def _on_loha(self, step: int, loha: Callable[[], Loha]) -> None:
        self._draw(f"step-{step:08d}", loha)

    def _draw(self, name: str, loha: Callable[[], Loha]) -> None:
        for picture in self._samples.draw(name, loha):
            step = self._samples.steps_done
            self._bar.update_absolute(step, preview=("JPEG", picture, 512))


def progress_line(progress: Progress) -> str:
    """Step, loss, rate, speed and time left, in one line."""
    pace = progress.steps_here / max(progress.seconds, 1e-9)
    left = (progress.total_steps - progress.step) / max(pace, 1e-9)
    return (f"step {progress.step}/{progress.total_steps} · epoch {progress.epoch}/{progress.epochs} · "
            f"loss {progress.loss:.4f} · lr {progress.learning_rate:.2e} · {pace:.2f} it/s · {clock(left)} left")
