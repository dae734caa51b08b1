"""ShinyMas Scene: several people in one picture, each with her own prompt where she stands."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from .. import characters
from ..characters import DEFAULT_CAST, Cast, Casts, Character, PromptError, UnknownCharacter, scene
from ..characters.from_file import FileNames
from ..loha import Loha
from ..patcher.comfyui import schema
from ..patcher.regional_prompts import METHODS, encode, latent_size, regional
from .load import LohaType
from .model_version import names_of
from .prompt import VERSIONS, load_casts

_log = logging.getLogger("shinymas-loha")
_PEOPLE = "Kazano Hiori | left\nSakuragi Mano | right"
# Attention sees no more than a latent's pixels; 8 of the picture's are one of them.
_LATENT_SCALE = 8


class Scene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        casts = load_casts()
        size = dict(min=16, max=16384, step=8)
        return schema(
            node_id="ShinyMasScene",
            display_name="ShinyMas Scene",
            category="ShinyMas/Prompt",
            description="Several people in one picture, each with her own prompt where she stands. Unofficial and "
                        "unaffiliated.",
            search_aliases=["regional prompt", "attention couple", "two characters", "area", "mask", "shinymas"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with or without a LoHa on it."),
                io.Clip.Input("clip", tooltip="The text encoder, with the same LoHa."),
                io.String.Input("people", default=_PEOPLE, multiline=True, dynamic_prompts=True,
                                tooltip="A line for each person: name, box, tags and weight of the name, with "
                                        "vertical bars between. A box is left, right, middle, top, bottom, top left, "
                                        "1/3, or per cents: 0-45, 10-100. Without a box: shares from left to right."),
                io.String.Input("shared", default=characters.QUALITY, multiline=True, dynamic_prompts=True,
                                tooltip="For the whole picture: quality, place, light. The number of people is added."),
                io.String.Input("negative", default=characters.NEGATIVE, multiline=True, dynamic_prompts=True,
                                tooltip="What must not be in the picture."),
                io.Combo.Input("model_version", options=list(VERSIONS),
                               tooltip="The model file in use. v2.x wants 'Kazano Hiori', v1.0 wants 'Hiori Kazano'."),
                io.Combo.Input("tag_set", options=list(characters.TAG_SETS),
                               tooltip="identity: hair, eyes and what else makes her look like herself. "
                                       "top: the model page's most frequent tags, in its order."),
                io.Combo.Input("method", options=list(METHODS),
                               tooltip="attention couple: one pass, regions meet without a seam. masked conditioning: "
                                       "a pass for each region, as ComfyUI's own mask nodes do."),
                io.Float.Input("feather", default=8.0, min=0.0, max=100.0, step=0.5,
                               tooltip="How softly boxes blend into each other, in per cent of the picture's shorter "
                                       "side."),
                io.Int.Input("width", default=768, **size, tooltip="Of the picture, in pixels."),
                io.Int.Input("height", default=512, **size, tooltip="Of the picture, in pixels."),
                LohaType.Input("loha", optional=True,
                               tooltip="The LoHa in use: what it says of its names counts before model_version."),
                io.Combo.Input("cast", options=list(casts.by_name), default=DEFAULT_CAST, optional=True,
                               tooltip="The cast that is looked through first. Your own casts are the .yaml files in "
                                       "the folder 'shinymas' of ComfyUI's user directory."),
                io.Latent.Input("latent", optional=True,
                                tooltip="Takes the place of width and height by its size."),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="For the sampler: knows the regions."),
                io.Conditioning.Output("positive", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip="For the sampler."),
                io.String.Output("text", display_name="text",
                                 tooltip="The prompt; where there are several regions, a line for each."),
                io.Image.Output("layout", display_name="layout", tooltip="Who stands where, in the idols' colours."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **widgets) -> object:
        """An edited cast file takes effect at the next run."""
        return characters.cast_stamps(Path(folder_paths.get_user_directory()))

    @classmethod
    def validate_inputs(cls, people: str | None = None, shared: str | None = None, model_version: str | None = None,
                        cast: str | None = DEFAULT_CAST, loha: object = False) -> bool:
        """Before anything runs; what comes over a link is None here and is checked at the run.

        Raises:
            CastError: raised, not returned: ComfyUI would repeat a returned text for each of these inputs.
        """
        if model_version not in (*VERSIONS, None):
            raise PromptError(f"model_version must be one of {', '.join(VERSIONS)}")
        if cast is None:
            return True
        casts = load_casts()
        chosen = casts.get(cast)
        if people is not None:
            # Whom a version knows is the file's to say where one is connected.
            version = "" if loha is None or model_version is None else model_version
            scene.plan(people, shared or "", _finder(casts, chosen, FileNames(version)), version=version)
        return True

    @classmethod
    def execute(cls, model, clip, people: str, shared: str, negative: str, model_version: str, tag_set: str,
                method: str, feather: float, width: int, height: int, loha: Loha | None = None,
                cast: str = DEFAULT_CAST, latent: dict | None = None) -> io.NodeOutput:
        if not 0 <= feather <= 100 or method not in METHODS:  # over a link comes anything
            raise PromptError(f"feather is {feather} and method {method!r}; give 0 to 100 per cent, and one of "
                              f"{', '.join(METHODS)}")
        if latent is not None:
            width, height = latent_size(model, latent)
        casts = load_casts()
        names = names_of(loha, casts, casts.get(cast), model_version)
        planned = scene.plan(people, shared, _finder(casts, casts.get(cast), names), version=names.version,
                             tag_set=tag_set)
        scale = _LATENT_SCALE if method == METHODS[0] else 1
        masks = scene.region_masks(planned.boxes, math.ceil(width / scale), math.ceil(height / scale), feather)
        regions = planned.regions(len(masks))
        model, positive = regional(model, clip, [region.text for region in regions], masks, method)
        text = _shown(regions)
        layout = torch.from_numpy(scene.draw(planned.people, width, height, feather)).float() / 255
        notes = (*names.notes, *planned.notes, *casts.problems)
        for problem in casts.problems:
            _log.warning("%s", problem)
        return io.NodeOutput(model, positive, encode(clip, negative), text, layout[None],
                             ui={"text": ["\n".join((text, *notes))]})


def _finder(casts: Casts, chosen: Cast, names: FileNames) -> Callable[[str], tuple[Cast, Character]]:
    """Looks a name up in the chosen cast, then in the others: with it comes the cast that her prompt is built by."""

    def find(name: str) -> tuple[Cast, Character]:
        try:
            who = chosen.find(name)
            return names.cast_for(chosen, who), who
        except UnknownCharacter:
            for other in casts.by_name.values():
                try:
                    who = other.find(name)
                    return names.cast_for(other, who), who
                except UnknownCharacter:
                    continue
            raise

    return find


def _shown(regions: tuple[scene.Region, ...]) -> str:
    """One region's prompt as it is; several, each behind whose it is and where."""
    if len(regions) == 1:
        return regions[0].text
    return "\n".join(f"{region.who.name} ({region.box}): {region.text}" if region.who else f"elsewhere: {region.text}"
                     for region in regions)
