"""Recognition Report: how well a LoHa knows each character, by a tagger's eyes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from PIL import Image

from ..characters import DEFAULT_CAST, cast_stamps
from ..characters.catalogue import Cast
from ..loha import FileError, files
from ..loha.files.opening import file_stamp
from ..patcher.comfyui import schema
from ..text import show
from .identity import NO_MODEL, SecondMeasure, model_names, model_path
from .prompt import chosen_cast, load_casts
from .sheet import pixels
from .tagging import NO_TAGGER, tagger_names, tagger_path

_Value = TypeVar("_Value")
_BESIDE = "+"  # between the names of those who stand side by side
# What a picture depends on besides its prompt, by the names that samplers and loaders give it.
_DRAWN_WITH = ("seed", "noise_seed", "sampler_name", "scheduler", "steps", "cfg", "denoise", "ckpt_name", "lora_name")


class RecognitionReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasRecognition",
            display_name="Recognition Report",
            category="ShinyMas/Training",
            description="Looks with a tagger at pictures of known characters and says how much of each one's looks "
                        "came back, at each strength of the LoHa, beside the base model alone, and who is taken for "
                        "whom.",
            search_aliases=["evaluate", "confusion", "recall", "xy plot", "benchmark", "shinymas"],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                io.Combo.Input("tagger", options=list(tagger_names()) or [NO_TAGGER], tooltip=(
                    "An .onnx file in ComfyUI's models/taggers or models/wd14_tagger folder, with its tags beside it, "
                    "as for Tag Images.")),
                io.Float.Input("threshold", default=0.35, min=0.0, max=1.0, step=0.01, tooltip=(
                    "How sure the tagger must be of a tag; the model page has 0.35. 0: what its authors advise.")),
                io.Combo.Input("cast", options=list(load_casts().by_name), default=DEFAULT_CAST,
                               tooltip="Whose identity tags are looked for."),
                io.String.Input("folder", default="", tooltip=(
                    "Pictures out of a folder in ComfyUI's output folder, besides those that are connected: what a "
                    "ShinyMas Sheet has kept (keep_in), or a folder for each character, called by her name.")),
                io.Image.Input("images", optional=True, tooltip="The pictures, from VAE Decode."),
                io.String.Input("characters", optional=True, force_input=True, tooltip=(
                    "Who is on each picture, from Character List; A + B for two who stand side by side.")),
                io.Float.Input("strengths", optional=True, force_input=True, tooltip=(
                    "The strength of the LoHa of each picture, from Character List; 0 is the base model alone. "
                    "Left open: 1.")),
                io.String.Input("cast_yaml", optional=True, force_input=True, tooltip=(
                    "A cast that is not on disk yet, from Tag Statistics; it stands for `cast`.")),
                io.Combo.Input("identity_model", options=model_names(), default=NO_MODEL, optional=True, tooltip=(
                    "A second measure for pictures of one person: an .onnx file in ComfyUI's models/identity folder "
                    "that embeds pictures, such as model_feat.onnx of deepghs/ccip_onnx on Hugging Face. Nothing is "
                    "downloaded by itself.")),
                io.String.Input("references", default="", optional=True, tooltip=(
                    "For identity_model: a folder with a folder of pictures for each character, called by her name or "
                    "N_name, as for Tag Statistics. A path that is not absolute lies in ComfyUI's input folder.")),
            ],
            outputs=[
                io.String.Output("table", display_name="table",
                                 tooltip="Means of each strength, then each character; one fact a line."),
                io.Image.Output("heat_map", display_name="heat_map",
                                tooltip="Rows: who was asked for. Columns: whose identity tags came back. Below, with "
                                        "an identity model: whose references are nearest."),
                io.String.Output("csv", display_name="csv", tooltip="Every number, for a spreadsheet."),
            ],
        )

    @classmethod
    def validate_inputs(cls, tagger: list[str] | str | None = None, folder: list[str] | str | None = None,
                        identity_model: list[str] | str | None = None) -> bool:
        """What is wrong is raised: ComfyUI would repeat a returned text for each of the inputs, as theirs."""
        if tagger:
            tagger_path(_first(tagger))
        if folder:
            _in_output(_first(folder))
        if identity_model:
            model_path(_first(identity_model))
        return True

    @classmethod
    def fingerprint_inputs(cls, tagger: list[str] | str | None = None, folder: list[str] | str | None = None,
                           references: list[str] | str | None = None, **inputs) -> object:
        """Pictures that came into a folder, edited casts and another tagger under the same name are seen."""
        from ..taggers.layouts import recognise

        if _first(folder) or _first(references) or not _first(tagger):
            return float("nan")
        stamps = cast_stamps(Path(folder_paths.get_user_directory()))
        with suppress(FileError):
            stamps = stamps, *map(file_stamp, recognise(tagger_path(_first(tagger))).all)
        return stamps

    @classmethod
    def execute(cls, tagger: list[str], threshold: list[float], cast: list[str], folder: list[str],
                images: list[torch.Tensor] | None = None, characters: list[str] | None = None,
                strengths: list[float] | None = None, cast_yaml: list[str] | None = None,
                identity_model: list[str] | None = None, references: list[str] | None = None) -> io.NodeOutput:
        from ..characters.recognition import Recognition, Seen, draw
        from ..taggers.ledger import Ledger
        from ..taggers.nearness import Asked
        from ..taggers.sight import known_to, seer, tags_of
        from ..taggers.tagger import Tagger

        chosen = chosen_cast(cast[0], (cast_yaml or [""])[0])
        mixed: dict[str, dict[str, None]] = {"files": {}, "sheets": {}}
        asked = [Asked(*one) for one in (*_connected(chosen, images, characters, strengths),
                                         *_kept(chosen, _in_output(folder[0]), mixed))]
        if not asked:
            raise FileError("no pictures: connect `images` and `characters`, or give a folder that holds some.")
        eyes = Tagger(tagger_path(tagger[0]))
        second = SecondMeasure(chosen, _first(identity_model) or "", _first(references) or "")
        notes = Path(folder_paths.get_user_directory()) / "shinymas" / "recognition"
        ledger = Ledger(notes, eyes, threshold[0])
        bar = comfy.utils.ProgressBar(len(asked) + second.steps(len(asked)), node_id=cls.hidden.unique_id)

        def progress(done: int | None = None) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)

        found = tags_of(eyes, (one.picture for one in asked), threshold[0], ledger, progress)
        table = Recognition(chosen, [Seen(one.name, one.strength, tags) for one, tags
                                     in zip(asked, found, strict=True)], known_to(eyes))
        identity, said = second.measure(asked, seer(eyes, threshold[0], ledger), known_to(eyes), notes, progress)
        facts = [f"tagger: {show(eyes.files.model.parent.name)}/{show(eyes.files.model.name)}, threshold "
                 f"{threshold[0] or eyes.thresholds[0]:g}", *said,
                 *_drawn_with(cls.hidden.prompt, cls.hidden.unique_id)]
        if table.not_known:
            facts.append(f"not counted, for the tagger does not know them: {', '.join(map(show, table.not_known))}")
        for what, names in mixed.items():
            if len(names) > 1:
                listed = ", ".join(show(name) or "(unnamed)" for name in sorted(names)[:8])
                facts.append(f"note: pictures of several {what} count together: {listed}")
        text = "\n".join([*table.lines(), *(identity.lines() if identity else ()), *facts])
        below = [line for line in facts if line not in said[1:]]
        picture = torch.from_numpy(draw(table, below, identity)).float().div_(255)
        return io.NodeOutput(text, picture[None], table.csv(identity), ui={"text": [text]})


def _connected(cast: Cast, images: list[torch.Tensor] | None, names: list[str] | None, strengths: list[float] | None
               ) -> Iterator[tuple[str, float, Image.Image, bool]]:
    """(name, strength, picture, whether in a scene) of each picture that is connected, and of each who stands beside
    others."""
    pictures = [picture for batch in images or () for picture in batch]
    strengths = [1.0] * len(pictures) if strengths is None else strengths
    for what, given in (("characters", names or ()), ("strengths", strengths)):
        if len(given) != len(pictures):
            raise FileError(f"{len(pictures)} pictures and {len(given)} {what}: each picture needs its own. Connect "
                            "the outputs of Character List that belong together.")
    for picture, text, strength in zip(pictures, names or (), strengths, strict=True):
        image, people = Image.fromarray(pixels(picture)), [cast.find(name) for name in text.split(_BESIDE)]
        for place, who in enumerate(people):
            left, right = (image.width * at // len(people) for at in (place, place + 1))
            part = image.crop((left, 0, right, image.height)) if len(people) > 1 else image
            yield who.name, float(strength), part, len(people) > 1


def _kept(cast: Cast, folder: Path | None, mixed: dict[str, dict[str, None]]
          ) -> Iterator[tuple[str, float, Image.Image]]:
    """(name, strength, picture) of what lies in a folder: of a Sheet, and in folders called by a character's name.

    Args:
        mixed: takes the files and the sheets by which pictures of a Sheet were drawn.
    """
    if folder is None:
        return
    from ..characters.sheet import parse_label, read_label
    from ..loha.training.data.pictures import read_pixels

    for path in sorted(folder.glob("*.png")):
        label, title = read_label(path)
        if label:
            parsed = parse_label(label)
            who, (file, strength) = cast.find(parsed.column.partition(" (")[0]), _drawn_at(parsed.row)
            mixed["files"].setdefault(file)
            mixed["sheets"].setdefault(title)
            yield who.name, strength, read_pixels(path, any_shape=True)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        number, _, name = inner.name.partition("_")
        who = cast.find(name if number.isdecimal() and name else inner.name)
        for path in sorted(inner.iterdir()):
            if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
                yield who.name, 1.0, read_pixels(path, any_shape=True)


def _drawn_at(row: str) -> tuple[str, float]:
    """File and strength in a label's row, `FILE, 0.8`, `FILE` or `none`; "" and 1 where none stands there."""
    file, _, word = (part.strip() for part in row.rpartition(","))
    if word == "none":
        return file, 0.0
    try:
        strength = float(word or 1.0)
    except ValueError:
        strength = math.nan
    is_number = math.isfinite(strength) and not re.match(r"0\d", word)  # 000016 is the epoch in a file's name
    return (file, strength) if is_number else (row, 1.0)


def _first(given: list[_Value] | _Value | None) -> _Value | None:
    """A widget's value, which comes in a list."""
    return (given[0] if given else None) if isinstance(given, list) else given


def _in_output(name: str) -> Path | None:
    """The folder in ComfyUI's output folder that is called so; None for no name. Raises FileError."""
    if not name.strip():
        return None
    folder = files.resolve_name(folder_paths.get_output_directory(), f"{name}/sheet").parent
    if not os.path.isdir(folder):  # Path.is_dir raises for names that no system has
        raise FileError(f"folder: there is no '{show(name)}' in ComfyUI's output folder.")
    return folder


def _drawn_with(prompt: dict | None, node: str | None) -> list[str]:
    """A line on each node before this one that says what the pictures depend on."""
    lines, waiting, seen = [], [node], set()
    while prompt and waiting:
        name = waiting.pop(0)
        if name in seen or name not in prompt:
            continue
        seen.add(name)
        inputs = prompt[name].get("inputs", {})
        said = [f"{key} {show(inputs[key], 60)}" for key in _DRAWN_WITH
                if key in inputs and not isinstance(inputs[key], list)]
        if said:
            lines.append(f"drawn with: {show(prompt[name].get('class_type', ''), 60)}: {', '.join(said)}")
        waiting += [value[0] for value in inputs.values() if isinstance(value, list) and len(value) == 2]
    return lines
