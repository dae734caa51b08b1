"""Conditioning for a picture in regions, out of ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from nodes import CLIPTextEncode, ConditioningCombine, ConditioningSetMask

from ..loha import SettingsError
from .attention_couple import couple, text_width, with_regions

METHODS = ("attention couple", "masked conditioning")


def regional(model: ModelPatcher, clip: CLIP, texts: Sequence[str], masks: np.ndarray,
             method: str) -> tuple[ModelPatcher, list]:
    """The model to sample with, and the conditioning of a picture in regions.

    One region is the plain prompt and the very same model. `masked conditioning` is what CLIP Text Encode,
    Conditioning (Set Mask) and Conditioning (Combine) make, region by region; `attention couple` one conditioning and a
    clone of the model that mixes the regions in it.

    Args:
        texts: the prompt of each region.
        masks: (regions, height, width) float32; pixels of the picture for masked conditioning, any size otherwise.
        method: one of METHODS.

    Raises:
        SettingsError: the model has no cross-attention to couple, or one for another text encoder.
    """
    prompts = [encode(clip, text) for text in texts]
    check_width(model, prompts[0])
    if len(prompts) == 1:
        return model, prompts[0]
    if method == METHODS[0]:
        return couple(model), with_regions(prompts, torch.from_numpy(masks))
    parts = [ConditioningSetMask().append(prompt, torch.from_numpy(mask), "default", 1.0)[0]
             for prompt, mask in zip(prompts, masks, strict=True)]
    return model, reduce(lambda one, other: ConditioningCombine().combine(one, other)[0], parts)


def encode(clip: CLIP, text: str) -> list:
    """As CLIP Text Encode does."""
    return CLIPTextEncode().encode(clip, text)[0]


def check_width(model: ModelPatcher, prompt: list) -> None:
    """Raise SettingsError where the text states are not as wide as the model's cross-attention takes them."""
    wanted, found = text_width(model), prompt[0][0].shape[-1]
    if wanted is not None and wanted != found:
        raise SettingsError(f"clip writes texts {found} wide and model reads {wanted}: they are of different kinds of "
                            "models. Connect the clip of the model's own checkpoint.")


def latent_size(model: ModelPatcher, latent: dict) -> tuple[int, int]:
    """(width, height) in pixels of the picture that a LATENT becomes.

    Raises:
        SettingsError: it is a latent of another kind of model.
    """
    samples, kind = latent["samples"], model.get_model_object("latent_format")
    is_empty = not torch.count_nonzero(samples)  # ComfyUI fits the channels of an empty one by itself
    if samples.ndim != 4 or (samples.shape[1] != kind.latent_channels and not is_empty):
        raise SettingsError(
            f"latent: it has {samples.shape[1]} channels and {samples.ndim - 2} dimensions, the model's have "
            f"{kind.latent_channels} and 2: it is of another kind of model. Encode the picture with the VAE of the "
            "model's own checkpoint, or leave latent open.")
    scale = getattr(kind, "spacial_downscale_ratio", 8)
    return samples.shape[3] * scale, samples.shape[2] * scale
