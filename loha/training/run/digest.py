"""Which run is which: its name, and what must be the same for it to go on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from hashlib import sha256

from ..data import TrainingData, seed_for
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings
from .processes import World

# What may differ between a run and its continuation without changing any step.
_FREE = {"output_name", "save_precision", "save_every_n_epochs", "keep_last", "sample_every_n_epochs",
         "sample_prompts", "base_model", "vae", "init_from", "max_train_epochs", "max_train_steps",
         "gradient_checkpointing"}
# Schedules that do not look at how long the run is.
_ENDLESS = (MODEL_CARD, "constant")
# Digests spell these as version 0.1.0 did, so that its runs go on.
_SPELLED = {MODEL_CARD: "page"}


def run_digest(data: TrainingData, settings: TrainingSettings, world: World, total_steps: int,
               machine: Sequence[str]) -> str:
    """Hex digest of the settings, pictures and `machine` that a step's numbers follow from.

    `machine` is what became of the settings on this one: precision and optimiser, which differ without a GPU.
    """
    chosen = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in _FREE}
    chosen["lr_scheduler"] = _SPELLED.get(settings.lr_scheduler, settings.lr_scheduler)
    if settings.lr_scheduler not in _ENDLESS:
        chosen["total_steps"] = total_steps
    index = data.index
    pictures = [index.names, index.captions, index.buckets.tolist(), index.folder_of.tolist()]
    # Not where the folders lie: they may have moved.
    folders = [(folder.label, folder.repeats, folder.options.flip, repr(folder.options.captions))
               for folder in index.folders]
    options = repr(replace(data.options, folders=()))
    parts = [chosen, world.size, options, folders, pictures, *machine]
    return sha256(json.dumps(parts).encode()).hexdigest()


def session_name(settings: TrainingSettings) -> str:
    """A name for a new run, as kohya's `ss_session_id`: a number that no other run has."""
    return str(seed_for(settings.seed, "session", time.time_ns()) % 2**32)
