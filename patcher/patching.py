"""From a LoHa to patched clones of MODEL and CLIP."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ..loha import BindError, Loha, SettingsError, product
from ..loha.binding import Binding, Bound, Place, Skip, Target, at_strength
from ..loha.factors import Factors
from ..loha.kernels import PackedFactors, Workspace
from ..loha.matching import Fits, find_fits
from ..loha.targets import row_order
from . import comfyui, model_weights
from .adapter import LohaAdapter
from .other_kinds import core_patches
from .strength_change import share_identity

_NO_CLIP = Skip("a text encoder's module, but no CLIP is connected", remedy="Connect the clip input.")
_CLIP_OFF = Skip("strength 0 for the text encoder", asked=True)
_KNOWN_FITS = 4  # pairs of models, or parts of them, that a file remembers


@dataclass(frozen=True)
class Strengths:
    """Strength of the U-Net and of the text encoder, and weights by block (None: 1 everywhere)."""

    model: float
    clip: float
    blocks: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for name, strength in (("strength_model", self.model), ("strength_clip", self.clip)):
            if not math.isfinite(strength):  # ComfyUI's own limits let NaN through, and all that comes over a link
                raise SettingsError(f"{name} is {strength}; give a finite number.")

    def of(self, target: Target) -> float:
        return self.model if target.is_unet else self.clip

    def block(self, target: Target) -> float:
        return self.blocks[target.block] if self.blocks else 1.0


def bind_to(loha: Loha, model: ModelPatcher, clip: comfy.sd.CLIP | None, strengths: Strengths) -> Binding:
    """Bind to the weights of both models; ComfyUI's own name map serves architectures other than SD's."""
    unet, text = model_weights.targets(model, "diffusion_model."), clip and model_weights.targets(clip.patcher)
    absent = dict.fromkeys(("te1", "te2", "te3"), _NO_CLIP if strengths.clip else _CLIP_OFF) if clip is None else {}

    def names() -> dict[str, Place]:
        return comfyui.names_of(model, is_text=False) | (
            comfyui.names_of(clip.patcher, is_text=True) if clip is not None else {})

    fits = _fits(loha, unet, text, absent, names, comfyui.base_model(model))
    return at_strength(loha, fits, strengths.of, strengths.block)


def bind_part(loha: Loha, patcher: ModelPatcher, strengths: Strengths, *, is_text: bool) -> Binding:
    """Bind to one model alone, the U-Net's or the text encoder's; modules of the other are no fault."""
    targets = model_weights.targets(patcher, None if is_text else "diffusion_model.")
    other = Skip("for the U-Net" if is_text else "for the text encoder", asked=True)
    absent = {"unet": other} if is_text else dict.fromkeys(("te1", "te2", "te3"), other)
    unet, text = (None, targets) if is_text else (targets, None)
    fits = _fits(loha, unet, text, absent, partial(comfyui.names_of, patcher, is_text=is_text),
                 comfyui.base_model(patcher))
    return at_strength(loha, fits, strengths.of, strengths.block)


def _fits(loha: Loha, unet: tuple[Target, ...] | None, text: tuple[Target, ...] | None, absent: dict[str, Skip],
          names: Callable[[], dict[str, Place]], base: str) -> Fits:
    """Where the file's modules go, remembered by it: the tuples are the same ones as long as the models are."""
    known = loha.memo.setdefault("fits", [])
    fits = next((made for *of, made in known if of[0] is unet and of[1] is text and of[2:] == [base, absent]), None)
    if fits is None:
        fits = find_fits(loha, (*(unet or ()), *(text or ())), names=names, absent=absent, model=base)
        known[:] = [(unet, text, base, absent, fits), *known[:_KNOWN_FITS - 1]]
    return fits


def block_lines(model: ModelPatcher, strengths: Strengths) -> list[str]:
    """A line where block weights say nothing of a U-Net: every preset but NONE leaves all of such a model at 1."""
    if strengths.blocks is None or any(target.block != "BASE" for target in
                                       model_weights.targets(model, "diffusion_model.")):
        return []
    return ["note: block_weights: this model has none of the blocks; all of it is BASE"]


def patch(binding: Binding, model: ModelPatcher,
          clip: comfy.sd.CLIP | None) -> tuple[ModelPatcher, comfy.sd.CLIP | None, Binding]:
    """Return clones that carry the patches, the very same objects where nothing applies, and the binding
    less what ComfyUI has no adapter for."""
    binding, unet, encoder = _patches(binding, model, clip and clip.patcher, _workspace(binding.loha))
    if unet:
        parent, model = model, model.clone()
        _carry(model, unet, parent, binding.loha)
    if encoder:
        parent, clip = clip, clip.clone()
        _carry(clip.patcher, encoder, parent.patcher, binding.loha)
    return model, clip, binding


def patches_for_hook(binding: Binding, patcher: ModelPatcher) -> tuple[Binding, dict[float, dict[str, object]]]:
    """What a hook puts on one model: strength → weight → patch; and the binding less what there is no adapter for."""
    binding, unet, encoder = _patches(binding, patcher, patcher)
    return binding, unet or encoder


def _patches(binding: Binding, model: ModelPatcher, text: ModelPatcher | None, workspace: Workspace | None = None
             ) -> tuple[Binding, dict[float, dict], dict[float, dict]]:
    """The binding less what ComfyUI has no adapter for, and strength → weight → patch of both models."""
    if binding.modules and (obstacle := comfyui.obstacle_to_merging(LohaAdapter.of)):
        raise BindError(obstacle)
    foreign, failed = core_patches(binding)
    binding = binding.without(failed)
    unet, encoder = defaultdict(dict), defaultdict(dict)
    adapters = {patcher: _Adapters(binding.loha, patcher, workspace)
                for patcher in (model, text) if patcher is not None}
    for name, bound in binding.modules.items():
        group, own = (unet, adapters[model]) if bound.target.is_unet else (encoder, adapters[text])
        group[bound.strength][bound.target.key] = own.of(name, bound)
    for name, bound in binding.others.items():
        (unet if bound.target.is_unet else encoder)[bound.strength].update(foreign[name])
    return binding, dict(unet), dict(encoder)


def _carry(patcher: ModelPatcher, patches: dict[float, dict], parent: ModelPatcher, loha: Loha) -> None:
    comfyui.after_use(patcher, "shinymas-loha workspace", _workspace(loha).release)
    for strength, group in patches.items():
        if all(isinstance(patch, LohaAdapter) for patch in group.values()):
            model_weights.add_patches(patcher, group, strength)
        else:  # core's patches may name a bias that the model has not
            patcher.add_patches(group, strength)
    share_identity(patcher, parent, loha.source.sha256 if loha.source else f"unsaved {id(loha)}")


def _workspace(loha: Loha) -> Workspace:
    """The memory that all merges of a file by ComfyUI's patchers share."""
    return loha.memo.setdefault("workspace", Workspace())


class _Adapters:
    """A file's adapters for one model, made once for the file and its device: a strength is not theirs.

    Args:
        workspace: None for those that nobody would give it back from.
    """

    def __init__(self, loha: Loha, patcher: ModelPatcher, workspace: Workspace | None) -> None:
        # A core that streams its weights sends the patches along by itself.
        self._device = torch.device("cpu") if comfyui.streams(patcher) else patcher.load_device
        self._loha, self._workspace = loha, workspace
        self._made = loha.memo.setdefault(("adapters", self._device, workspace), {})

    def of(self, name: str, bound: Bound) -> LohaAdapter:
        key = name, bound.target.reorder
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = LohaAdapter.of(*self._in_order(name, bound), self._workspace)
        return found

    def _in_order(self, name: str, bound: Bound) -> tuple[Factors, float | None, torch.Tensor | None]:
        """Factors, alpha and DoRA scale of a module, rows in the model's order."""
        factors, dora_scale = _factors(self._loha, self._device)[name], bound.module.dora_scale
        if bound.target.reorder is not None:
            rows = row_order(bound.target.reorder, bound.target.shape[0])
            factors = factors._replace(w1_a=factors.w1_a[rows.to(factors.w1_a.device)],
                                       w2_a=factors.w2_a[rows.to(factors.w2_a.device)])
            if dora_scale is not None and product.dora_axis(dora_scale.shape, bound.target.shape) == 0:
                dora_scale = dora_scale[rows.to(dora_scale.device)]
        return factors, bound.module.alpha, dora_scale


def _factors(loha: Loha, device: torch.device) -> dict[str, Factors]:
    """Every module's flat factors: in one buffer on a GPU, as they are in the file on a CPU; made once for a file."""
    if ("factors", device) not in loha.memo:
        flat = {name: product.flat_factors(module) if module.is_tucker else module.factors
                for name, module in loha.modules.items()}
        if device.type == "cuda":
            flat = dict(zip(flat, PackedFactors(list(flat.values()), device), strict=True))
        loha.memo["factors", device] = flat
    return loha.memo["factors", device]
