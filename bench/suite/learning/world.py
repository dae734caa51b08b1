"""The base model: a U-Net and a CLIP text encoder, small, trained from nothing to draw any sprite from its tags.

Of SD 1.5's kind in what the trainer sees: its classes, SD's noise schedule, 4 latent channels of an eighth of the
picture's side. Two things differ, so that minutes do: it predicts v, from which a small model learns colours sooner
than from ε, and the VAE is a stand-in that keeps one pixel of each 8 × 8.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from shinymas_loha.loha.training.data import Posterior
from shinymas_loha.loha.training.models import Models, TextEncoder
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import LATENT_SCALE, TIMESTEPS, Draw
from shinymas_loha.loha.training.objective.text_states import encode as encode_text
from shinymas_loha.loha.training.settings import TrainingSettings
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from . import sprites

# What the base model and the characters are trained with alike.
SETTINGS = TrainingSettings(prediction="model", mixed_precision="fp32", max_token_length=75, clip_skip=1)
PIXEL = 8

_TAGS = (*sprites.HAIR, *sprites.STYLES, *sprites.EYES, *sprites.MOUTHS, *sprites.DRESSES, *sprites.BACKGROUNDS)
_WIDTH, _HEADS = 32, 1
_BATCH, _RATE = 16, 3e-3
_TAG_DROPOUT = 0.15
# Seven tags fill the 75 that the U-Net reads: among as much padding one token each is hard to hear.
_TOKENS_A_TAG = 10


def small_models(names: Sequence[str], seed: int) -> Models:
    """Models with random weights, frozen, whose vocabulary is the sprites' tags and `names`."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=sprites.SIDE, block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8,
        cross_attention_dim=_WIDTH, attention_head_dim=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"))
    vocabulary = {word: number for number, word in enumerate((*_TAGS, *names))}
    begin, end = len(vocabulary), len(vocabulary) + 1
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(vocabulary) + 2, hidden_size=_WIDTH, intermediate_size=4 * _WIDTH, num_hidden_layers=2,
        num_attention_heads=_HEADS, bos_token_id=begin, eos_token_id=end, pad_token_id=end))
    encoder = getattr(text, "text_model", text)  # transformers 5 has lost that level
    # CLIP's own 0.02 drowns in what the layers add: which word it is would be learnt last.
    encoder.embeddings.token_embedding.weight.data.normal_()
    for model in (unet, encoder):
        model.eval().requires_grad_(False)

    def tokenize(caption: str) -> list[int]:
        return [vocabulary[tag] for tag in caption.split(", ") if tag for _ in range(_TOKENS_A_TAG)]

    named = {f"lora_unet_{name.replace('.', '_')}": module for name, module in unet.named_modules()}
    named |= {f"lora_te_text_model_{name.replace('.', '_')}": module for name, module in encoder.named_modules()}
    return Models(
        unet=unet, predict=lambda x, t, states: unet(x, t, states).sample,
        text=TextEncoder(encoder, _HEADS, tokenize, begin, end),
        layers={name: layer for name, layer in named.items() if hasattr(layer, "weight")}, encode=_encode,
        device=torch.device("cpu"), is_v_prediction=True)


def learn(models: Models, steps: int, seed: int, on_step: Callable[[int, int, float], None]) -> None:
    """Train all weights for `steps` on sprites drawn by chance, whose captions lose some of their tags.

    The learning rate rises and falls over the steps (one cycle). `on_step` gets the step from 1, `steps` and the loss.
    """
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    objective = Step(models, SETTINGS, "fp32")
    parameters = [*models.unet.parameters(), *models.text.model.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        seen = [(chance.choice(sprites.LOOKS), chance.choice(sprites.MOMENTS)) for _ in range(_BATCH)]
        latents = torch.cat([pixels_to_latents(sprites.draw(*one)) for one in seen])
        captions = [", ".join(tag for tag in (*look.tags, *moment.tags) if chance.random() >= _TAG_DROPOUT)
                    for look, moment in seen]
        drawn = Draw(torch.randn(latents.shape, generator=generator), torch.zeros(()),
                     torch.randint(TIMESTEPS, (_BATCH,), generator=generator))
        loss = objective.losses(latents, drawn, captions).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        on_step(step, steps, loss.item())
    for parameter in parameters:
        parameter.requires_grad_(False)


@dataclass(frozen=True)
class Brush:
    """Paints with the models as they are, always from the same noise, without classifier-free guidance."""

    models: Models
    steps: int
    seed: int

    @torch.no_grad()
    def paint(self, captions: Sequence[str]) -> Tensor:
        """A picture for each caption: (captions, 3, 16, 16) float32 in 0 … 1."""
        scheduler = DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing",
            prediction_type="v_prediction")
        scheduler.set_timesteps(self.steps)
        states = encode_text(self.models.text, list(captions), SETTINGS.max_token_length, SETTINGS.clip_skip,
                             self.models.device)
        x = torch.randn(len(captions), 4, sprites.SIDE, sprites.SIDE,
                        generator=torch.Generator().manual_seed(self.seed))
        for timestep in scheduler.timesteps:
            x = scheduler.step(self.models.predict(x, timestep.expand(len(x)), states), timestep, x).prev_sample
        return ((x[:, :3] + 1) / 2).clamp(0, 1)


def pixels_to_latents(sprite) -> Tensor:
    """A sprite (16, 16, 3) uint8 as the VAE would give it, (1, 4, 16, 16)."""
    pixels = torch.from_numpy(sprite).permute(2, 0, 1)[None].float() / 255
    return _as_latents(pixels)


def _as_latents(pixels: Tensor) -> Tensor:
    return torch.nn.functional.pad(pixels * 2 - 1, (0, 0, 0, 0, 0, 1)) / LATENT_SCALE


def _encode(pixels: Tensor) -> Posterior:
    mean = _as_latents(pixels[:, :, PIXEL // 2::PIXEL, PIXEL // 2::PIXEL])
    return Posterior(mean, torch.zeros_like(mean))
