"""Two regions in one picture: a sampling step by attention couple and by masked conditioning, beside a plain one.

Each contender samples with ComfyUI's own Euler and a negative prompt, from prompts that are encoded already. On a GPU
the model is the size of SD 1.5, on a CPU the sample model of the tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from kit.workspace import CHECKPOINT, add_samples

from suite.measure import Contender, interleaved
from suite.results import Case, Row
from suite.session import Session

_STEPS = 2
_ONE = "masterpiece, best quality, outdoors, 2girls, 1girl, Kazano Hiori, black hair, long hair, ponytail, purple eyes"
_OTHER = "masterpiece, best quality, outdoors, 2girls, 1girl, Sakuragi Mano, brown hair, medium hair, brown eyes, smile"
_PLAIN = "plain prompt"


def cases(session: Session) -> Iterator[Case]:
    """A case for each size of picture."""
    on_gpu = session.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        add_samples(Path(folder), "sd15" if on_gpu and not session.quick else "tests")
        samplings = _samplings(Path(folder))
        for size in ((64, 64),) if session.quick else ((512, 768), (768, 512)) if on_gpu else ((256, 256), (512, 512)):
            contenders = [Contender(name, _drawn(sample, size)) for name, sample in samplings.items()]
            found = interleaved(contenders, session.device, session.seconds)
            yield Case("scene", f"{_STEPS} steps with two regions, {size[0]}×{size[1]} px, batch 1, both halves of "
                       "guidance", [Row(name, timing) for name, timing in found.items()], against=_PLAIN)


def _samplings(folder: Path) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Contender → a latent to the sampled one."""
    import comfy.sample
    import comfy.sd
    import comfy.utils
    from shinymas_loha.characters.scene import Box, region_masks
    from shinymas_loha.patcher.regional_prompts import METHODS, encode, regional

    comfy.utils.set_progress_bar_enabled(False)
    path = folder / "models" / "checkpoints" / CHECKPOINT
    model, clip, _ = comfy.sd.load_checkpoint_guess_config(str(path))[:3]
    negative, whole = encode(clip, "lowres, worst quality"), Box(0.0, 0.0, 1.0, 1.0)
    left, right = Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)
    plans: dict[str, tuple[list[str], np.ndarray, str]] = {
        _PLAIN: ([_ONE], region_masks([whole], 64, 64), METHODS[0]),
        **{method: ([_ONE, _OTHER], region_masks([left, right], 64, 64, 8.0), method) for method in METHODS},
    }

    def sampling(texts: list[str], masks: np.ndarray, method: str) -> Callable[[torch.Tensor], torch.Tensor]:
        patched, positive = regional(model, clip, texts, masks, method)
        return lambda latent: comfy.sample.sample(
            patched, torch.ones_like(latent), _STEPS, 7.0, "euler", "normal", positive, negative, latent,
            disable_pbar=True, seed=0)

    return {name: sampling(*plan) for name, plan in plans.items()}


def _drawn(sample: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, int]) -> Callable[[], torch.Tensor]:
    latent = torch.zeros(1, 4, size[1] // 8, size[0] // 8)
    return lambda: sample(latent)
