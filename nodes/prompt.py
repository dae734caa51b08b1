"""ShinyMas Character Prompt: from a name to the text that CLIP Text Encode takes."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from .. import characters
from ..characters import DEFAULT_CAST, Cast, CastError, Casts, Character, UnknownCharacter
from ..loha import Loha
from ..patcher.comfyui import schema
from .load import LohaType
from .model_version import names_of

_log = logging.getLogger("shinymas-loha")
VERSIONS = ("v2.1", "v2.0", "v1.0")
_SELECTED, _RANDOM = "selected", "random"


class CharacterPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        casts = load_casts()
        return schema(
            node_id="ShinyMasCharacterPrompt",
            display_name="ShinyMas Character Prompt",
            category="ShinyMas/Prompt",
            description="Writes the prompt of a character: the trigger that the model version wants, and her tags. "
                        "Unofficial and unaffiliated.",
            search_aliases=["shiny colors", "idolmaster", "character tags", "trigger", "shinymas"],
            inputs=[
                io.Combo.Input("character", options=list(casts.character_names()),
                               tooltip="Who to draw. Family name first; casts of your own follow the embedded one."),
                io.Combo.Input("model_version", options=list(VERSIONS),
                               tooltip="The model file in use. v2.x wants 'Kazano Hiori', v1.0 wants 'Hiori Kazano'."),
                io.Combo.Input("tag_set", options=list(characters.TAG_SETS),
                               tooltip="identity: hair, eyes and what else makes her look like herself. "
                                       "top: the model page's most frequent tags, in its order."),
                io.Int.Input("max_tags", default=20, min=0, max=200,
                             tooltip="At most so many of the character's tags. 0 leaves the name alone."),
                io.Float.Input("weight", default=1.0, min=0.0, max=3.0, step=0.05,
                               tooltip="Weight of the name: 1.15 writes (name:1.15)."),
                io.String.Input("before", default=characters.QUALITY, multiline=True, dynamic_prompts=True,
                                tooltip="Goes in front of the name."),
                io.String.Input("after", default="", multiline=True, dynamic_prompts=True,
                                tooltip="Goes behind the character's tags: clothes, pose, place."),
                io.String.Input("exclude", default="",
                                tooltip="Tags that must not stand in the prompt, separated by commas."),
                io.Combo.Input("pick", options=[_SELECTED, _RANDOM],
                               tooltip="random: the seed chooses from the cast; consecutive seeds visit everyone once "
                                       "before anyone comes again."),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
                             tooltip="Chooses the character when pick is random; without effect otherwise."),
                io.String.Input("previous", optional=True, force_input=True,
                                tooltip="The positive prompt of another character, to draw both in one picture."),
                io.Combo.Input("cast", options=list(casts.by_name), default=DEFAULT_CAST, optional=True,
                               tooltip="The cast that the character is from. Your own casts are the .yaml files in "
                                       "the folder 'shinymas' of ComfyUI's user directory."),
                LohaType.Input("loha", optional=True,
                               tooltip="The LoHa in use: what it says of its names counts before model_version."),
            ],
            outputs=[
                io.String.Output("positive", display_name="positive", tooltip="The prompt, for CLIP Text Encode."),
                io.String.Output("negative", display_name="negative", tooltip="A negative prompt for such models."),
                io.String.Output("character_out", display_name="character", tooltip="The character's name."),
                io.Int.Output("cards", display_name="cards",
                              tooltip="How many cards of hers the model learnt from; 0 where the cast does not say."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **widgets) -> object:
        """An edited cast file takes effect at the next run."""
        return characters.cast_stamps(_user_directory())

    @classmethod
    def validate_inputs(cls, character: str | None = None, model_version: str | None = None,
                        pick: str | None = None, cast: str | None = DEFAULT_CAST,
                        loha: object = False) -> bool | str:
        """Before anything runs; a value that comes over a link is None here and is checked at the run."""
        if model_version is not None and model_version not in VERSIONS:
            return f"model_version must be one of {', '.join(VERSIONS)}"
        if pick not in (_SELECTED, _RANDOM, None):
            return f"pick must be {_SELECTED} or {_RANDOM}"
        if cast is None:
            return True
        try:
            casts = load_casts()
            chosen = casts.get(cast)
            if pick == _SELECTED and character is not None:
                found = _find(casts, chosen, character)
                if model_version is not None and loha is not None:  # None: connected, and the file's to say
                    characters.build(chosen, found, version=model_version)
        except CastError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, character: str, model_version: str, tag_set: str, max_tags: int, weight: float,
                before: str, after: str, exclude: str, pick: str, seed: int,
                previous: str = "", cast: str = DEFAULT_CAST, loha: Loha | None = None) -> io.NodeOutput:
        casts = load_casts()
        chosen = casts.get(cast)
        names = names_of(loha, casts, chosen, model_version)
        if pick == _RANDOM:
            who = characters.pick(chosen.members(names.version), seed)
        else:
            who = _find(casts, chosen, character)
        prompt = characters.build(
            names.cast_for(chosen, who), who, version=names.version, tag_set=tag_set, max_tags=max_tags, weight=weight,
            before=before, after=after, exclude=exclude, previous=previous or "", others=casts.by_name.values(),
        )
        for problem in casts.problems:
            _log.warning("%s", problem)
        text = "\n".join((prompt.positive, *names.notes, *prompt.notes, *casts.problems))
        return io.NodeOutput(prompt.positive, prompt.negative, who.name, who.cards or 0, ui={"text": [text]})


def load_casts() -> Casts:
    """The casts as they are on disk now, the user's own included."""
    return characters.load_casts(_user_directory())


def _user_directory() -> Path:
    return Path(folder_paths.get_user_directory())


def _find(casts: Casts, chosen: Cast, name: str) -> Character:
    """The character in the chosen cast; the error says which cast to choose where she is in another."""
    try:
        return chosen.find(name)
    except UnknownCharacter as unknown:
        for other in casts.by_name.values():
            if any(known.name == name for known in other.characters):
                raise UnknownCharacter(
                    f"{name} is not in the cast '{chosen.name}' but in '{other.name}': set cast to '{other.name}'"
                ) from unknown
        raise
