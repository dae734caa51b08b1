"""Which base model a LoHa was made for, and which one a model is, as far as either can be told.

What the tensors show comes first: the width of the text that a U-Net's cross-attention reads, then the
text encoders. A file's metadata speaks where they do not contradict it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..text import show
from . import naming
from .module import Loha
from .naming import Address
from .targets import Target

_WIDTHS = {768: "SD 1.5", 1024: "SD 2", 1280: "SDXL refiner", 2048: "SDXL"}
# Other architectures call layers attn2.to_k too, over text of other widths.
_UNET_BLOCKS = ("down_blocks_", "mid_block_", "up_blocks_", "input_blocks_", "middle_block_", "output_blocks_")
_TWO_ENCODERS = frozenset(("SDXL", "SDXL refiner", "SD 3"))
_METADATA = ("ss_base_model_version", "modelspec.architecture")
_VERSIONS = (  # sd-scripts, musubi-tuner, ai-toolkit, OneTrainer; the first that matches from the start
    (r"(sd_?xl|stable-diffusion-xl).*refiner", "SDXL refiner"),
    (r"sd_?xl|stable-diffusion-xl", "SDXL"),
    (r"sd_?v?3|stable-diffusion-v?3", "SD 3"),
    (r"sd_?v?2|stable-diffusion-v?2", "SD 2"),
    (r"sd_?v?1|stable-diffusion-v?1", "SD 1.5"),
    (r"flux[-_.]?1", "Flux"),
    (r"hunyuan[-_]?video(?![-_. v]*1[-_.]?5)", "HunyuanVideo"),
)


@dataclass(frozen=True)
class Base:
    """A base model.

    Args:
        name: the likeliest, "" when nothing tells.
        among: all that it can be; empty when nothing is ruled out.
        why: what tells, for a message.
    """

    name: str = ""
    among: frozenset[str] = frozenset()
    why: str = ""

    def excludes(self, other: Base) -> bool:
        """Whether both are known and cannot be the same."""
        return bool(self.among and other.among and not self.among & other.among)


def of_file(loha: Loha) -> Base:
    """What the file was made for, by its tensors and its metadata; nothing where these contradict each other."""
    shown, stated = _by_widths(_widths(loha)), _by_metadata(loha.metadata)
    if len(shown.among) == 1 or not stated.among:
        return shown
    return Base() if shown.excludes(stated) else stated


def of_model(targets: Iterable[Target], index: Mapping[Address, str], kind: str = "") -> Base:
    """What a model is: `kind`, its class's base model, where that is known, or what its weights show."""
    if kind:
        return Base(kind, frozenset((kind,)))
    shapes = {target.weight: target.shape for target in targets}
    return _by_widths((where, shapes[weight][1]) for where, weight in index.items() if len(shapes[weight]) >= 2)


def _by_metadata(metadata: Mapping[str, str]) -> Base:
    found = {}
    for key in _METADATA:
        stated = metadata.get(key, "").strip().lower()
        name = next((name for pattern, name in _VERSIONS if re.match(pattern, stated)), "")
        if name:
            found.setdefault(name, f"its metadata says {key} {show(metadata[key])}")
    if len(found) != 1:
        return Base()
    ((name, why),) = found.items()
    return Base(name, frozenset((name,)), why)


def _by_widths(widths: Iterable[tuple[Address, int]]) -> Base:
    crossed, encoders = set(), set()
    for (part, path), width in widths:
        if part == "unet" and path.startswith(_UNET_BLOCKS) and path.endswith(("attn2_to_k", "attn2_to_v")):
            crossed.add(width)
        if part.startswith("te") and path.endswith(("self_attn_q_proj", "self_attn_k_proj")):
            encoders.add((part, width))
    if crossed:
        width = crossed.pop() if len(crossed) == 1 else 0
        name = _WIDTHS.get(width, "")
        return Base(name, frozenset((name,)), f"its cross-attention reads text {width} wide") if name else Base()
    if any(part == "te2" for part, _ in encoders):
        return Base("SDXL", _TWO_ENCODERS, "it has two text encoders")
    width = max((width for _, width in encoders), default=0)
    name = _WIDTHS.get(width, "")
    # CLIP-L, 768 wide, stands in many models.
    sure = frozenset((name,)) if name == "SD 2" else frozenset()
    return Base(name, sure, f"its text encoder is {width} wide" if name else "")


def _widths(loha: Loha) -> Iterable[tuple[Address, int]]:
    """Each module's address with the number of input columns that it was made for."""
    for name, module in loha.modules.items():
        yield naming.address(name), module.delta_shape[1]
    for name, tensors in loha.others.items():
        for suffix, tensor in tensors.items():
            if suffix.removesuffix(".weight") in ("lora_down", "lora_A", "lora.down", "diff") and tensor.dim() >= 2:
                yield naming.address(name), tensor.shape[1]
