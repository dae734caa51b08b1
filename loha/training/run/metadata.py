"""What a trained file says of itself: kohya's `ss_*`, `modelspec.*`, and the cast.

Keys and forms as sd-scripts writes them (`train_network.py`, `sai_model_spec.py`): strings only,
nested values as JSON. No path of the person's disk goes into a file, names of folders alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any

from ..data.dataset import TrainingData
from ..data.tags import cast_of, tag_frequency
from ..settings.fields import chosen
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings

_LOSS_AND_NOISE = {
    "loss_type", "huber_schedule", "huber_c", "huber_scale", "debiased_estimation_loss", "min_timestep", "max_timestep",
    "scale_weight_norms", "noise_offset_random_strength", "multires_noise_iterations", "multires_noise_discount",
    "ip_noise_gamma", "ip_noise_gamma_random_strength", "zero_terminal_snr", "adaptive_noise_scale"}


@dataclass(frozen=True)
class BaseFiles:
    """Hashes of the files that are trained on, "" where they are not known: first 8 hex digits of the old hash of the
    web UI, and sha256."""

    model_hash: str = ""
    model_sha256: str = ""
    vae_hash: str = ""
    vae_sha256: str = ""


@dataclass(frozen=True)
class RunFacts:
    """What only the run knows. Times are seconds since 1970; the same facts make the same file.

    Args:
        session_id: the same in all files of one run.
        started_at, finished_at: when the run began, and when this file was made.
        epoch, steps: how far it came.
        total_steps: how far it was meant to go.
        optimizer: class that really ran, such as `torch.optim.adamw.AdamW`.
        precision: that really ran.
        processes: how many trained together.
        is_v: whether the U-Net was trained to predict v instead of the noise.
        base: hashes of the base model and the VAE.
    """

    session_id: str
    started_at: float
    finished_at: float
    epoch: int
    steps: int
    total_steps: int
    optimizer: str
    precision: str = "fp16"
    processes: int = 1
    is_v: bool = False
    base: BaseFiles = BaseFiles()


def training_metadata(settings: TrainingSettings, data: TrainingData, run: RunFacts) -> dict[str, str]:
    """All keys of a trained file but the two `sshs_*` hashes, which saving computes.

    `shinymas_cast` is JSON: `{"version": 1, "characters": [{"name", "cards", "tags"}]}`.
    """
    stated = _network(settings) | _course(settings, data, run) | _pictures(data, run) | _model(settings, run)
    named = {f"ss_{key}": value for key, value in stated.items()}
    named |= {f"modelspec.{key}": value for key, value in _modelspec(settings, data, run).items()}
    named["shinymas_cast"] = _cast(data)
    return {key: value if isinstance(value, str) else str(value) for key, value in named.items()}


def _network(settings: TrainingSettings) -> dict[str, Any]:
    conv_rank, conv_alpha = settings.conv_shape
    arguments = {"algo": "loha", "conv_dim": "0"}
    if settings.module_set == "all":
        arguments |= {"conv_dim": str(conv_rank), "conv_alpha": str(conv_alpha),
                      "use_tucker": str(settings.use_tucker)}
    elif settings.module_set == "attention-mlp":
        arguments["preset"] = "attn-mlp"
    arguments |= {
        name: str(value) for name, value in (
            ("rank_dropout", settings.rank_dropout), ("module_dropout", settings.module_dropout),
        ) if value
    }
    return {
        "network_module": "lycoris.kohya",
        "network_dim": settings.network_rank,
        "network_alpha": settings.network_alpha,
        "network_args": _json(arguments),
    }


def _course(settings: TrainingSettings, data: TrainingData, run: RunFacts) -> dict[str, Any]:
    steps_per_epoch = math.ceil(data.batches_per_epoch(run.processes) / settings.gradient_accumulation_steps)
    return {
        "learning_rate": settings.learning_rate,
        "unet_lr": settings.unet_learning_rate if settings.train_unet else None,
        "text_encoder_lr": settings.text_encoder_learning_rate if settings.train_text_encoder else None,
        "optimizer": f"{run.optimizer}({','.join(settings.optimizer_args.split())})",
        "lr_scheduler": "custom" if settings.lr_scheduler == MODEL_CARD else settings.lr_scheduler,
        "lr_warmup_steps": settings.lr_warmup_share or settings.lr_warmup_steps,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "min_snr_gamma": settings.min_snr_gamma or None,
        "noise_offset": settings.noise_offset or None,
        **_loss_and_noise(settings),
        "clip_skip": settings.clip_skip,
        "max_token_length": settings.max_token_length,
        "mixed_precision": "no" if run.precision == "fp32" else run.precision,
        "seed": settings.seed,
        "num_epochs": math.ceil(run.total_steps / steps_per_epoch),
        "max_train_steps": run.total_steps,
        "epoch": run.epoch,
        "steps": run.steps,
        "session_id": run.session_id,
        "training_started_at": run.started_at,
        "training_finished_at": run.finished_at,
        "output_name": settings.output_name,
    }


def _loss_and_noise(settings: TrainingSettings) -> dict[str, Any]:
    """What later versions can choose, where it is chosen; keys as sd-scripts writes them."""
    stated = {name: value for name, value in chosen(settings).items() if name in _LOSS_AND_NOISE}
    if "debiased_estimation_loss" in stated:
        stated["debiased_estimation"] = stated.pop("debiased_estimation_loss")
    return stated


def _pictures(data: TrainingData, run: RunFacts) -> dict[str, Any]:
    options, index = data.options, data.index
    directories: dict[bool, dict[str, dict[str, int]]] = {False: {}, True: {}}  # those of regularisation pictures last
    for position, count in sorted(Counter(index.folder_of.tolist()).items()):
        folder = index.folders[position]
        named = directories[folder.options.is_reg]
        entry = named.setdefault(folder.label, {"n_repeats": folder.repeats, "img_count": 0})
        entry["img_count"] += count
    captions = [index.folders[position].options.captions for position in set(index.folder_of.tolist())]
    apart = {} if data.validation is None else {
        "num_validation_images": len(data.validation.index),
        "validation_seed": options.validation_seed,
        "validation_split": max(folder.options.validation_split for folder in index.folders),
    }
    return apart | _datasets(data) | {
        "num_train_images": sum(data.showings(picture) for picture in range(len(index))
                                if not index.folder(picture).options.is_reg),
        "num_reg_images": sum(each["n_repeats"] * each["img_count"] for each in directories[True].values()),
        "num_batches_per_epoch": data.batches_per_epoch(run.processes),
        "batch_size_per_device": options.batch_size,
        "total_batch_size": options.batch_size * run.processes,
        "resolution": (options.resolution, options.resolution),
        "enable_bucket": options.buckets,
        "bucket_no_upscale": not options.upscale,
        "min_bucket_reso": options.bucket_min,
        "max_bucket_reso": options.bucket_max,
        "bucket_info": _json(_buckets(data)),
        "shuffle_caption": any(one.shuffle for one in captions),
        "keep_tokens": max(one.keep_tokens for one in captions),
        "caption_dropout_rate": max(one.caption_dropout for one in captions),
        "caption_tag_dropout_rate": max(one.tag_dropout for one in captions),
        "flip_aug": any(index.folders[position].options.flip for position in set(index.folder_of.tolist())),
        "cache_latents": options.latent_cache != "none",
        "dataset_dirs": _json(directories[False]),
        "reg_dataset_dirs": _json(directories[True]),
        "tag_frequency": _json(tag_frequency(index)),
    }


def _datasets(data: TrainingData) -> dict[str, Any]:
    """kohya's `datasets`, where they differ."""
    if not any(folder.options.own for folder in data.index.folders):
        return {}
    own = {folder.options.dataset: data.options.of(folder.options) for folder in data.index.folders}
    return {"datasets": _json([
        {"is_dreambooth": True, "batch_size_per_device": one.batch_size, "resolution": [one.resolution] * 2,
         "enable_bucket": one.buckets, "min_bucket_reso": one.bucket_min, "max_bucket_reso": one.bucket_max}
        for _, one in sorted(own.items())])}


def _buckets(data: TrainingData) -> dict[str, Any] | None:
    """kohya's `bucket_info`: sizes with their counts, and how far aspect ratios were bent on average."""
    if not data.options.buckets:
        return None
    sizes, buckets = data.index.sizes.astype(float), data.index.buckets.astype(float)
    bent = abs(sizes[:, 0] / sizes[:, 1] - buckets[:, 0] / buckets[:, 1])
    return {
        "buckets": {
            str(at): {"resolution": list(size), "count": count}
            for at, (size, count) in enumerate(data.bucket_counts().items())
        },
        "mean_img_ar_error": float(bent.mean()),
    }


def _model(settings: TrainingSettings, run: RunFacts) -> dict[str, Any]:
    stated = {
        "base_model_version": "sd_v1",
        "v2": False,
        "sd_model_name": _file_name(settings.base_model),
        "sd_model_hash": run.base.model_hash,
        "new_sd_model_hash": run.base.model_sha256,
        "vae_name": _file_name(settings.vae),
        "vae_hash": run.base.vae_hash,
        "new_vae_hash": run.base.vae_sha256,
        "training_comment": settings.training_comment,
    }
    return {key: value for key, value in stated.items() if value != ""}


def _modelspec(settings: TrainingSettings, data: TrainingData, run: RunFacts) -> dict[str, Any]:
    made = datetime.fromtimestamp(int(run.finished_at), timezone.utc).replace(tzinfo=None)
    return {
        "sai_model_spec": "1.0.0",
        "architecture": "stable-diffusion-v1/lora",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": settings.output_name,
        "date": made.isoformat(),
        "resolution": f"{data.options.resolution}x{data.options.resolution}",
        "prediction_type": "v" if run.is_v else "epsilon",
        "encoder_layer": settings.clip_skip,
    }


def _cast(data: TrainingData) -> str:
    return _json({
        "version": 1,
        "characters": [
            {"name": one.name, "cards": one.cards, "tags": list(one.tags)} for one in cast_of(data.index)
        ],
    })


def _file_name(path: str) -> str:
    # Both kinds of slash: a configuration may come from another system.
    return PurePath(path.replace("\\", "/")).name


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
