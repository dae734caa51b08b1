"""Which run is which: its name, and the digest by which version 0.1.0 told whether a run may go on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from ..data import TrainingData, seed_for
from ..settings.fields import chosen, later
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings
from .fingerprint import ENDLESS, FREE, Comparison, former_buckets, masks_hash
from .processes import World

# As version 0.1.0 spelled these.
_SPELLED = {MODEL_CARD: "page"}
_NOT_IN_IT = ("U-Net", "text encoder", "VAE", "the pictures' contents")


def run_digest(data: TrainingData, settings: TrainingSettings, world: World, total_steps: int,
               machine: Sequence[str]) -> str:
    """Hex digest of settings, pictures' names and captions, and `machine`, in states of version 0.1.0.

    `machine` is what became of the settings on this one: precision and optimiser, which differ without a GPU.
    Neither the models nor what is in the pictures' files is in it.
    """
    facts = {name: value for name, value in chosen(settings).items() if name not in FREE}
    facts["lr_scheduler"] = _SPELLED.get(settings.lr_scheduler, settings.lr_scheduler)
    if settings.lr_scheduler not in ENDLESS:
        facts["total_steps"] = total_steps
    index = data.index
    pictures = [index.names, index.captions, index.buckets.tolist(), index.folder_of.tolist()]
    # Not where the folders lie: they may have moved.
    folders = [(folder.label, folder.repeats, folder.options.flip, _repr(folder.options.captions),
                *later(folder.options).items(), *([_repr(folder.options.own)] if folder.options.own else []))
               for folder in index.folders]
    options = _repr(replace(data.options, folders=()))
    parts = [facts, world.size, options, folders, pictures, *machine]
    parts += [masks_hash(index)] if index.masks else []
    return sha256(json.dumps(parts).encode()).hexdigest()


def _repr(options: object) -> str:
    """As dataclasses write themselves, in version 0.1.0."""
    return f"{type(options).__qualname__}({', '.join(f'{name}={value!r}' for name, value in chosen(options).items())})"


def compare_digest(old: str, data: TrainingData, settings: TrainingSettings, world: World, total_steps: int,
                   machine: Sequence[str]) -> Comparison:
    """In what a run differs from one that left a state with the digest `old`; the rest as in `run_digest`."""
    if old == run_digest(data, settings, world, total_steps, machine):
        return Comparison((), _NOT_IN_IT)
    return Comparison(("settings, pictures, captions, precision or optimiser: a state of version 0.1.0 does not tell "
                       f"which{former_buckets(data.options.bucketing)}",))


def session_name(settings: TrainingSettings) -> str:
    """A name for a new run, as kohya's `ss_session_id`: a number that no other run has."""
    return str(seed_for(settings.seed, "session", time.time_ns()) % 2**32)
