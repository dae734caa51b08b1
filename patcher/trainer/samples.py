"""Pictures drawn in the course of a run with what has been learnt, always from the same prompts and seeds."""

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
from ...loha.training.kohya.sample_prompts import SamplePrompt, is_due, parse_prompts
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
        self._settings = settings
        self._prompts = parse_prompts(settings.sample_prompts)

    @property
    def steps_done(self) -> int:
        return self._run.training.done

    def is_due(self, step: int, epoch: int | None = None) -> bool:
        """Whether to draw after `step` steps, at the end of an epoch or, where it is None, in between."""
        settings = self._settings
        return bool(self._prompts) and is_due(
            settings.sample_at_first, settings.sample_every_n_steps, settings.sample_every_n_epochs, step, epoch)

    def draw(self, name: str, loha: Callable[[], Loha]) -> Iterator[Image.Image]:
        """Draw; pictures are saved in ComfyUI's output folder, their names beginning with `name`.

        Raises:
            FileError: a picture cannot be written.
        """
        folder = Path(folder_paths.get_output_directory()) / "shinymas" / self._run.folder.name
        with torch.inference_mode():
            strengths = Strengths(1.0, 1.0)
            binding = bind_to(loha(), self._model, self._clip, strengths)
            model, clip, _ = patch(binding, self._model, self._clip)
            clip = clip.clone()
            clip.clip_layer(-self._settings.clip_skip)
            for number, prompt in enumerate(self._prompts):
                picture = self._draw(model, clip, prompt, number)
                data = io.BytesIO()
                picture.save(data, "PNG")
                write_whole(folder / f"{name}-{number + 1}.png", [data.getvalue()], overwrite=True)
                yield picture
            self._run.models.load()

    def _draw(self, model, clip, prompt: SamplePrompt, number: int) -> Image.Image:
        comfy.model_management.throw_exception_if_processing_interrupted()
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (
            prompt.text, NEGATIVE if prompt.negative is None else prompt.negative))
        latent = torch.zeros(1, 4, (prompt.height or self._size) // 8, (prompt.width or self._size) // 8,
                             device=comfy.model_management.intermediate_device())
        seed = number if prompt.seed is None else prompt.seed
        noise = comfy.sample.prepare_noise(latent, seed)
        drawn = comfy.sample.sample(
            model, noise, prompt.steps or _STEPS, _CFG if prompt.scale is None else prompt.scale, _SAMPLER, _SCHEDULER,
            positive, negative, latent, seed=seed)
        pixels = self._vae.decode(drawn)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
        return Image.fromarray(np.asarray(pixels.cpu()))
