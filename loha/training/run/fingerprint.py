"""What a step's numbers follow from, and in what two runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from ....text import show
from ..data import PictureIndex, TrainingData
from ..data.contents import HASH_BYTES
from ..models import Models, weights_hash
from ..settings.fields import chosen, later
from ..settings.hyper_parameters import KOHYA, MODEL_CARD, PIECEWISE, TrainingSettings
from ..settings.pictures import NEAREST, OF_A_DATASET, FolderOptions

# What may differ between a run and its continuation without changing any step.
FREE = {"output_name", "save_precision", "save_every_n_epochs", "keep_last", "sample_every_n_epochs",
        "sample_prompts", "base_model", "vae", "init_from", "max_train_epochs", "max_train_steps",
        "gradient_checkpointing", "defaults", "validate_every_n_epochs", "validate_every_n_steps", "early_stop",
        "ema_keep_both", "training_comment", "save_every_n_steps", "keep_last_steps",
        "sample_every_n_steps", "sample_at_first", "log_with", "logging_dir"}
# Schedules that do not look at how long the run is.
ENDLESS = (MODEL_CARD, "constant", "inverse_sqrt", PIECEWISE)
# Of a picture's row: hashes of its name, its file and its caption, and its bucket's width and height.
_NAME, _CONTENT, _CAPTION, _BUCKET = 8, HASH_BYTES, 8, 8
COLUMNS = _NAME + _CONTENT + _CAPTION + _BUCKET
_SHOWN = 3  # names of pictures


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A run's settings, models and pictures. Two runs that do not differ in it make the same steps.

    Args:
        facts: name → what was chosen, or became of the choice on this machine; plain JSON.
        weights: model → hash of its weights, "" where it is not known.
        pictures: (pictures, 40) uint8, one row a picture in the index's order.
    """

    facts: Mapping[str, Any]
    weights: Mapping[str, str]
    pictures: np.ndarray


class Comparison(NamedTuple):
    """What differs, one sentence each, and what could not be compared; a run goes on exactly where nothing differs."""

    differences: tuple[str, ...]
    unchecked: tuple[str, ...] = ()


def fingerprint(data: TrainingData, settings: TrainingSettings, models: Models, total_steps: int,
                machine: Mapping[str, Any]) -> Fingerprint:
    """Of this run. Hashes the models' weights, which takes seconds.

    Args:
        machine: what became of the settings on this machine: precision, optimiser, processes and their like.
    """
    facts = {name: value for name, value in chosen(settings).items() if name not in FREE}
    facts["lr_scheduler"] = settings.lr_scheduler
    shares = any(0 < folder.options.captions.token_warmup_step < 1 for folder in data.index.folders)
    endless = settings.lr_scheduler_type or settings.lr_scheduler in ENDLESS
    if not endless or settings.lr_warmup_share or shares:
        facts["steps in all"] = total_steps
    facts |= chosen(data.options)
    # Not where the folders lie: they may have moved.
    facts["folders"] = [
        {"name": folder.label, "repeats": folder.repeats, "flip": folder.options.flip}
        | chosen(folder.options.captions) | _share(folder.options) | later(folder.options)
        for folder in data.index.folders]
    if data.index.masks:
        facts["masks"] = masks_hash(data.index)
    if data.validation is not None:  # else what was found before could not be compared with what is found now
        facts["pictures to validate on"] = sha256(_rows(data.validation.index).tobytes()).hexdigest()[:2 * _NAME]
    facts |= machine
    weights = {"U-Net": weights_hash(models.unet), "text encoder": weights_hash(models.text.model),
               "VAE": models.vae_key}
    return Fingerprint(json.loads(json.dumps(facts)), weights, _rows(data.index))


def compare(before: Fingerprint, now: Fingerprint, index: PictureIndex) -> Comparison:
    """What a run that is `now` does otherwise than the one `before` did. `index` is that of now, for the names."""
    names = dict.fromkeys((*now.facts, *before.facts))
    differences = [text for name in names for text in _fact(name, before.facts.get(name), now.facts.get(name))]
    unchecked = []
    for model in dict.fromkeys((*now.weights, *before.weights)):
        one, other = before.weights.get(model, ""), now.weights.get(model, "")
        if not (one and other):
            unchecked.append(model)
        elif one != other:
            differences.append(f"{model}: another one, its weights are not the same")
    return Comparison((*differences, *_pictures(before.pictures, now.pictures, index)), tuple(unchecked))


def _rows(index: PictureIndex) -> np.ndarray:
    def hashed(texts: Sequence[str], size: int) -> np.ndarray:
        digests = (sha256(text.encode("utf-8", "surrogatepass")).digest()[:size] for text in texts)
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, size)

    names = [f"{index.folder(picture).label}/{name}" for picture, name in enumerate(index.names)]
    buckets = index.buckets.astype("<u4").view(np.uint8).reshape(-1, _BUCKET)
    return np.concatenate(
        [hashed(names, _NAME), index.contents, hashed(index.captions, _CAPTION), buckets], axis=1)


def masks_hash(index: PictureIndex) -> str:
    """Hex digits of the contents of the pictures' masks."""
    return sha256(b"".join(mask.content if mask else b"none" for mask in index.masks)).hexdigest()[:2 * _NAME]


def former_buckets(bucketing: str | None) -> str:
    """What to do about a state from before runs of kohya's files had kohya's buckets; "" for other runs."""
    return f' (bucketing = "{NEAREST}" in the file keeps the buckets of before)' if bucketing == KOHYA else ""


def _share(options: FolderOptions) -> dict[str, Any]:
    own = {} if options.own is None else {name: getattr(options.own, name) for name in sorted(OF_A_DATASET)}
    return own | ({"validation_split": options.validation_split} if options.validation_split else {})


def _fact(name: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if name == "folders":
        return _folders(before, now)
    if name == "bucketing":
        return [f"{name}: {_said(now)}, was {_said(before)}{former_buckets(now)}"]
    return [f"{name}: {_said(now)}, was {_said(before)}"]


def _folders(before: Any, now: Any) -> list[str]:
    if not isinstance(before, list) or [each["name"] for each in before] != [each["name"] for each in now]:
        return ["the folders of pictures, or their order"]
    return [f"{key} of the folder {show(one['name'], 80)}: {_said(one.get(key))}, was {_said(other.get(key))}"
            for one, other in zip(now, before, strict=True) for key in dict.fromkeys((*one, *other))
            if one.get(key) != other.get(key)]


def _said(value: Any) -> str:
    return "nothing" if value is None or value == "" else show(value, 80)


def _pictures(before: np.ndarray, now: np.ndarray, index: PictureIndex) -> list[str]:
    if np.array_equal(before, now):
        return []
    then, here = _by_name(before), _by_name(now)
    place = {row[:_NAME].tobytes(): picture for picture, row in enumerate(now)}
    both = here.keys() & then.keys()
    parts = {
        "has other content": slice(_NAME, _NAME + _CONTENT),
        "has another caption": slice(_NAME + _CONTENT, -_BUCKET),
        "is trained at another size": slice(-_BUCKET, None),
    }
    changes = {"is new": here.keys() - then.keys()}
    changes |= {what: {name for name in both if here[name][part] != then[name][part]} for what, part in parts.items()}
    told = [f"pictures: {_counted([index.names[place[name]] for name in found], what)}"
            for what, found in changes.items() if found]
    gone = len(then.keys() - here.keys())
    if gone:
        told.append(f"pictures: {gone} {'is' if gone == 1 else 'are'} gone")
    return told or ["pictures: their order"]


def _by_name(rows: np.ndarray) -> dict[bytes, bytes]:
    return {row[:_NAME].tobytes(): row.tobytes() for row in rows}


def _counted(names: list[str], what: str) -> str:
    shown = [show(name, 60) for name in sorted(names)[:_SHOWN]]
    more = ["…"] if len(names) > len(shown) else []
    plural = what.replace("has ", "have ").replace("is ", "are ") if len(names) > 1 else what
    return f"{len(names)} {plural} ({', '.join([*shown, *more])})"
