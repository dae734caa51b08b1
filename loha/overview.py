"""What a file is and what became of it, for a drawing: short texts and numbers, JSON throughout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from math import isfinite
from typing import Any

from ..text import show
from . import base_models, naming, report
from .binding import Binding
from .block_weights import block_of_module
from .module import Loha
from .product import estimated_squared_norm

_PARTS = {"unet": "U-Net", "te1": "text encoder"}
# What trainers of kohya's family write, in the order in which a person asks.
_STATED = (
    ("trained on", ("ss_sd_model_name",)),
    ("title", ("modelspec.title",)),
    ("author", ("modelspec.author",)),
    ("license", ("modelspec.license",)),
    ("pictures", ("ss_num_train_images",)),
    ("resolution", ("modelspec.resolution", "ss_resolution")),
    ("learning rate", ("ss_learning_rate",)),
    ("of the U-Net", ("ss_unet_lr",)),
    ("of the text encoder", ("ss_text_encoder_lr",)),
    ("optimizer", ("ss_optimizer",)),
    ("scheduler", ("ss_lr_scheduler",)),
    ("clip skip", ("ss_clip_skip",)),
)
_COURSE = (("epoch", "ss_epoch", "ss_num_epochs"), ("step", "ss_steps", "ss_max_train_steps"))
_NOTHING = ("", "None", "none", "null")


def of_file(loha: Loha) -> dict[str, Any]:
    """`facts`: [what, text] pairs; `norms`: [block, ‖ΔW‖ at strength 1, estimated] pairs, by the modules' names.

    Costs the same whatever the products' sizes, for they are a stranger's as long as no model is known.
    """
    facts = [("modules", _modules(loha)), *(line.split(": ", 1) for line in report.kind_lines(loha))]
    made_for = base_models.of_file(loha).name
    facts += [("made for", made_for)] if made_for else []
    squares = ((block_of_module(name), estimated_squared_norm(module)) for name, module in loha.modules.items())
    return {"facts": [list(fact) for fact in (*facts, *_training(loha.metadata))],
            "norms": _drawable(report.roots_by_block(squares)), "are_estimated": True}


def of_binding(binding: Binding, norms: Mapping[str, float]) -> dict[str, Any]:
    """`parts`: [applied, skipped or unknown, how many modules, why] triples; `norms` are `report.block_norms`."""
    parts = (("applied", binding.applied, ()), ("skipped", len(binding.skipped), report.skipped_lines(binding)),
             ("unknown", len(binding.unknown), report.unknown_lines(binding)))
    return {"parts": [[name, count, list(why)] for name, count, why in parts],
            "norms": _drawable(norms), "are_estimated": False}


def _modules(loha: Loha) -> str:
    parts = Counter(naming.address(name)[0] for name in (*loha.modules, *loha.others))
    counts = [f"{count} {_PARTS.get(part, f'text encoder {part[2:]}')}" for part, count in parts.most_common()]
    return ", ".join(counts + ([f"{len(loha.refused)} unusable"] if loha.refused else []))


def _training(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the metadata states of the training."""
    stated = ((label, next((metadata[key] for key in keys if metadata.get(key, "") not in _NOTHING), ""))
              for label, keys in _STATED)
    facts = [(label, show(text, 60)) for label, text in stated if text]
    course = [f"{name} {show(metadata[key], 12)}" + (f" of {show(metadata[whole], 12)}" if whole in metadata else "")
              for name, key, whole in _COURSE if metadata.get(key, "") not in _NOTHING]
    course += _day(metadata.get("ss_training_finished_at", metadata.get("ss_training_started_at", "")))
    return [("training", ", ".join(course)), *facts] if course else facts


def _day(seconds: str) -> list[str]:
    """The day of a time since 1970, [] where it is none."""
    try:
        return [datetime.fromtimestamp(float(seconds), timezone.utc).date().isoformat()]
    except (ValueError, OverflowError, OSError):
        return []


def _drawable(norms: Mapping[str, float]) -> list[list[str | float | None]]:
    """JSON has no infinity: None is too large to draw."""
    return [[block, float(f"{norm:.4g}") if isfinite(norm) else None] for block, norm in norms.items()]
