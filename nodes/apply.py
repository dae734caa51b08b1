"""Apply LoHa: put a LoHa on MODEL and CLIP, and say what was applied and what was not."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import comfy.model_management
from comfy_api.latest import io

from ..loha import Loha, LohaModule, SettingsError, product
from ..loha import block_weights as blocks
from ..loha import report as summary
from ..loha.errors import show
from ..patcher.comfyui import schema
from ..patcher.patching import Strengths, bind_to, patch
from ..patcher.routes import route_lines
from .load import LohaType
from .model_version import version_lines

_log = logging.getLogger("shinymas-loha")
# A norm costs as much as a merge and never changes: taken once for each module that is in memory.
_squared_norms: WeakKeyDictionary[LohaModule, float] = WeakKeyDictionary()


class ApplyLoha(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = dict(default=1.0, min=-100.0, max=100.0, step=0.01)
        return schema(
            node_id="ShinyMasApplyLoha",
            display_name="Apply LoHa",
            category="ShinyMas/LoHa",
            description="Patches a model and its text encoder with a LoHa. The report says what was applied and "
                        "why anything was not.",
            search_aliases=["lycoris", "hadamard", "lora", "block weight", "shinymas"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, SD 1.5 for the ShinyMas files."),
                LohaType.Input("loha", tooltip="From Load LoHa or Train LoHa."),
                io.Float.Input("strength_model", **strength,
                               tooltip="Strength on the U-Net. 0 passes the model through untouched."),
                io.Float.Input("strength_clip", **strength,
                               tooltip="Strength on the text encoder. 0 passes CLIP through untouched."),
                io.Boolean.Input("strict", default=False,
                                 tooltip="Stop with an error if any module of the file cannot be applied."),
                io.Clip.Input("clip", optional=True,
                              tooltip="The text encoder. Left open, its modules are counted as skipped."),
                io.String.Input("block_weights", default="", optional=True,
                                tooltip="Empty, a preset (ALL, NONE, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL), or 17 "
                                        "or 26 numbers: BASE, IN00–IN11, MID, OUT00–OUT11."),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="The patched model."),
                io.Clip.Output("clip_out", display_name="clip", tooltip="The patched text encoder, if one came in."),
                io.String.Output("report", display_name="report",
                                 tooltip="Modules applied, skipped and unknown, with reasons, one fact a line."),
            ],
        )

    @classmethod
    def validate_inputs(cls, block_weights: str = "") -> bool | str:
        try:
            blocks.parse(block_weights or "")
        except SettingsError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model, loha: Loha, strength_model: float, strength_clip: float, strict: bool,
                clip=None, block_weights: str = "") -> io.NodeOutput:
        strengths = Strengths(strength_model, strength_clip, blocks.parse(block_weights or ""))
        binding = bind_to(loha, model, clip, strengths)
        model, clip, binding = patch(binding, model, clip)
        if strength_model or (strength_clip and clip is not None):
            binding.demand(strict=strict)
        lines = summary.report(binding) + route_lines(binding, model) + version_lines(loha)
        if binding.faults:
            _log.warning("%d of the %d modules of %s were not applied; the report of Apply LoHa says why",
                         len(binding.faults), len(loha), show(loha.source.path) if loha.source else "a LoHa")
        device = comfy.model_management.get_torch_device()
        report = "\n".join(lines + summary.norm_table(binding, lambda module: _squared_norm(module, device)))
        return io.NodeOutput(model, clip, report, ui={"text": [report]})


def _squared_norm(module: LohaModule, device) -> float:
    if module not in _squared_norms:
        _squared_norms[module] = product.squared_norm(module, device)
    return _squared_norms[module]
