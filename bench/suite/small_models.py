"""Seeded models of diffusers' and transformers' classes, as the trainer takes them: small ones, and SD 1.5's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from shinymas_loha.loha.training.data.latents import Encode
    from shinymas_loha.loha.training.models import Models


def small_models(widths: tuple[int, ...], text_width: int, device: torch.device,
                 encode: Encode | None = None) -> Models:
    """A U-Net with a level for each of `widths`, two layers of CLIP, and `encode` for a VAE.

    Args:
        text_width: of the text encoder's states, a multiple of 64.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    heads = text_width // 64
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=widths, layers_per_block=1, cross_attention_dim=text_width,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths), attention_head_dim=8)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=1000, hidden_size=text_width, intermediate_size=4 * text_width, num_hidden_layers=2,
        num_attention_heads=heads, bos_token_id=998, eos_token_id=999, pad_token_id=999))
    return _as_models(unet.to(device), text.to(device), heads, device, encode)


def sd15_models(device: torch.device, dtype: torch.dtype) -> Models:
    """The U-Net and the text encoder of SD 1.5, weights in `dtype`, without a VAE."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    with torch.device(device):  # drawn where they stay: 860 million numbers
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    return _as_models(unet.to(dtype), text.to(dtype), 12, device, None)


def _as_models(unet: nn.Module, text: nn.Module, heads: int, device: torch.device, encode: Encode | None) -> Models:
    """Under kohya's names; a caption's tokens are its characters."""
    from shinymas_loha.loha.training.models import Models, TextEncoder

    for model in (unet, text):
        model.eval().requires_grad_(False)
    encoder = getattr(text, "text_model", text)  # transformers 5 has lost that level
    named = {f"lora_unet_{name.replace('.', '_')}": module for name, module in unet.named_modules()}
    named |= {f"lora_te_text_model_{name.replace('.', '_')}": module for name, module in encoder.named_modules()}
    return Models(
        unet=unet, predict=lambda x, t, states: unet(x, t, states).sample,
        text=TextEncoder(encoder, heads, lambda caption: [ord(char) % 990 for char in caption], 998, 999),
        layers={name: layer for name, layer in named.items() if hasattr(layer, "weight")}, encode=encode,
        device=device)
