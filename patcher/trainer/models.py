"""ComfyUI's MODEL, CLIP and VAE as the trainer's `Models`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256

import comfy.ldm.modules.attention as attention
import comfy.model_base
import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from torch import Tensor, nn

from ...loha import naming
from ...loha.errors import LohaError, SettingsError
from ...loha.training.data import Posterior
from ...loha.training.models import Models, TextEncoder

# SD 1.x's text states, and its latents.
_WIDTH, _CHANNELS = 768, 4
# More than any machine has: ComfyUI then moves every other model off the device.
_EVERYTHING = 1e20


class TrainingModels:
    """The three models, ready to train on one device.

    The loaded weights themselves are used: never written, and as they were after any end. Clones of
    the patchers keep what training needs of them away from the graph.

    Raises:
        SettingsError: one of them is missing, or they are not an SD 1.x model's.
    """

    def __init__(self, model, clip, vae, precision: str) -> None:
        unet, text = _unet(model), _text(clip)
        # A checkpoint without a VAE gives an empty one.
        if vae is None or vae.first_stage_model is None:
            raise SettingsError("there is no VAE: pictures become latents through it. Connect the checkpoint's, "
                                "or Load VAE where it has none.")
        if vae.latent_channels != _CHANNELS:
            raise SettingsError(f"the VAE's latents have {vae.latent_channels} channels, SD 1.x's {_CHANNELS}: connect "
                                "the checkpoint's own, or another of SD 1.x")
        self.device = comfy.model_management.get_torch_device()
        # A CPU gains nothing from half precision and loses range.
        self.precision = precision if self.device.type != "cpu" else "fp32"
        self._vae = vae
        self._model = model.clone()
        self._clip = clip.patcher.clone()
        # Text encoders may live on the CPU otherwise, and every step would wait for one.
        self._clip.load_device = self.device
        self._unet, self._text, self._tokenizer = unet, text, clip.tokenizer.clip_l.tokenizer
        if self.precision == "fp32":
            self._model.set_model_compute_dtype(torch.float32)
        self.notes = [f"device: {self.device}", f"precision: {self.precision}" + (
            "" if precision == self.precision else f", there is no GPU for {precision}")]
        if not _has_posterior(vae):
            self.notes.append("latents: this VAE has no distribution, every sample of a picture is the same")

    def load(self) -> None:
        """Bring everything onto the device, whole; call it again after anything else used the models."""
        wanted = [self._model, self._clip, self._vae.patcher]
        comfy.model_management.load_models_gpu(wanted, memory_required=_EVERYTHING, force_full_load=True)
        for module in (module for root in (self._unet, self._text) for module in root.modules()):
            weight = getattr(module, "weight", None)
            if weight is not None and (weight.device.type != self.device.type
                                       or getattr(module, "weight_function", None)):
                raise LohaError("the models do not fit into the device's memory as a whole, and training needs them "
                                "so. Close other programs, start ComfyUI with --highvram or --gpu-only, or apply no "
                                "LoRA to the model before training.")

    def models(self) -> Models:
        """What `loha.training` takes."""
        blocks = tuple(module for module in self._unet.modules()
                       if isinstance(module, (ResBlock, attention.BasicTransformerBlock)))
        sampling = self._model.model.model_type
        return Models(
            unet=self._unet, predict=self._predict, text=self._text_encoder(), layers=self._layers(),
            encode=partial(_posterior, self._vae), device=self.device,
            is_v_prediction=sampling == comfy.model_base.ModelType.V_PREDICTION, blocks=blocks,
            vae_key=_digest(self._vae.first_stage_model))

    def _predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        options = {"optimized_attention_override": _differentiable_attention}
        return self._unet(noisy, timesteps, context=states, transformer_options=options)

    def _text_encoder(self) -> TextEncoder:
        tokenizer = self._tokenizer

        def tokenize(caption: str) -> list[int]:
            return tokenizer(caption, add_special_tokens=False, verbose=False)["input_ids"]

        return TextEncoder(self._text, self._text.encoder.layers[0].self_attn.heads, tokenize)

    def _layers(self) -> dict[str, nn.Module]:
        unet = dict(self._unet.named_modules())
        diffusers = naming.diffusers_paths(path for path, module in unet.items() if hasattr(module, "weight"))
        named = {f"diffusion_model.{path}": module for path, module in unet.items()}
        named |= {f"clip_l.transformer.text_model.{path}": module for path, module in self._text.named_modules()}
        found = {naming.kohya_name(f"{path}.weight", diffusers): module for path, module in named.items()
                 if isinstance(module, (nn.Linear, nn.Conv2d))}
        found.pop(None, None)
        return found


def _posterior(vae, pixels: Tensor) -> Posterior:
    """Through the VAE's own encoder: `VAE.encode` would return the mode, and move models about."""
    pixels = vae.process_input(pixels).to(vae.device, vae.vae_dtype)
    with torch.no_grad():
        if not _has_posterior(vae):
            mean = vae.first_stage_model.encode(pixels).float()
            return Posterior(mean, torch.zeros_like(mean))
        moments = vae.first_stage_model.quant_conv(vae.first_stage_model.encoder(pixels)).float()
    mean, log_variance = moments.chunk(2, dim=1)
    return Posterior(mean, (0.5 * log_variance.clamp(-30.0, 20.0)).exp())


def _unet(model) -> UNetModel:
    if model is None:
        raise SettingsError("there is no model: connect the checkpoint's MODEL.")
    unet = model.model.diffusion_model
    if not isinstance(unet, UNetModel) or unet.num_classes is not None or _context_width(unet) != _WIDTH:
        raise SettingsError("the model is not SD 1.x, which this trainer is for; choose an SD 1.5 checkpoint.")
    if unet.in_channels != _CHANNELS:
        raise SettingsError("the model is an inpainting or editing one, which this trainer is not for; choose a plain "
                            "SD 1.5 checkpoint.")
    return unet


def _context_width(unet: UNetModel) -> int:
    return next((module.weight.shape[1] for name, module in unet.named_modules() if name.endswith("attn2.to_k")), 0)


def _text(clip) -> nn.Module:
    if clip is None:
        raise SettingsError("there is no CLIP: captions are read through it. Connect a whole SD 1.5 checkpoint's.")
    encoder = getattr(clip.cond_stage_model, "clip_l", None)
    if encoder is None or not hasattr(clip.tokenizer, "clip_l") or hasattr(clip.cond_stage_model, "clip_g"):
        raise SettingsError("the CLIP is not SD 1.x's text encoder; choose an SD 1.5 checkpoint.")
    return encoder.transformer.text_model


def _has_posterior(vae) -> bool:
    return hasattr(vae.first_stage_model, "quant_conv")


def _digest(module: nn.Module) -> str:
    # Not `weights_hash`: latents that earlier versions keep on the disk carry this one in their names.
    digest = sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _differentiable_attention(chosen: Callable, *args, **kwargs) -> Tensor:
    """Instead of ComfyUI's choice, which may write in place what autograd has kept."""
    return attention.attention_pytorch(*args, **kwargs)
