"""What a person sees of a run in ComfyUI: progress, text under the node, the live chart, samples."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import comfy.model_management
import comfy.utils

from ...loha import Loha
from ...loha.training.run.chart import thinned
from ...loha.training.run.progress import Progress, Watcher
from .run import Run
from .samples import Samples

_log = logging.getLogger(__name__)

_EVENT = "shinymas.training"
_SECONDS = 0.5  # between two messages to the browser
_POINTS = 500  # of the curve in a message: some 13 KB


class Display:
    """Tells the browser about a run of node `node_id`, and stops it when somebody cancels."""

    def __init__(self, node_id: str, run: Run, samples: Samples) -> None:
        # Not at import: the command line has no server.
        from server import PromptServer

        self._server = PromptServer.instance
        self._node_id = node_id
        self._training = run.training
        self._samples = samples
        self._bar = comfy.utils.ProgressBar(run.training.total_steps, node_id=node_id)
        # Beside the progress all along: whether to go on like this is the person's choice, and it is made early.
        self._below = f"\n{run.resumption}" if run.resumption else ""
        if run.resumption:
            _log.warning("Train LoHa: %s", run.resumption)
        self._told = 0.0

    def watcher(self) -> Watcher:
        return Watcher(on_step=self._on_step, on_epoch=self._on_epoch)

    def _on_step(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= _SECONDS or progress.step == progress.total_steps:
            self._told = now
            self._bar.update_absolute(progress.step, progress.total_steps)
            self._server.send_progress_text(progress_line(progress) + self._below, self._node_id)
            # The whole curve, and to every page as the text above: one that was loaded anew, was cut off for a
            # while or is open in a second tab has all of it with the next message.
            points = thinned(self._training.losses, _POINTS)
            self._server.send_sync(
                _EVENT, {"node": self._node_id, "total": progress.total_steps, "points": points})
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _on_epoch(self, epoch: int, loha: Callable[[], Loha]) -> None:
        for picture in self._samples.after(epoch, loha):
            step = self._samples.steps_done
            self._bar.update_absolute(step, preview=("JPEG", picture, 512))


def progress_line(progress: Progress) -> str:
    """Step, loss, rate, speed and time left, in one line."""
    pace = progress.steps_here / max(progress.seconds, 1e-9)
    left = (progress.total_steps - progress.step) / max(pace, 1e-9)
    clock = time.strftime("%H:%M:%S", time.gmtime(left)) if left < 86_400 else f"{left / 86_400:.1f} days"
    return (f"step {progress.step}/{progress.total_steps} · epoch {progress.epoch}/{progress.epochs} · "
            f"loss {progress.loss:.4f} · lr {progress.learning_rate:.2e} · {pace:.2f} it/s · {clock} left")
