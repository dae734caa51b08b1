"""Module names: every tool's way to name one weight, brought to one address.

An address is (part, path): part `unet`, `te1`, `te2` …; path with every dot an underscore, because
kohya's names have lost the difference. Diffusers names and the original (LDM, ComfyUI) names of a
U-Net are both addresses; `index` derives the first from the second by walking the blocks, so it
needs no configuration and fits SD 1.x, SD 2.x and SDXL alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Address = tuple[str, str]

_ENCODERS = {"clip_l": "te1", "clip_h": "te1", "clip_g": "te2", "t5xxl": "te3"}
_PREFIXES = (  # longest first where one begins another
    ("lora_unet_", "unet"), ("lora_te1_", "te1"), ("lora_te2_", "te2"), ("lora_te3_", "te3"), ("lora_te_", "te1"),
    ("lora_transformer_", "unet"), ("transformer.", "unet"),
    ("model.diffusion_model.", "unet"), ("diffusion_model.", "unet"), ("unet.", "unet"),
    ("text_encoder_2.", "te2"), ("text_encoder_3.", "te3"), ("text_encoder.", "te1"),
    *((f"{wrapper}{encoder}.transformer.", part)
      for wrapper in ("text_encoders.", "") for encoder, part in _ENCODERS.items()),
)
_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}
_ENCODER_KEY = re.compile(r"(clip_l|clip_h|clip_g|t5xxl)\.transformer\.(.+)")
_BLOCK_KEY = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:(\d+)\.)?(.+)")


def address(name: str) -> Address:
    """The address that a module's name means, whichever tool wrote it.

    Knows kohya (`lora_unet_`, `lora_te_`, `lora_te1_`, with or without `text_model_`), LyCORIS's wrapper
    (`lycoris_`), diffusers paths (with `processor`, and the old `_lora`; `transformer.`), OneTrainer
    (`lora_transformer_`), PEFT (`base_model.model.`), ComfyUI.
    """
    path = name.removesuffix(".weight").removesuffix("_lora").replace("base_model.model.", "", 1)
    part = None
    for prefix, named in _PREFIXES:
        if path.startswith(prefix):
            part, path = named, path.removeprefix(prefix)
            break
    else:
        path = path.removeprefix("lycoris_")
    path = path.replace(".", "_")
    if part is None:
        part = "te1" if path.startswith(("text_model_", "encoder_layers_")) else "unet"
    if part != "unet":
        return part, path.removeprefix("text_model_")
    path = path.replace("_processor_to_", "_to_")
    return part, f"{path}_0" if path.endswith("_to_out") else path


def index(weights: Iterable[str]) -> dict[Address, str]:
    """Every address under which a model's weights are known → the weight's name in its state dict."""
    weights = [weight for weight in weights if weight.endswith(".weight")]
    found: dict[Address, str] = {}
    unet = {}
    for weight in weights:
        path = weight.removesuffix(".weight")
        if path.startswith("diffusion_model."):
            unet[path.removeprefix("diffusion_model.")] = weight
        elif match := _ENCODER_KEY.match(path):
            encoder, inner = match.groups()
            found[_ENCODERS[encoder], inner.replace(".", "_").removeprefix("text_model_")] = weight
    diffusers = diffusers_paths(unet)
    for path, weight in unet.items():
        found["unet", path.replace(".", "_")] = weight
        if path in diffusers:
            found["unet", diffusers[path].replace(".", "_")] = weight
    return found


def kohya_name(weight: str, diffusers: dict[str, str]) -> str | None:
    """kohya's module name for a ComfyUI weight of an SD 1.x model, None where it has none.

    Args:
        weight: name in the state dict, with `.weight`.
        diffusers: what `diffusers_paths` said of the same U-Net.
    """
    path = weight.removesuffix(".weight")
    if path.startswith("diffusion_model."):
        inner = diffusers.get(path.removeprefix("diffusion_model."))
        return inner and "lora_unet_" + inner.replace(".", "_")
    match = _ENCODER_KEY.match(path)
    return match and f"lora_te_text_model_{match[2].replace('.', '_').removeprefix('text_model_')}"


def diffusers_paths(paths: Iterable[str]) -> dict[str, str]:
    """Original module path of a U-Net (`input_blocks.1.1.proj_in`) → diffusers path, for those that have one."""
    paths = list(paths)
    places = _places(paths)
    found = {}
    for path in paths:
        match = _BLOCK_KEY.fullmatch(path)
        if path in _OUTSIDE:
            found[path] = _OUTSIDE[path]
        elif match:
            side, first, second, inner = match.groups()
            slot = (side, int(first), 0) if side == "middle_block" else (side, int(first), int(second or 0))
            if side == "middle_block":  # its numbers sit one level higher
                inner = f"{second}.{inner}" if second else inner
            if slot in places:
                found[path] = f"{places[slot]}.{_inside(places[slot], inner)}".rstrip(".")
    return found


def _places(paths: list[str]) -> dict[tuple[str, int, int], str]:
    """Walk the blocks in order: (side, block, slot) → diffusers path of what stands there."""
    kinds: dict[tuple[str, int, int], str] = {}
    for path in paths:
        match = _BLOCK_KEY.fullmatch(path)
        if match and match[1] != "middle_block" and match[3]:
            inner = match[4]
            kind = ("sampler" if inner in ("op", "conv") else
                    "resnets" if inner.startswith(("in_layers", "out_layers", "emb_layers", "skip")) else "attentions")
            kinds[match[1], int(match[2]), int(match[3])] = kind
    places = {("middle_block", 0, 0): "mid_block.resnets.0", ("middle_block", 1, 0): "mid_block.attentions.0",
              ("middle_block", 2, 0): "mid_block.resnets.1"}
    for side, block_name, sampler in (("input_blocks", "down_blocks", "downsamplers.0.conv"),
                                      ("output_blocks", "up_blocks", "upsamplers.0.conv")):
        level, counts = 0, {"resnets": 0, "attentions": 0}
        for slot in sorted(slot for slot in kinds if slot[0] == side and slot[:2] != ("input_blocks", 0)):
            kind = kinds[slot]
            if kind == "sampler":
                places[slot] = f"{block_name}.{level}.{sampler}"
                level, counts = level + 1, {"resnets": 0, "attentions": 0}
            else:
                places[slot] = f"{block_name}.{level}.{kind}.{counts[kind]}"
                counts[kind] += 1
    return places


def _inside(place: str, inner: str) -> str:
    if place.endswith(".conv"):
        return ""
    if ".resnets." in place:
        return _RESNET.get(inner, inner)
    return inner
