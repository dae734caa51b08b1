"""What the report of Apply LoHa says a changed strength will cost."""

from __future__ import annotations

import os

from comfy.model_patcher import ModelPatcher

from ..loha.binding import Binding
from ..loha.report import module_route
from . import comfyui
from .strength_change import KEEP_VARIABLE, KEY, holds


def cost_lines(binding: Binding, patcher: ModelPatcher) -> list[str]:
    """A report's line on what a changed strength costs; none on a CPU, where nothing is sent anywhere.

    `patcher` carries the patches already.
    """
    device, what = patcher.load_device, "route of a changed strength: "
    unet = [bound for bound in binding.modules.values() if bound.target.is_unet]
    if not unet or device.type == "cpu" or comfyui.streams(patcher):
        return []
    if reason := comfyui.obstacle_to_sharing(patcher, KEY):
        return [f"{what}ComfyUI's own reload ({reason})"]
    if os.environ.get(KEEP_VARIABLE) == "0":
        return [f"{what}as above, originals sent anew ({KEEP_VARIABLE} is 0)"]
    if unet[0].target.dtype.itemsize == 1:
        return [f"{what}as above, originals sent anew (float8 is rounded by ComfyUI)"]
    dtype = comfyui.merge_dtype(device)
    if not holds(dtype, unet[0].target.dtype):
        return [f"{what}as above, originals sent anew (ComfyUI merges {unet[0].target.dtype_name} weights in a dtype "
                "that does not hold them)"]
    if unet[0].target.dtype != dtype and any(len(patcher.patches.get(bound.target.weight, ())) > 1 for bound in unet):
        return [f"{what}as above, originals sent anew (over other patches)"]
    size = sum(bound.target.nbytes for bound in unet) / 2**20
    return [f"{what}{module_route(unet[0].module, device, dtype, grouped=True)}; keeps {size:.0f} MB of originals in "
            f"VRAM, {KEEP_VARIABLE}=0 turns that off"]
