"""The report's `route:` lines: which path merges the weights here, and why not a faster one."""

from __future__ import annotations

import os
from collections import Counter

import torch
from comfy.model_patcher import ModelPatcher

from ..loha import LohaModule
from ..loha.binding import Binding
from ..loha.kernels import Route, choose
from .comfyui import merge_dtype
from .strength_change import KEEP_VARIABLE, is_resident


def route_lines(binding: Binding, model: ModelPatcher) -> list[str]:
    """How many modules of the U-Net and the text encoder go which way, and what a changed strength costs.

    `model` carries the patches already.
    """
    device = model.load_device
    weight = torch.empty((8, 8), dtype=merge_dtype(device), device=device)
    routes = Counter(_route(bound.module, weight, grouped=False) for bound in binding.modules.values())
    lines = [f"route: {route} × {count}" for route, count in routes.most_common()]
    unet = [bound for bound in binding.modules.values() if bound.target.is_unet]
    if not unet or device.type == "cpu" or not is_resident(model):
        return lines
    if os.environ.get(KEEP_VARIABLE) == "0":
        return [*lines, f"route of a changed strength: as above, originals sent anew ({KEEP_VARIABLE} is 0)"]
    if unet[0].target.dtype.itemsize == 1:
        return [*lines, "route of a changed strength: as above, originals sent anew (float8 is rounded by ComfyUI)"]
    if unet[0].target.dtype != weight.dtype and any(
            len(model.patches.get(bound.target.weight, ())) > 1 for bound in unet):
        return [*lines, "route of a changed strength: as above, originals sent anew (over other patches)"]
    size = sum(bound.target.nbytes for bound in unet) / 2**20
    first = _route(unet[0].module, weight, grouped=True)
    return [*lines, f"route of a changed strength: {first}; keeps {size:.0f} MB of originals in VRAM, "
                    f"{KEEP_VARIABLE}=0 turns that off"]


def _route(module: LohaModule, weight: torch.Tensor, *, grouped: bool) -> Route:
    if module.dora_scale is not None:
        return Route("reference", "DoRA re-scales whole rows or columns")
    return choose(weight, (module.rank, module.w2_b.shape[0]), grouped=grouped)
