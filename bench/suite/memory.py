"""What a thousand steps leave in memory: the whole loop on small models, watched after a tenth and at the end."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import torch

from suite.measure import Timing
from suite.results import Case, Row
from suite.session import Session
from suite.small_models import small_models

_PIXELS = 64


def cases(session: Session) -> Iterator[Case]:
    from shinymas_loha.loha.training.data import Latents
    from shinymas_loha.loha.training.run.loop import Training
    from shinymas_loha.loha.training.run.progress import Progress, Watcher
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

    last = 100 if session.quick else 1000
    settings = TrainingSettings(
        network_rank=4, module_filter="*attn2_to_q,lora_te_*_0_mlp_fc1", optimizer="AdamW", lr_scheduler="constant",
        mixed_precision="fp32", max_token_length=75, max_train_epochs=last, max_train_steps=last)
    ends: list[float] = []
    found: list[str] = []

    def watch(progress: Progress) -> None:
        ends.append(time.perf_counter())
        if progress.step in (last // 10, last):
            found.append(f"after {progress.step} steps {_resident():.1f} MB resident, {_tensors()} tensors")

    with tempfile.TemporaryDirectory() as folder:
        data = _data(Path(folder))
        run = Training(small_models((32,), 64, session.device), data, Latents(data, _posterior), settings,
                       session="bench", precision="fp32")
        run.run(Watcher(on_step=watch))
    timing = Timing.of([end - begin for begin, end in pairwise(ends)])
    modules = len(run.network.factors)
    yield Case("training memory", f"{last} steps of {modules} modules, batch 2, with optimiser, no files", [
        Row("ours, one step", timing),
    ], "; ".join(found))


def _resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _tensors() -> int:
    """Live tensors that Python knows, on every device."""
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def _posterior(pixels: torch.Tensor):
    """Latents of the right shape: the VAE is not what is measured."""
    from shinymas_loha.loha.training.data import Posterior

    shape = (len(pixels), 4, _PIXELS // 8, _PIXELS // 8)
    return Posterior(torch.zeros(shape), torch.ones(shape))


def _data(folder: Path):
    from PIL import Image
    from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

    for number in range(3):
        Image.new("RGB", (_PIXELS, _PIXELS)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}, smile", encoding="utf-8")
    options = DataOptions((FolderOptions(folder, repeats=1),), _PIXELS, 2, bucket_min=_PIXELS, bucket_max=_PIXELS,
                          latent_cache="memory")
    return TrainingData(index_pictures(options), options)
