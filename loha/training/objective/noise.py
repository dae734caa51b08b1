"""Noise, timesteps and the weights of the loss: DDPM as Stable Diffusion 1.x was trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Batch, Posterior, seed_for
from ..settings.hyper_parameters import TrainingSettings

TIMESTEPS = 1000
LATENT_SCALE = 0.18215


@dataclass(frozen=True, eq=False)
class Draw:
    """What chance gives to a batch: each picture's draw follows from the seed and its own showing alone,
    so that it does not matter how pictures are spread over batches' parts and processes.

    Args:
        noise: (batch, 4, h, w), what is to be predicted: ε with its offset and its coarser noises.
        posterior: the same shape, for the VAE's sample.
        timesteps: (batch,) int64 in 0 … 999.
        added: the noise in the noisy latents where it is another (input perturbation).
    """

    noise: Tensor
    posterior: Tensor
    timesteps: Tensor
    added: Tensor | None = None

    def to(self, device: torch.device) -> Draw:
        tensors = (self.noise, self.posterior, self.timesteps, self.added)
        return Draw(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors))


def draw(batch: Batch, settings: TrainingSettings, shape: tuple[int, ...], posterior: Posterior | None = None) -> Draw:
    """Draw for each picture of `batch` at latent `shape` (4, h, w), on the CPU.

    Args:
        posterior: of the batch's latents, which `adaptive_noise_scale` looks at, and nothing else does.

    Where kohya-ss/sd-scripts (library/train_util.py, get_noise_noisy_latents_and_timesteps) draws one strength or
    one size for a batch, each picture has its own. What is off draws nothing.
    """
    noise, posterior_noise, timesteps, added = [], [], [], []
    seed, last = settings.seed, settings.max_timestep
    for place, item in enumerate(batch.items):
        generator = torch.Generator().manual_seed(seed_for(seed, "noise", batch.epoch, item.picture, item.repeat))
        # The end is not drawn, unless it is the beginning too.
        timesteps.append(torch.randint(settings.min_timestep, max(last, settings.min_timestep + 1), (),
                                       generator=generator))
        epsilon = torch.randn(shape, generator=generator)
        posterior_noise.append(torch.randn(shape, generator=generator))
        if settings.noise_offset:
            strength = _strength(settings.noise_offset, settings.noise_offset_random_strength, generator)
            if settings.adaptive_noise_scale and posterior is not None:
                mean, std = posterior.mean[place].cpu().float(), posterior.std[place].cpu().float()
                strength = adapted(strength, mean + std * posterior_noise[-1], settings.adaptive_noise_scale)
            epsilon = epsilon + strength * torch.randn((shape[0], 1, 1), generator=generator)
        if settings.multires_noise_iterations:
            epsilon = _pyramid(epsilon, settings.multires_noise_iterations, settings.multires_noise_discount, generator)
        noise.append(epsilon)
        if settings.ip_noise_gamma:
            strength = _strength(settings.ip_noise_gamma, settings.ip_noise_gamma_random_strength, generator)
            added.append(epsilon + strength * torch.randn(shape, generator=generator))
    return Draw(torch.stack(noise), torch.stack(posterior_noise), torch.stack(timesteps),
                torch.stack(added) if added else None)


def adapted(strength: float | Tensor, latents: Tensor, scale: float) -> Tensor:
    """A noise offset for each channel, (…, 4, 1, 1): more where latents' mean is far from zero, never below zero.

    As kohya-ss/sd-scripts (library/custom_train_functions.py, apply_noise_offset).

    Args:
        latents: (…, 4, h, w), not yet times 0.18215.
    """
    return (strength + scale * (latents * LATENT_SCALE).mean((-2, -1), keepdim=True).abs()).clamp(min=0)


def _strength(most: float, is_random: bool, generator: torch.Generator) -> float | Tensor:
    return most * torch.rand((), generator=generator) if is_random else most


def _pyramid(noise: Tensor, iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """Noise (4, h, w) with noises of coarser resolutions added, at its standard deviation of 1 again (Whitaker 2023).

    The i-th is rⁱ times coarser, r from 2 to 4 anew each time, and has discountⁱ of the strength.
    """
    height, width = noise.shape[1:]
    for level in range(iterations):
        ratio = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        size = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse = torch.randn((1, noise.shape[0], *size), generator=generator)
        noise = noise + discount**level * F.interpolate(coarse, (height, width), mode="bilinear")[0]
        if 1 in size:
            break
    return noise / noise.std()


class NoiseSchedule:
    """Cumulative products ᾱ of DDPM's scaled-linear β from 0.00085 to 0.012, float32 on `device`.

    Args:
        zero_terminal_snr: the last timestep is noise alone: √ᾱ shifted and stretched so that the first stays and the
            last is 0 (Lin et al. 2023). The loss's weights keep the signal-to-noise ratios of the β as they were, as
            in kohya-ss/sd-scripts (train_network.py, get_noise_scheduler).
    """

    def __init__(self, device: torch.device, *, zero_terminal_snr: bool = False) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
        alphas = (1 - betas).cumprod(0)
        self._alphas_of_weights = alphas.float().to(device)
        self.alphas_cumprod = self._alphas_of_weights
        if zero_terminal_snr:
            roots = alphas.sqrt()
            stretched = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
            self.alphas_cumprod = stretched.square().float().to(device)

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """√ᾱ · latents + √(1−ᾱ) · noise."""
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """√ᾱ · noise − √(1−ᾱ) · latents (Salimans and Ho 2022)."""
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratios ᾱ / (1−ᾱ) for weights, (batch,)."""
        alphas = self._alphas_of_weights[timesteps]
        return alphas / (1 - alphas)

    def noisy_snr(self, timesteps: Tensor) -> Tensor:
        """The same of the noisy latents as they are, (batch,)."""
        alphas = self.alphas_cumprod[timesteps]
        return alphas / (1 - alphas)

    def min_snr(self, timesteps: Tensor, gamma: float, is_v: bool) -> Tensor:
        """Weights (batch,) of the loss: min(SNR, γ) / SNR, for v / (SNR + 1) (Hang et al. 2023)."""
        snr = self.snr(timesteps)
        return snr.clamp(max=gamma) / (snr + 1 if is_v else snr)
