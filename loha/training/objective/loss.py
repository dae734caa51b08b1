"""The loss of one batch."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ...precision import DTYPES
from ..models import Models
from ..settings.hyper_parameters import TrainingSettings
from .distance import debiased, distance, like_noise
from .noise import LATENT_SCALE, Draw, NoiseSchedule
from .text_states import encode

# Captions whose states are kept where the text encoder is not trained: at most 700 MB, with 225 tokens each.
_CACHED_STATES = 1024


class Step:
    """Losses of batches, one U-Net forward each; every picture reads its own caption.

    Args:
        precision: fp16 and bf16 run under autocast, fp32 without.
        captions_repeat: whether a picture's caption is the same each time, so that the states of a text
            encoder that is not trained are worth keeping.

    `is_v` says whether the U-Net is trained to predict v instead of the noise.
    """

    def __init__(
        self, models: Models, settings: TrainingSettings, precision: str, *, captions_repeat: bool = True
    ) -> None:
        self._models = models
        self._caches_states = captions_repeat and not settings.train_text_encoder
        self._settings = settings
        self._precision = precision
        self._schedule = NoiseSchedule(models.device, zero_terminal_snr=settings.zero_terminal_snr)
        self._cached_states: dict[str, Tensor] = {}
        self.is_v = models.is_v_prediction if settings.prediction == "model" else settings.prediction == "v"

    def losses(self, latents: Tensor, drawn: Draw, captions: list[str], weights: Tensor | None = None) -> Tensor:
        """Each picture's distance from the target, (batch,) float32, the timesteps' weights included.

        Args:
            latents: (batch, 4, h, w), the VAE's sample, not yet times 0.18215.
            drawn: on the models' device.
            captions: one a picture, or one for all.
            weights: how much each place counts, (batch, 1, h, w) or broadcast to it; None is 1.
        """
        settings, schedule = self._settings, self._schedule
        latents = latents.float() * LATENT_SCALE
        noisy = schedule.noisy(latents, drawn.noise if drawn.added is None else drawn.added, drawn.timesteps)
        with self._autocast():
            if self._caches_states:
                states = torch.cat([self._constant_states(caption).to(latents.device) for caption in captions])
            else:
                with torch.set_grad_enabled(torch.is_grad_enabled() and settings.train_text_encoder):
                    states = self._encode(captions)
            states = states.expand(len(latents), -1, -1)
            prediction = self._models.predict(noisy, drawn.timesteps, states)
        target = schedule.velocity(latents, drawn.noise, drawn.timesteps) if self.is_v else drawn.noise
        losses = distance(prediction.float(), target, settings, schedule.noisy_snr(drawn.timesteps), drawn.timesteps,
                          None if weights is None else weights.to(latents.device, non_blocking=True))
        if settings.min_snr_gamma:
            losses = losses * schedule.min_snr(drawn.timesteps, settings.min_snr_gamma, self.is_v)
        if settings.scale_v_pred_loss_like_noise_pred and self.is_v:
            losses = losses * like_noise(schedule.snr(drawn.timesteps))
        if settings.v_pred_like_loss and not self.is_v:
            losses = losses + losses / like_noise(schedule.snr(drawn.timesteps)) * settings.v_pred_like_loss
        if settings.debiased_estimation_loss:
            losses = losses * debiased(schedule.snr(drawn.timesteps), self.is_v)
        return losses

    def _encode(self, captions: list[str]) -> Tensor:
        settings = self._settings
        return encode(
            self._models.text, captions, settings.max_token_length, settings.clip_skip, self._models.device)

    @torch.no_grad()
    def _constant_states(self, caption: str) -> Tensor:
        """States of a text encoder that is not trained, kept in RAM.

        Encoded alone: their bits must not depend on the rest of the batch, or a resumed run, which keeps
        none yet, would differ.
        """
        states = self._cached_states.pop(caption, None)
        if states is None:
            states = self._encode([caption]).cpu()
            if len(self._cached_states) == _CACHED_STATES:
                self._cached_states.pop(next(iter(self._cached_states)))
        self._cached_states[caption] = states  # the newest last
        return states

    def _autocast(self) -> AbstractContextManager:
        on = self._precision != "fp32"
        return torch.autocast(self._models.device.type, DTYPES[self._precision] if on else None, enabled=on)
