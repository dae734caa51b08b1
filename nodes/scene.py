"""ShinyMas Scene: several people in one picture, each with her own prompt where she stands."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from .. import characters
from ..characters import DEFAULT_CAST, CastError, Casts, Found, PromptError, scene
from ..characters.from_file import FileNames
from ..loha import Loha
from ..patcher.comfyui import checks_choices, schema
from ..patcher.regional_prompts import METHODS, encode, latent_size, regional
from .load import LohaType
from .model_version import FileSays, names_of
from .prompt import Choice, load_casts, unlisted_choice

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
                io.Combo.Input("model_version", options=list(casts.versions()),
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
    def validate_inputs(cls, people: str | None = None) -> bool | str:
        """Before anything runs. It asks for one input, a `Choice`: ComfyUI repeats what is said here for each."""
        if not isinstance(people, Choice):
            return True
        casts, beside = load_casts(), people.beside
        if unlisted := unlisted_choice(casts, beside):
            return True if checks_choices() else unlisted
        try:
            if isinstance(beside["cast"], str):
                shared, version = beside.get("shared"), beside.get("model_version")
                # Whom a version knows is the file's to say where one is connected.
                version = version if isinstance(version, str) and "loha" not in beside else ""
                scene.plan(people, shared if isinstance(shared, str) else "",
                           _finder(casts, beside["cast"], FileNames(version)), version=version)
        except CastError as error:
            return str(error)
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
        planned, notes = plan(casts, FileSays.of(loha), people, shared, model_version, tag_set, cast)
        scale = _LATENT_SCALE if method == METHODS[0] else 1
        masks = scene.region_masks(planned.boxes, math.ceil(width / scale), math.ceil(height / scale), feather)
        regions = planned.regions(len(masks))
        model, positive = regional(model, clip, [region.text for region in regions], masks, method)
        text = shown(regions)
        layout = torch.from_numpy(scene.draw(planned.people, width, height, feather)).float() / 255
        for problem in casts.problems:
            _log.warning("%s", problem)
        # Apart from the text, which people copy.
        said = {"text": [text], "notes": notes, "problems": list(casts.problems)}
        return io.NodeOutput(model, positive, encode(clip, negative), text, layout[None], ui=said)


def plan(casts: Casts, says: FileSays | None, people: str, shared: str, model_version: str, tag_set: str,
         cast: str = DEFAULT_CAST) -> tuple[scene.Scene, list[str]]:
    """The scene that the node draws with these inputs, and all there is to know of it.

    Args:
        says: what the connected LoHa tells, None without one.

    Raises CastError.
    """
    names = names_of(says, casts, casts.get(cast), model_version)
    planned = scene.plan(people, shared, _finder(casts, cast, names), version=names.version, tag_set=tag_set)
    return planned, [*names.notes, *planned.notes]


def _finder(casts: Casts, cast: str, names: FileNames) -> Callable[[str], Found]:
    """Looks a name up in the chosen cast, then in the others: with it comes the cast that her prompt is built by."""

    def find(name: str) -> Found:
        found = casts.find(cast, name)
        return replace(found, cast=names.cast_for(found.cast, found.character))

    return find


def shown(regions: tuple[scene.Region, ...]) -> str:
    """One region's prompt as it is; several, each behind whose it is and where."""
    if len(regions) == 1:
        return regions[0].text
    return "\n".join(f"{region.who.name} ({region.box}): {region.text}" if region.who else f"elsewhere: {region.text}"
                     for region in regions)
