"""Write a seeded LoHa that fits a checkpoint of `checkpoint.py`: the demo's and the tests' sample.

Same module set (every linear layer and 1×1 convolution of the U-Net, and of the text encoder),
names, rank, alpha and metadata keys as the model page's files, only fewer U-Net levels.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from kit.checkpoint import UNETS, shapes

# ΔW = (a1·b1) ∘ (a2·b2) · alpha / rank has std 16 · s⁴ / 16 for factors N(0, s) of rank 16 and
# alpha 1: about 0.015 here, beside base weights of std 0.02. The picture changes visibly.
FACTOR_STD = 0.35


def module_shapes(comfyui: Path, size: str) -> dict[str, tuple[int, int]]:
    """kohya module name → (out, in) of every module that the page's network trains."""
    named = shapes(comfyui, size)
    from comfy.utils import unet_to_diffusers

    weights = {f"lora_unet_{to}": f"model.diffusion_model.{own}" for to, own in unet_to_diffusers(UNETS[size]).items()}
    text = "cond_stage_model.transformer."
    weights |= {f"lora_te_{name.removeprefix(text)}": name for name in named if ".encoder.layers." in name}
    return {
        name.removesuffix(".weight").replace(".", "_"): named[key][:2]
        for name, key in weights.items()
        # The map also names shortcuts that blocks of equal width do not have.
        if key in named and name.endswith(".weight") and len(named[key]) > 1 and set(named[key][2:]) <= {1}
    }


def write_loha(path: Path, comfyui: Path, size: str = "demo", rank: int = 16, seed: int = 0) -> None:
    """Write the LoHa (fp16, alpha 1) to `path`, whole or not at all."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns) in sorted(module_shapes(comfyui, size).items()):
        for factor in ("hada_w1", "hada_w2"):
            for suffix, shape in (("a", (rows, rank)), ("b", (rank, columns))):
                drawn = torch.empty(shape).normal_(0, FACTOR_STD, generator=generator)
                tensors[f"{name}.{factor}_{suffix}"] = drawn.half()
        tensors[f"{name}.alpha"] = torch.tensor(1.0, dtype=torch.float16)
    metadata = {
        "ss_network_module": "lycoris.kohya",
        "ss_network_dim": str(rank),
        "ss_network_alpha": "1",
        "ss_network_args": json.dumps({"algo": "loha", "conv_dim": "0"}),
        "ss_base_model_version": "sd_v1",
        "ss_output_name": path.stem,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's own folder")
    parser.add_argument("--size", choices=UNETS, default="demo")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_loha(given.path, given.comfyui, given.size, given.rank, given.seed)
