"""Write a checkpoint of random weights that ComfyUI takes for SD 1.5.

Layer names and shapes are those of ComfyUI's own classes: run it with a Python that has ComfyUI's
requirements. But for the size `sd15` the U-Net has fewer levels than the real one; CLIP-L is whole
(ComfyUI leaves the layers of a shorter one uninitialised), the VAE is a TAESD. Pictures are noise.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def _levels(*widths: int) -> dict[str, Any]:
    """A U-Net with one block a level, of these widths as multiples of 320."""
    count = len(widths)
    return {"channel_mult": widths, "num_res_blocks": [1] * count, "transformer_depth": [1] * count,
            "transformer_depth_output": [1] * 2 * count, "transformer_depth_middle": 1}


# The demo's keeps a Downsample and a wider level; the tests' only level makes a sampling step about
# four times cheaper; the whole of SD 1.5 (2 GB) is for benchmarks on a GPU.
UNETS = {
    "demo": _levels(1, 2),
    "tests": _levels(1),
    "sd15": {"channel_mult": (1, 2, 4, 4), "num_res_blocks": [2] * 4, "transformer_depth": [1] * 6 + [0] * 2,
             "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1},
}


def shapes(comfyui: Path, size: str) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of the checkpoint of a size (of UNETS), in the original SD 1.5 naming."""
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.sd1_clip import SDClipModel
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": UNetModel(
                image_size=32, in_channels=4, out_channels=4, model_channels=320,
                num_heads=8, context_dim=768, use_spatial_transformer=True, legacy=False, device="meta",
                operations=comfy.ops.disable_weight_init, **UNETS[size],
            ),
            "cond_stage_model.": SDClipModel(device="meta"),
            "first_stage_model.": TAESD(),
        }  # fmt: skip
    unused = ("cond_stage_model.logit_scale", "cond_stage_model.transformer.text_projection.weight")
    named = {
        prefix + name: tuple(tensor.shape)
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    return {name: shape for name, shape in named.items() if name not in unused}


def random_weights(named: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Seeded fp16 tensors: norms 1, biases 0, matrices N(0, 0.02), the VAE's N(0, 0.8² / fan-in)."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _fill(name, shape, generator) for name, shape in sorted(named.items())}


def _fill(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if name == "first_stage_model.taesd_decoder.19.bias":
        return torch.full(shape, 0.5, dtype=torch.float16)  # the picture's mean: mid-grey
    if name.endswith((".bias", "vae_shift")):
        return torch.zeros(shape, dtype=torch.float16)
    if len(shape) < 2:
        return torch.ones(shape, dtype=torch.float16)
    # A TAESD has no norms: N(0, 0.02) would shrink every picture to one flat grey, N(0, 1 / fan-in) clip it.
    std = 0.8 * torch.Size(shape[1:]).numel() ** -0.5 if name.startswith("first_stage_model.") else 0.02
    return torch.empty(shape).normal_(0, std, generator=generator).half()


def write_checkpoint(path: Path, comfyui: Path, size: str = "demo", seed: int = 0) -> None:
    """Write the checkpoint to `path`, whole or not at all; `size` is a key of UNETS."""
    weights = random_weights(shapes(comfyui, size), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    os.replace(partial, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's own folder")
    parser.add_argument("--size", choices=UNETS, default="demo")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_checkpoint(given.path, given.comfyui, given.size, given.seed)
