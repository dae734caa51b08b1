"""A LoHa as one of ComfyUI's hooks: it acts on one prompt, in a region, for a part of the steps."""

from __future__ import annotations

import logging
from collections.abc import Callable

from comfy.hooks import EnumWeightTarget, HookGroup, WeightHook
from comfy.model_patcher import ModelPatcher

from ..loha import Loha, report
from ..loha.binding import Binding
from .patching import Strengths, bind_part, block_lines, patches_for_hook


class LohaHook(WeightHook):
    """Puts ready adapters on whatever model ComfyUI registers it with, bound to that model's own weights.

    Args:
        loha: None only for ComfyUI's `clone`, which makes an empty hook and fills it.
        strengths: of U-Net and text encoder, with block weights.
        say: is given what could not be bound, and the log level that it deserves.
    """

    def __init__(self, loha: Loha | None = None, strengths: Strengths | None = None,
                 say: Callable[[str, int], None] = lambda text, level: None) -> None:
        super().__init__(*(() if strengths is None else (strengths.model, strengths.clip)))
        self.need_weight_init = False
        self.loha, self.strengths, self.say = loha, strengths, say

    def clone(self) -> LohaHook:
        copy = super().clone()
        copy.loha, copy.strengths, copy.say = self.loha, self.strengths, self.say
        return copy

    def add_hook_patches(self, model: ModelPatcher, model_options: dict | None, target_dict: dict,
                         registered: HookGroup) -> bool:
        """As ComfyUI's own, which looks names up in its own map and passes over what it does not find.

        Raises:
            BindError: nothing of the file fits this model.
        """
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        is_text = target_dict.get("target") == EnumWeightTarget.Clip
        binding = bind_part(self.loha, model, self.strengths, is_text=is_text)
        binding, patches = patches_for_hook(binding, model)
        if self.strengths.clip if is_text else self.strengths.model:
            binding.demand(strict=False)
        for strength, group in (patches or {1.0: {}}).items():
            model.add_hook_patches(hook=self, patches=group, strength_patch=strength)
        registered.add(self)
        text, level = _outcome(binding, is_text)
        self.say("\n".join([text, *([] if is_text else block_lines(model, self.strengths))]), level)
        return True


def loha_hooks(hook: LohaHook, previous: HookGroup | None) -> HookGroup:
    """The hook in a group of its own, behind the hooks that came in."""
    group = HookGroup() if previous is None else previous.clone()
    if hook.strengths.model or hook.strengths.clip:
        group.add(hook)
    return group


def _outcome(binding: Binding, is_text: bool) -> tuple[str, int]:
    part = "text encoder" if is_text else "U-Net"
    lines = [f"LoHa Hook: {binding.applied} modules on the {part}", *report.left_off_lines(binding, faults=True)]
    return "\n".join(lines), logging.WARNING if binding.faults else logging.INFO
