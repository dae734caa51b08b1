"""ShinyMas Character Prompt: from a name to the text that CLIP Text Encode takes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from .. import characters
from ..characters import DEFAULT_CAST, Cast, CastError, Casts, Prompt, parse
from ..loha import Loha
from ..patcher.comfyui import checks_choices, schema
from ..text import show
from .load import LohaType
from .model_version import FileSays, names_of

_log = logging.getLogger("shinymas-loha")
_SELECTED, _RANDOM = "selected", "random"
# The one input of each node that its mistakes are told at.
_CHOSEN = {"ShinyMasCharacterPrompt": "character", "ShinyMasScene": "people"}
# The number that chooses nobody while another input has this value.
_UNUSED = {"ShinyMasCharacterPrompt": ("seed", "pick", _SELECTED),
           "ShinyMasCharacterList": ("index", "run", "whole cast")}


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
                io.Combo.Input("model_version", options=list(casts.versions()),
                               tooltip="The model file in use. v2.x wants 'Kazano Hiori', v1.0 wants 'Hiori Kazano'. "
                                       "Versions of casts of your own follow."),
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
                io.String.Input("tags", default="", optional=True,
                                tooltip="Which of her tags, in place of tag_set and max_tags, as the tag picker writes "
                                        "them: Kazano Hiori: black hair, (mole:1.2). Empty: those of tag_set."),
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
    def validate_inputs(cls, character: str | None = None) -> bool | str:
        """Before anything runs. It asks for one input, a `Choice`: ComfyUI repeats what is said here for each."""
        if not isinstance(character, Choice):
            return True
        casts, beside = load_casts(), character.beside
        if unlisted := unlisted_choice(casts, beside):
            return True if checks_choices() else unlisted
        try:
            if beside.get("pick") == _SELECTED and isinstance(beside["cast"], str):
                found = casts.find(beside["cast"], character)
                # Whom a version knows is the file's to say where one is connected.
                if isinstance(beside.get("model_version"), str) and "loha" not in beside:
                    characters.build(found.cast, found.character, version=beside["model_version"])
        except CastError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, loha: Loha | None = None, **widgets) -> io.NodeOutput:
        casts = load_casts()
        prompt, notes = write(casts, FileSays.of(loha), **widgets)
        for problem in casts.problems:
            _log.warning("%s", problem)
        # Apart from the text, which people copy.
        said = {"text": [prompt.positive], "notes": notes, "problems": list(casts.problems)}
        who = prompt.character
        return io.NodeOutput(prompt.positive, prompt.negative, who.name, who.cards or 0, ui=said)


def write(casts: Casts, says: FileSays | None, *, character: str, model_version: str, tag_set: str, max_tags: int,
          weight: float, before: str, after: str, exclude: str, pick: str, seed: int, previous: str = "",
          cast: str = DEFAULT_CAST, tags: str = "") -> tuple[Prompt, list[str]]:
    """The prompt that the node writes with these inputs, and all there is to know of it.

    Args:
        says: what the connected LoHa tells, None without one.

    Raises CastError.
    """
    names = names_of(says, casts, casts.get(cast), model_version)
    if pick == _RANDOM:
        chosen, notes = casts.get(cast), ()
        who = characters.pick(chosen.members(names.version), seed)
    else:
        found = casts.find(cast, character)
        chosen, who, notes = found.cast, found.character, found.notes
    prompt = characters.build(
        names.cast_for(chosen, who), who, version=names.version, tag_set=tag_set, max_tags=max_tags, weight=weight,
        before=before, after=after, exclude=exclude, previous=previous or "", others=casts.by_name.values(),
        tags=tags or "",
    )
    return prompt, [*names.notes, *notes, *prompt.notes]


class Choice(str):
    """A character, or the people of a scene, as a person chose it.

    Attributes:
        beside: all inputs of the same node; a list where a link decides.
    """

    beside: dict

    @classmethod
    def of(cls, inputs: dict, name: str) -> Choice:
        choice = cls(inputs[name])
        choice.beside = {"cast": DEFAULT_CAST} | inputs
        return choice

    def __str__(self) -> Choice:
        """Itself: ComfyUI makes text of each text before it asks what is wrong with it."""
        return self

    def __reduce_ex__(self, _protocol: int) -> tuple[type[str], tuple[str]]:
        """ComfyUI copies what it runs: a copy is the text alone."""
        return str, (self[:],)


def on_prompt(sent: dict) -> dict:
    """A prompt as it comes to the server, before ComfyUI judges it.

    A seed or an index that chooses nobody becomes 0, or each new one would make every later node run again: what a
    node is remembered by holds all its inputs. Each character, or people of a scene, becomes a `Choice`.
    """
    prompt = sent.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        kind = node.get("class_type") if isinstance(inputs, dict) else None
        if not isinstance(kind, str):
            continue
        number, chooser, value = _UNUSED.get(kind, ("", "", ""))
        if number and inputs.get(chooser) == value and isinstance(inputs.get(number), int):
            inputs[number] = 0
        chosen = _CHOSEN.get(kind)
        if chosen and isinstance(inputs.get(chosen), str):
            inputs[chosen] = Choice.of(inputs, chosen)
    return sent


def load_casts() -> Casts:
    """The casts as they are on disk now, the user's own included."""
    return characters.load_casts(_user_directory())


def chosen_cast(name: str, text: str) -> Cast:
    """The cast called `name`, or that in a YAML `text`, as Tag Statistics gives it, where there is one.

    Raises CastError where there is no such cast, or the text is none.
    """
    casts = load_casts()
    if not text.strip():
        return casts.get(name)
    found = parse(text.encode("utf-8", "replace"), "cast_yaml", "cast_yaml")
    return replace(found, withheld=tuple(dict.fromkeys((*casts.get(DEFAULT_CAST).withheld, *found.withheld))))


def _user_directory() -> Path:
    return Path(folder_paths.get_user_directory())


def unlisted_choice(casts: Casts, inputs: dict) -> str | None:
    """What to say of a choice that is not in its list, None where all are."""
    lists = {"cast": casts.by_name, "model_version": casts.versions(), "tag_set": characters.TAG_SETS,
             "pick": (_SELECTED, _RANDOM)}
    for name, known in lists.items():
        value = inputs.get(name)
        if isinstance(value, str) and value not in known:
            why = "".join(f"; {problem}" for problem in casts.problems) if name == "cast" else ""
            return f"{name}: '{show(value)}' is not one of {', '.join(map(show, known))}{why}"
    return None
