"""Noise, timesteps and the weights of the loss: DDPM as Stable Diffusion 1.x was trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Batch, seed_for

TIMESTEPS = 1000
LATENT_SCALE = 0.18215


@dataclass(frozen=True, eq=False)
class Draw:
    """What chance gives to a batch: each picture's draw follows from the seed and its own showing alone,
    so that it does not matter how pictures are spread over batches' parts and processes.

    Args:
        noise: (batch, 4, h, w), ε with its offset.
        posterior: the same shape, for the VAE's sample.
        timesteps: (batch,) int64 in 0 … 999.
    """

    noise: Tensor
    posterior: Tensor
    timesteps: Tensor

    def to(self, device: torch.device) -> Draw:
        return Draw(*(tensor.to(device, non_blocking=True) for tensor in (self.noise, self.posterior, self.timesteps)))


def draw(batch: Batch, seed: int, shape: tuple[int, ...], offset: float = 0.0) -> Draw:
    """Draw for each picture of `batch` at latent `shape` (4, h, w), on the CPU.

    `offset` adds to ε a number of N(0, offset²) for each channel (noise offset).
    """
    noise, posterior, timesteps = [], [], []
    for item in batch.items:
        generator = torch.Generator().manual_seed(seed_for(seed, "noise", batch.epoch, item.picture, item.repeat))
        timesteps.append(torch.randint(TIMESTEPS, (), generator=generator))
        epsilon = torch.randn(shape, generator=generator)
        posterior.append(torch.randn(shape, generator=generator))
        if offset:
            epsilon = epsilon + offset * torch.randn((shape[0], 1, 1), generator=generator)
        noise.append(epsilon)
    return Draw(torch.stack(noise), torch.stack(posterior), torch.stack(timesteps))


class NoiseSchedule:
    """Cumulative products ᾱ of DDPM's scaled-linear β from 0.00085 to 0.012, float32 on `device`."""

    def __init__(self, device: torch.device) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
        self.alphas_cumprod = (1 - betas).cumprod(0).float().to(device)

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """√ᾱ · latents + √(1−ᾱ) · noise."""
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """√ᾱ · noise − √(1−ᾱ) · latents (Salimans and Ho 2022)."""
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents

    def min_snr(self, timesteps: Tensor, gamma: float, is_v: bool) -> Tensor:
        """Weights (batch,) of the loss: min(SNR, γ) / SNR, for v / (SNR + 1) (Hang et al. 2023)."""
        alphas = self.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        return snr.clamp(max=gamma) / (snr + 1 if is_v else snr)
