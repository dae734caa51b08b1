"""LoHa Hook: a LoHa for ComfyUI's hooks, so that it acts in a region, on one prompt or for a part of the steps."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..loha import Loha, SettingsError, report
from ..loha.block_weights import parse as parse_block_weights
from ..patcher.comfyui import hooks_load_a_second_copy, schema
from .load import LohaType
from .model_version import version_lines


class LohaHookNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = dict(default=1.0, min=-100.0, max=100.0, step=0.01)
        return schema(
            node_id="ShinyMasHookLoha",
            display_name="LoHa Hook",
            category="ShinyMas/LoHa",
            description="A LoHa as a hook: on one prompt, in a region, for a part of the steps. Use it with ComfyUI's "
                        "own hook nodes, such as Set CLIP Hooks, Cond Set Props and Hook Keyframes.",
            search_aliases=["lora hook", "regional lora", "schedule", "lycoris", "hadamard", "shinymas"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                LohaType.Input("loha", tooltip="From Load LoHa or Train LoHa."),
                io.Float.Input("strength_model", **strength, tooltip="Strength on the U-Net while the hook acts."),
                io.Float.Input("strength_clip", **strength, tooltip="Strength on the text encoder while it acts."),
                io.String.Input("block_weights", default="", optional=True,
                                tooltip="Empty, a preset (ALL, NONE, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL), or 17 "
                                        "or 26 numbers: BASE, IN00–IN11, MID, OUT00–OUT11."),
                io.Hooks.Input("prev_hooks", optional=True, tooltip="Hooks that act together with this one."),
            ],
            outputs=[
                io.Hooks.Output("hooks", display_name="hooks", tooltip="For ComfyUI's hook nodes."),
                io.String.Output("report", display_name="report",
                                 tooltip="What the file holds. What could not be put on the model is said under the "
                                         "node once the model is known."),
            ],
        )

    @classmethod
    def validate_inputs(cls, block_weights: str = "") -> bool | str:
        try:
            parse_block_weights(block_weights or "")
        except SettingsError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, loha: Loha, strength_model: float, strength_clip: float, block_weights: str = "",
                prev_hooks=None) -> io.NodeOutput:
        # ComfyUI's start pays for no more than the widgets.
        from ..patcher.hook import LohaHook, loha_hooks
        from ..patcher.messages import tell
        from ..patcher.patching import Strengths

        strengths = Strengths(strength_model, strength_clip, parse_block_weights(block_weights or ""))
        say = partial(tell, cls.hidden.unique_id)
        hooks = loha_hooks(LohaHook(loha, strengths, say), prev_hooks)
        lines = [f"modules: {len(loha)}", *report.file_lines(loha), *version_lines(loha),
                 "bound: when the model is known; what does not fit is said under this node and in the log",
                 *report.hash_lines(loha)]
        if hooks_load_a_second_copy():
            lines.append("note: this ComfyUI streams its weights; a model with hooks is loaded a second time, whole")
        text = "\n".join(lines)
        return io.NodeOutput(hooks, text, ui={"text": [text]})
