"""Apply LoHa: put a LoHa on MODEL and CLIP, and say what was applied and what was not."""

from __future__ import annotations

import logging

import comfy.model_management
from comfy_api.latest import io

from ..loha import BindError, Loha, SettingsError, overview, report
from ..loha.block_weights import parse as parse_block_weights
from ..patcher import strength_cost
from ..patcher.comfyui import merge_dtype, schema
from ..patcher.outputs import in_need
from ..patcher.patching import Strengths, bind_to, block_lines, patch
from ..text import show
from .load import LohaType
from .model_version import version_lines

_log = logging.getLogger("shinymas-loha")


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
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, block_weights: str = "") -> bool | str:
        try:
            parse_block_weights(block_weights or "")
        except SettingsError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model, loha: Loha, strength_model: float, strength_clip: float, strict: bool,
                clip=None, block_weights: str = "") -> io.NodeOutput:
        # Named here: what others say of a CLIP that is None leads to no cause.
        if clip is None and cls.hidden and (taker := in_need(cls.hidden.prompt, cls.hidden.unique_id, 1)):
            raise BindError(f"clip: '{taker}' takes the CLIP of Apply LoHa, but nothing is connected to its clip; "
                            "connect the checkpoint's CLIP there")
        strengths = Strengths(strength_model, strength_clip, parse_block_weights(block_weights or ""))
        binding = bind_to(loha, model, clip, strengths)
        model, clip, binding = patch(binding, model, clip)
        if strength_model or (strength_clip and clip is not None):
            binding.demand(strict=strict)
        device = model.load_device
        norms = report.block_norms(binding, comfy.model_management.get_torch_device())
        lines = [
            *report.binding_lines(binding), *block_lines(model, strengths), *version_lines(loha),
            *report.norm_lines(norms),
            *report.hash_lines(loha), *report.route_lines(binding, device, merge_dtype(device)),
            *strength_cost.cost_lines(binding, model),
        ]
        if binding.faults:
            _log.warning("%d of the %d modules of %s were not applied; the report of Apply LoHa says why",
                         len(binding.faults), len(loha), show(loha.source.path) if loha.source else "a LoHa")
        text = "\n".join(lines)
        drawn = overview.of_binding(binding, norms)
        return io.NodeOutput(model, clip, text, ui={"text": [text], "shinymas_loha": [drawn]})

