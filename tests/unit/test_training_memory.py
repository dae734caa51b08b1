"""A run needs no more memory after many steps than after a few; `bench/memory.py` watches a thousand."""

import gc

import psutil
import torch
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Watcher

EARLY, LATE = 50, 250
ROOM = 4 * 2**20  # bytes: allocators and lists of numbers, far less than an activation a step


def live_tensors():
    """Tensors that are Python objects, garbage left out."""
    gc.collect()
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


def test_memory_is_flat_over_the_steps(tiny_models, tiny_data, tiny_settings):
    data = tiny_data()
    settings = tiny_settings(
        module_filter="*attn2_to_q,lora_te_*_0_mlp_fc1", lr_scheduler="constant", max_train_epochs=LATE,
        max_train_steps=LATE)
    run = Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="7", precision="fp32")
    tensors, resident = {}, {}

    def watch(progress):
        if progress.step in (EARLY, LATE):
            tensors[progress.step] = live_tensors()
            resident[progress.step] = psutil.Process().memory_info().rss

    run.run(Watcher(on_step=watch))
    assert tensors[LATE] == tensors[EARLY]
    assert resident[LATE] - resident[EARLY] < ROOM
