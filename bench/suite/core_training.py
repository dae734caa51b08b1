"""A training step inside ComfyUI, by the picture: ours beside the train node of ComfyUI's core.

Both train the U-Net of the small sample model as their nodes do, optimiser included, on the same pictures'
sizes and captions. What is timed is the time from one report of progress to the next: preparing is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from kit.workspace import CHECKPOINT, add_samples

from suite.measure import Timing
from suite.results import Case, Row
from suite.session import Session

if TYPE_CHECKING:
    from shinymas_loha.loha.training.data import TrainingData

_PIXELS = 64
_RANK = 16
_RATE = 1e-3
_NOTE = (
    "Both: U-Net alone, AdamW, no gradient checkpointing, latents kept. Ours reads captions and clips gradients in "
    "each step; core's is given text states, trains norms and biases too, and its batch of B with a caption each "
    "is B² rows."
)

# (pictures, batch size, steps) → the time of each step's end
Contender = Callable[[int, int, int], list[float]]


def cases(session: Session) -> Iterator[Case]:
    """A case for each batch size, then ours at all of them."""
    steps, turns, batches = (1, 1, (1, 2)) if session.quick else (2, 2, (1, 2, 4))
    with tempfile.TemporaryDirectory() as folder:
        # As in ComfyUI, which loads models and calls nodes so; both nodes leave it for the training.
        with torch.inference_mode():
            bench = _Bench(Path(folder))
            ours = []
            for batch in batches:
                seconds = _in_turns({"ours": bench.ours, "ComfyUI core": bench.core}, batch, steps, turns)
                rows = [Row(name, Timing.of(found)) for name, found in seconds.items()]
                ours.append(Row(f"batch {batch}", rows[0].timing))
                yield Case("training beside core", f"seconds per picture, batch {batch} at {_PIXELS} px, "
                           f"{bench.trained}, rank {_RANK}, float32", rows, _NOTE)
        yield Case("batch cost", "ours of the cases above, seconds per picture", ours, against="batch 1")


def _in_turns(contenders: dict[str, Contender], batch: int, steps: int, turns: int) -> dict[str, list[float]]:
    """Seconds per picture of `steps` steps in each turn, after those that see every picture once."""
    pictures = max(batch, 2)  # core's node fails on a single one
    first = pictures // batch
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, train in contenders.items():
            ends = train(pictures, batch, first + steps)[first - 1:]
            found[name] += [(end - begin) / batch for begin, end in pairwise(ends)]
    return found


class _Bench:
    """The sample model, and a run of each node on it."""

    def __init__(self, folder: Path) -> None:
        import comfy.sd
        import comfy.utils

        add_samples(folder, "tests")
        self._folder = folder
        path = folder / "models" / "checkpoints" / CHECKPOINT
        self._model, self._clip, self._vae = comfy.sd.load_checkpoint_guess_config(str(path))[:3]
        comfy.utils.set_progress_bar_enabled(False)  # the one in the terminal
        self.trained = ""

    def ours(self, pictures: int, batch: int, steps: int) -> list[float]:
        """As Train LoHa."""
        from shinymas_loha.loha.training.run.progress import Watcher
        from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
        from shinymas_loha.patcher.trainer.run import prepare

        settings = TrainingSettings(
            network_rank=_RANK, module_set="all", train_text_encoder=False, optimizer="AdamW", learning_rate=_RATE,
            lr_scheduler="constant", mixed_precision="fp32", max_token_length=75, max_train_epochs=steps,
            max_train_steps=steps, save_every_n_epochs=0)
        run = prepare(self._model, self._clip, self._vae, self._data(pictures, batch), settings,
                      output=self._folder / "out", cache=self._folder / "cache")
        ends: list[float] = []
        loha = run.go(Watcher(on_step=lambda progress: ends.append(time.perf_counter())))
        self.trained = f"{len(loha)} modules"
        return ends

    def core(self, pictures: int, batch: int, steps: int) -> list[float]:
        """As Train LoRA with the algorithm LoHa."""
        import comfy.utils
        from comfy_extras.nodes_train import TrainLoraNode

        generator = torch.Generator().manual_seed(0)
        side = _PIXELS // 8
        latents = [{"samples": torch.randn(1, 4, side, side, generator=generator)} for _ in range(pictures)]
        captions = [self._clip.encode_from_tokens_scheduled(self._clip.tokenize(_caption(number)))
                    for number in range(pictures)]
        ends: list[float] = []

        def report(*_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        comfy.utils.set_progress_bar_global_hook(report)
        try:
            trained = TrainLoraNode.execute(
                [self._model], latents, captions, batch_size=[batch], steps=[steps], grad_accumulation_steps=[1],
                learning_rate=[_RATE], rank=[_RANK], optimizer=["AdamW"], loss_function=["MSE"], seed=[0],
                training_dtype=["fp32"], lora_dtype=["fp32"], algorithm=["LoHa"], gradient_checkpointing=[False],
                existing_lora=["[None]"]).args[1]
        finally:
            comfy.utils.set_progress_bar_global_hook(None)
        modules = sum(name.endswith("hada_w1_a") for name in trained)
        assert self.trained == f"{modules} modules", f"core trains {modules} modules, ours {self.trained}"
        return ends

    def _data(self, pictures: int, batch: int) -> TrainingData:
        from PIL import Image
        from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

        folder = self._folder / f"{pictures} pictures"
        folder.mkdir(exist_ok=True)
        for number in range(pictures):
            Image.new("RGB", (_PIXELS, _PIXELS), (60 * number, 128, 128)).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text(_caption(number), encoding="utf-8")
        options = DataOptions((FolderOptions(folder, repeats=1),), _PIXELS, batch, bucket_min=_PIXELS,
                              bucket_max=_PIXELS, latent_cache="memory")
        return TrainingData(index_pictures(options), options)


def _caption(number: int) -> str:
    return f"Kazano Hiori, 1girl, smile, tag {number}"
