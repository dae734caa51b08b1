"""How far a prediction is from its target, by the kinds of loss that kohya's scripts have."""

from __future__ import annotations

import torch
from torch import Tensor

from ..settings.hyper_parameters import TrainingSettings
from .noise import TIMESTEPS


def distance(prediction: Tensor, target: Tensor, settings: TrainingSettings, snr: Tensor, timesteps: Tensor,
             weights: Tensor | None = None) -> Tensor:
    """Means (batch,) over each picture of prediction and target (batch, 4, h, w).

    `huber` is 2c (√(d² + c²) − c), `smooth_l1` the same without the factor c, with c of each timestep (the
    pseudo-Huber loss of Charbonnier et al. 1994; factors as in kohya-ss/sd-scripts, conditional_loss).

    Args:
        snr, timesteps: (batch,).
        weights: times which each place's distance counts, broadcast to (batch, 4, h, w). The mean is over all places,
            not over the weights' sum, as in kohya's scripts.
    """
    places = _of_places(prediction - target, settings, snr, timesteps)
    return (places if weights is None else places * weights).mean(dim=(1, 2, 3))


def _of_places(difference: Tensor, settings: TrainingSettings, snr: Tensor, timesteps: Tensor) -> Tensor:
    if settings.loss_type == "l2":
        return difference.square()
    if settings.loss_type == "l1":
        return difference.abs()
    c = huber_thresholds(settings, snr, timesteps).view(-1, 1, 1, 1)
    smooth = 2 * ((difference.square() + c.square()).sqrt() - c)
    return smooth * c if settings.loss_type == "huber" else smooth


def huber_thresholds(settings: TrainingSettings, snr: Tensor, timesteps: Tensor) -> Tensor:
    """c (batch,) of each timestep; `huber_scale` is not in the schedule `snr`, as in kohya's scripts."""
    c = settings.huber_c
    if settings.huber_schedule == "snr":
        return (1 - c) / (1 + snr.rsqrt()).square() + c
    if settings.huber_schedule == "exponential":
        return c ** (timesteps / TIMESTEPS) * settings.huber_scale
    return torch.full_like(snr, c * settings.huber_scale)


def like_noise(snr: Tensor) -> Tensor:
    """Weights (batch,) that make a loss of v one of noise: SNR / (SNR + 1), with an SNR of at most 1000 (kohya's)."""
    snr = snr.clamp(max=1000)
    return snr / (snr + 1)


def debiased(snr: Tensor, is_v: bool) -> Tensor:
    """Weights (batch,): 1 / √SNR, for v 1 / (SNR + 1), with an SNR of at most 1000 (Yu et al. 2023)."""
    snr = snr.clamp(max=1000)
    return 1 / (snr + 1) if is_v else snr.rsqrt()
