"""Block weights: a strength for each block of an SD 1.5 U-Net.

Order and presets are those of the web UI's LoRA block-weight extension (hako-mikan's
sd-webui-lora-block-weight), so that people's lists carry over: 26 numbers name every block, 17 the
text encoder and the blocks that hold attention, the others then being 0 as there.
"""

from __future__ import annotations

import math
import re

from ..text import show
from . import naming
from .errors import SettingsError

BLOCKS = ("BASE", *(f"IN{n:02d}" for n in range(12)), "MID", *(f"OUT{n:02d}" for n in range(12)))
ATTENTION_BLOCKS = (
    "BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{n:02d}" for n in range(3, 12)),
)
PRESETS = {
    "NONE": "0," * 16 + "0",
    "ALL": "1," * 25 + "1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
}
_PLACE = re.compile(r"diffusion_model\.(input|middle|output)_blocks?\.(\d+)\.")
# In an address: diffusers' names, whose levels have three blocks each on either side, and the original ones.
_DIFFUSERS = re.compile(r"(down|up)_blocks_(\d)_(?:(?:resnets|attentions)_(\d)|(?:down|up)samplers_0)_")
_ORIGINAL = re.compile(r"(input|output)_blocks_(\d+)_")
_OUTSIDE = ("time_embed", "label_emb", "add_embedding", "conv_norm_out", "conv_out", "out_")


def block_of(weight: str) -> str:
    """The block of a ComfyUI weight name; what lies outside the 25 blocks of the U-Net is BASE."""
    match = _PLACE.match(weight)
    if match is None:
        return "BASE"
    side, number = match.groups()
    return "MID" if side == "middle" else _numbered(side, int(number))


def block_of_module(name: str) -> str | None:
    """The same of a module's name in a file, whichever tool wrote it; None where the name alone does not tell.

    For SD 1.x, SD 2.x and SDXL, whose U-Nets have two ResNet blocks a level.
    """
    part, path = naming.address(name)
    if part.startswith("te") or path.startswith(_OUTSIDE):
        return "BASE"
    if path.startswith(("mid_block_", "middle_block_")):
        return "MID"
    if path.startswith("conv_in"):
        return "IN00"
    if match := _ORIGINAL.match(path):
        side, number = match[1], int(match[2])
    elif match := _DIFFUSERS.match(path + "_"):
        side = "input" if match[1] == "down" else "output"
        number = 3 * int(match[2]) + int(match[3] or 2) + (side == "input")
    else:
        return None
    return _numbered(side, number) if number < 12 else None


def _numbered(side: str, number: int) -> str:
    return f"{'IN' if side == 'input' else 'OUT'}{number:02d}"


def parse(text: str) -> dict[str, float] | None:
    """Read the widget: empty → None, a preset's name, or 17 or 26 comma-separated numbers → block → weight.

    Raises:
        SettingsError: neither; names the entry or the count that is wrong.
    """
    text = text.strip()
    if not text:
        return None
    entries = [entry.strip() for entry in PRESETS.get(text.upper(), text).split(",")]
    if len(entries) == 1 and not _is_number(entries[0]):
        raise SettingsError(f"block_weights: no preset is called '{show(text)}'; there are {', '.join(PRESETS)}, "
                            "or give 17 or 26 comma-separated numbers.")
    for place, entry in enumerate(entries, 1):
        if not _is_number(entry):
            raise SettingsError(f"block_weights: entry {place} is '{show(entry)}', not a finite number.")
    if len(entries) not in (len(ATTENTION_BLOCKS), len(BLOCKS)):
        raise SettingsError(f"block_weights: {len(entries)} numbers given; 17 (BASE, IN01, IN02, IN04, IN05, IN07, "
                            "IN08, MID, OUT03–OUT11) or 26 (BASE, IN00–IN11, MID, OUT00–OUT11) are needed.")
    named = BLOCKS if len(entries) == len(BLOCKS) else ATTENTION_BLOCKS
    return dict.fromkeys(BLOCKS, 0.0) | dict(zip(named, map(float, entries), strict=True))


def _is_number(entry: str) -> bool:
    try:
        return math.isfinite(float(entry))
    except ValueError:
        return False
