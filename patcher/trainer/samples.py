"""Pictures drawn between epochs with what has been learnt, always from the same prompts and seeds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import comfy.model_management
import comfy.sample
import folder_paths
import numpy as np
import torch
from PIL import Image

from ...characters import NEGATIVE
from ...loha import Loha
from ...loha.files.atomic import write_whole
from ...loha.training.settings.hyper_parameters import TrainingSettings
from ..patching import Strengths, bind_to, patch
from .run import Run

_STEPS, _CFG, _SAMPLER, _SCHEDULER = 20, 7.0, "euler", "normal"


class Samples:
    """Draws each prompt as a person would: the LoHa applied to clones, the models restored before and after.

    Args:
        run: whose models are loaded again after drawing, and whose folder names the pictures' folder.
        size: width and height in pixels.
    """

    def __init__(self, model, clip, vae, run: Run, size: int, settings: TrainingSettings) -> None:
        self._model, self._clip, self._vae, self._run, self._size = model, clip, vae, run, size
        self._every = settings.sample_every_n_epochs
        self._clip_skip = settings.clip_skip
        self._prompts = [line.strip() for line in settings.sample_prompts.splitlines() if line.strip()]

    @property
    def steps_done(self) -> int:
        return self._run.training.done

    def after(self, epoch: int, loha: Callable[[], Loha]) -> Iterator[Image.Image]:
        """Draw, if it is this epoch's turn; pictures are saved in ComfyUI's output folder.

        Raises:
            FileError: a picture cannot be written.
        """
        if not (self._every and self._prompts and epoch % self._every == 0):
            return
        folder = Path(folder_paths.get_output_directory()) / "shinymas" / self._run.folder.name
        with torch.inference_mode():
            strengths = Strengths(1.0, 1.0)
            binding = bind_to(loha(), self._model, self._clip, strengths)
            model, clip, _ = patch(binding, self._model, self._clip)
            clip = clip.clone()
            clip.clip_layer(-self._clip_skip)
            for number, prompt in enumerate(self._prompts):
                picture = self._draw(model, clip, prompt, number)
                data = io.BytesIO()
                picture.save(data, "PNG")
                write_whole(folder / f"epoch-{epoch:06d}-{number + 1}.png", [data.getvalue()], overwrite=True)
                yield picture
            self._run.models.load()

    def _draw(self, model, clip, prompt: str, seed: int) -> Image.Image:
        comfy.model_management.throw_exception_if_processing_interrupted()
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, NEGATIVE))
        latent = torch.zeros(1, 4, self._size // 8, self._size // 8,
                             device=comfy.model_management.intermediate_device())
        noise = comfy.sample.prepare_noise(latent, seed)
        drawn = comfy.sample.sample(
            model, noise, _STEPS, _CFG, _SAMPLER, _SCHEDULER, positive, negative, latent, seed=seed)
        pixels = self._vae.decode(drawn)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
        return Image.fromarray(np.asarray(pixels.cpu()))
