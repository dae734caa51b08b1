"""What a trained file says of itself: kohya's `ss_*`, `modelspec.*`, and the cast.

Keys and forms as sd-scripts writes them (`train_network.py`, `sai_model_spec.py`): strings only,
nested values as JSON. No path of the person's disk goes into a file, names of folders alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any

from ..data.dataset import TrainingData
from ..data.tags import cast_of
from ..settings.fields import later
from ..settings.hyper_parameters import MODEL_CARD, TrainingSettings
from ..settings.module_rates import SIDE, block_weights
from .pictures import as_json, of_pictures


@dataclass(frozen=True)
class BaseFiles:
    """The files that are trained on, "" where they are not known or the VAE is the base model's own.

    Args:
        model_hash, vae_hash: first 8 hex digits of the old hash of the web UI.
        model_sha256, vae_sha256: of the whole file.
        model_name, vae_name: the file's name; "": as the settings say.
    """

    model_hash: str = ""
    model_sha256: str = ""
    vae_hash: str = ""
    vae_sha256: str = ""
    model_name: str = ""
    vae_name: str = ""


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
        base: names and hashes of the base model and the VAE.
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
    stated = (_network(settings) | _course(settings, data, run) | _validation(settings, data)
              | of_pictures(data, run.processes) | _model(settings, run))
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
            ("network_reg_dims", settings.module_ranks), ("network_reg_lrs", settings.module_lrs),
            # No argument of kohya's or LyCORIS's: as the settings call them.
            ("module_filter", settings.module_filter), ("text_encoder_rank", settings.text_encoder_rank),
            ("text_encoder_alpha", settings.text_encoder_alpha),
        ) if value
    }
    if blocks := [f"{weight:g}" for weight in block_weights(settings.block_lr_weights)]:
        arguments |= {"down_lr_weight": ",".join(blocks[:SIDE]), "mid_lr_weight": blocks[SIDE],
                      "up_lr_weight": ",".join(blocks[SIDE + 1:])}
    return {
        "network_module": "lycoris.kohya",
        "network_dim": settings.network_rank,
        "network_alpha": settings.network_alpha,
        "network_dropout": None,  # of neurons, which a LoHa has not
        "network_args": as_json(arguments),
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
        "full_fp16": False,
        "lowram": False,
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
    """Keys as sd-scripts writes them, and timesteps where some are left out."""
    return {
        "loss_type": settings.loss_type,
        "huber_schedule": settings.huber_schedule,
        "huber_scale": settings.huber_scale,
        "huber_c": settings.huber_c,
        "debiased_estimation": settings.debiased_estimation_loss,
        "scale_weight_norms": settings.scale_weight_norms or None,
        "noise_offset_random_strength": settings.noise_offset_random_strength,
        "adaptive_noise_scale": settings.adaptive_noise_scale or None,
        "multires_noise_iterations": settings.multires_noise_iterations or None,
        "multires_noise_discount": settings.multires_noise_discount,
        "ip_noise_gamma": settings.ip_noise_gamma or None,
        "ip_noise_gamma_random_strength": settings.ip_noise_gamma_random_strength,
        "zero_terminal_snr": settings.zero_terminal_snr,
        **{name: value for name, value in later(settings).items() if name in ("min_timestep", "max_timestep")},
    }


def _validation(settings: TrainingSettings, data: TrainingData) -> dict[str, Any]:
    """Without pictures that are set apart, as kohya's scripts write what was not asked for."""
    apart = data.validation is not None
    return {
        "num_validation_images": len(data.validation.index) if apart else 0,
        "validation_seed": data.options.validation_seed if apart else None,
        "validation_split": max(folder.options.validation_split for folder in data.index.folders) if apart else 0.0,
        "max_validation_steps": settings.max_validation_steps or None if apart else None,
        "validate_every_n_epochs": settings.validate_every_n_epochs or None if apart else None,
        "validate_every_n_steps": settings.validate_every_n_steps or None if apart else None,
    }


def _model(settings: TrainingSettings, run: RunFacts) -> dict[str, Any]:
    files = {
        "sd_model_name": run.base.model_name or _file_name(settings.base_model),
        "sd_model_hash": run.base.model_hash,
        "new_sd_model_hash": run.base.model_sha256,
        "vae_name": run.base.vae_name or _file_name(settings.vae),
        "vae_hash": run.base.vae_hash,
        "new_vae_hash": run.base.vae_sha256,
    }
    return {key: value for key, value in files.items() if value} | {
        "base_model_version": "sd_v1",
        "v2": False,
        "training_comment": settings.training_comment or None,
    }


def _modelspec(settings: TrainingSettings, data: TrainingData, run: RunFacts) -> dict[str, Any]:
    made = datetime.fromtimestamp(int(run.finished_at), timezone.utc).replace(tzinfo=None)
    least, most = settings.min_timestep, settings.max_timestep
    return ({} if (least, most) == (0, 1000) else {"timestep_range": f"{least},{most}"}) | {
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
    return as_json({
        "version": 1,
        "characters": [
            {"name": one.name, "cards": one.cards, "tags": list(one.tags)} for one in cast_of(data.index)
        ],
    })


def _file_name(path: str) -> str:
    # Both kinds of slash: a configuration may come from another system.
    return PurePath(path.replace("\\", "/")).name
