"""Character List and Sheet: the whole cast, drawn one by one, on one labelled picture."""

from __future__ import annotations

import io as byte_io
from contextlib import suppress
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from .. import characters
from ..characters import DEFAULT_CAST, CastError, roster
from ..characters.sheet import Kept, draw, parse_label, plan, undrawable
from ..loha import FileError, files
from ..loha.files.atomic import write_whole
from ..patcher.comfyui import schema
from .prompt import chosen_cast, load_casts

_WHOLE, _ONE = "whole cast", "one idol a run"
_THUMBNAIL = 192  # pixels of a side


class CharacterList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        casts = load_casts()
        units = dict.fromkeys(who.unit for cast in casts.by_name.values() for who in cast.characters if who.unit)
        return schema(
            node_id="ShinyMasCharacterList",
            display_name="ShinyMas Character List",
            category="ShinyMas/Prompt",
            description="The prompts of many characters as lists: what is connected runs once for each, with the same "
                        "noise if its seed is fixed. For ShinyMas Sheet.",
            search_aliases=["all characters", "cast", "batch", "xy plot", "grid", "shinymas"],
            is_output_node=False,
            inputs=[
                io.Combo.Input("unit", options=[roster.EVERY_UNIT, roster.FAVOURITES, *units],
                               tooltip="Who is drawn. Favourites are those marked in the character picker."),
                io.Int.Input("minimum_cards", default=0, min=0, max=10_000,
                             tooltip="Leaves out characters the model learnt from fewer cards than this."),
                io.Combo.Input("model_version", options=list(casts.versions()),
                               tooltip="The model file in use: it decides the order of the names, and whom it knows."),
                io.Combo.Input("tag_set", options=list(characters.TAG_SETS),
                               tooltip="As in the Character Prompt: identity, or the model page's top tags."),
                io.Int.Input("max_tags", default=20, min=0, max=200, tooltip="At most so many tags of each character."),
                io.Float.Input("weight", default=1.0, min=0.0, max=3.0, step=0.05, tooltip="Weight of each name."),
                io.String.Input("before", default=characters.QUALITY, multiline=True,
                                tooltip="Goes in front of each name."),
                io.String.Input("after", default="", multiline=True,
                                tooltip="Goes behind each one's tags: clothes, pose, place."),
                io.String.Input("exclude", default="", tooltip="Tags that must not stand in any prompt."),
                io.String.Input("names", default="", multiline=True,
                                tooltip="These characters alone, one a line, in this order. Empty: by unit and cards."),
                io.String.Input("strengths", default="",
                                tooltip="Draw each at these strengths, e.g. none, 0.6, 0.8, 1. Connect `strength` to "
                                        "Apply LoHa. Empty: once, and `strength` is 1."),
                io.Combo.Input("label_script", options=list(roster.SCRIPTS),
                               tooltip="Names below the pictures. Romaji where this machine has no other font."),
                io.Combo.Input("run", options=[_WHOLE, _ONE],
                               tooltip="whole cast: everyone in one run. one idol a run: `index` chooses; set the "
                                       "batch count to the number of idols, and keep_in on the sheet, so that a "
                                       "cancelled batch keeps its pictures."),
                io.Int.Input("index", default=0, min=0, max=2**31, control_after_generate=True,
                             tooltip="Whose turn it is when one idol is drawn a run; without effect otherwise."),
                io.Combo.Input("cast", options=list(casts.by_name), default=DEFAULT_CAST, optional=True,
                               tooltip="The cast that the characters are from."),
                io.String.Input("lora_files", default="", optional=True,
                                tooltip="Draw with each of these files of models/loras, e.g. my-loha-0000*. Connect "
                                        "`lora_name` to Load LoHa. Empty: the file that is chosen there."),
                io.String.Input("cast_yaml", optional=True, force_input=True,
                                tooltip="A cast that is not on disk yet, from Tag Statistics; it stands for `cast`."),
            ],
            outputs=[
                io.String.Output("positive", display_name="positive", is_output_list=True,
                                 tooltip="A prompt for each, for CLIP Text Encode."),
                io.String.Output("character", display_name="character", is_output_list=True, tooltip="Their names."),
                io.String.Output("label", display_name="label", is_output_list=True,
                                 tooltip="What stands below each picture: name, strength and unit, with bars between."),
                io.Int.Output("cards", display_name="cards", is_output_list=True,
                              tooltip="How many cards the model learnt each from; 0 where the cast does not say."),
                io.Float.Output("strength", display_name="strength", is_output_list=True,
                                tooltip="The strength of each picture, for Apply LoHa."),
                io.String.Output("title", display_name="title", tooltip="A title for the sheet."),
                io.Custom("COMBO").Output("lora_name", display_name="lora_name", is_output_list=True,
                                          tooltip="The file of each picture, for Load LoHa, where lora_files says."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, unit=None, run=None, index=None, lora_files: str | None = "", **widgets) -> object:
        """Edited casts, new favourites and files take effect at the next run; an index that does not count, does not.

        Patterns that come over a link are None here: then every file counts.
        """
        favourites = sorted(_favourites()) if unit == roster.FAVOURITES else None
        drawn = folder_paths.get_filename_list("loras") if lora_files is None or lora_files.strip() else ()
        with suppress(CastError):
            drawn = roster.matching(drawn, lora_files or "*")
        return characters.cast_stamps(Path(folder_paths.get_user_directory())), favourites, tuple(drawn)

    @classmethod
    def validate_inputs(cls, strengths: str | None = None) -> bool | str:
        try:
            roster.strengths(strengths or "")
        except CastError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, unit: str, minimum_cards: int, model_version: str, tag_set: str, max_tags: int, weight: float,
                before: str, after: str, exclude: str, names: str, strengths: str, label_script: str, run: str,
                index: int, cast: str = DEFAULT_CAST, lora_files: str = "", cast_yaml: str = "") -> io.NodeOutput:
        chosen = chosen_cast(cast, cast_yaml)
        everyone = roster.choose(chosen, model_version, unit=unit, minimum_cards=minimum_cards, names=names,
                                 favourites=_favourites() if unit == roster.FAVOURITES else ())
        drawn = everyone if run == _WHOLE else (everyone[index % len(everyone)],)
        prompts = {who: characters.build(chosen, who, version=model_version, tag_set=tag_set, max_tags=max_tags,
                                         weight=weight, before=before, after=after, exclude=exclude) for who in drawn}
        at = roster.strengths(strengths)
        found = roster.matching(folder_paths.get_filename_list("loras"), lora_files) if lora_files.strip() else ()
        # A model at one strength serves everybody before the next is made.
        pictures = [(file, strength, who) for file in found or ("",) for strength in at or (1.0,) for who in drawn]
        rows = {strength: "none" if strength is None else f"{strength:g}" for strength in at}
        several = len(drawn) > 1 or not found
        labels = [roster.picture_label(who, label_script, rows.get(strength, ""), file, several)
                  for file, strength, who in pictures]
        title = f"{chosen.name} {model_version}" + (f", strength {', '.join(rows.values())}" if rows else "") + (
            "" if several else f", {drawn[0].name}")
        turn = f"{index % len(everyone) + 1} of {len(everyone)}: {drawn[0].name}" if run == _ONE else (
            f"{len(everyone)} characters, {len(pictures)} pictures")
        notes = [f"{who.name}: {note}" for who in drawn for note in prompts[who].notes]
        return io.NodeOutput(
            [prompts[who].positive for _, _, who in pictures], [who.name for _, _, who in pictures], labels,
            [who.cards or 0 for _, _, who in pictures], [strength or 0.0 for _, strength, _ in pictures], title,
            [file for file, _, _ in pictures],
            ui={"text": ["\n".join((turn, *notes))]})


class Sheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasSheet",
            display_name="ShinyMas Sheet",
            category="ShinyMas/Prompt",
            description="Puts labelled pictures on one sheet: by unit, or rows and columns such as strength by idol or "
                        "epoch by strength.",
            search_aliases=["contact sheet", "grid", "xy plot", "collage", "image grid", "shinymas"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures, from VAE Decode."),
                io.String.Input("labels", force_input=True,
                                tooltip="One for each picture: what stands below it, then after a bar its row, after "
                                        "another its group. From Character List, or your own."),
                io.Int.Input("columns", default=0, min=0, max=100, tooltip="Pictures in a line; 0 chooses."),
                io.Int.Input("cell_size", default=256, min=0, max=2048, step=8,
                             tooltip="Pixels of a picture's longer side on the sheet; 0 leaves them as they are."),
                io.String.Input("title", default="", tooltip="Stands over the sheet; Character List writes one."),
                io.String.Input("keep_in", default="",
                                tooltip="A folder in ComfyUI's output folder. Each picture is kept there, and the "
                                        "sheet shows all that are kept under this title: it grows over several runs."),
                io.Boolean.Input("write_thumbnails", default=False,
                                 tooltip="Also make these pictures the character picker's thumbnails (in ComfyUI's "
                                         "user folder, over earlier ones). Connect `characters`."),
                io.String.Input("characters", optional=True, force_input=True,
                                tooltip="Who is on each picture, from Character List; for the thumbnails."),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="The sheet as one picture.")],
        )

    @classmethod
    def validate_inputs(cls, keep_in: list[str] | str | None = None) -> bool | str:
        try:
            _kept_folder(keep_in[0] if isinstance(keep_in, list) else keep_in or "")
        except FileError as error:
            return f"keep_in: {error}"
        return True

    @classmethod
    def execute(cls, images: list[torch.Tensor], labels: list[str], columns: list[int], cell_size: list[int],
                title: list[str], keep_in: list[str], write_thumbnails: list[bool],
                characters: list[str] | None = None) -> io.NodeOutput:
        title, notes = (title or [""])[0], []
        # A batch is as many pictures.
        pictures = [picture for batch in images for picture in batch]
        if len(pictures) != len(labels):
            raise FileError(f"{len(pictures)} pictures and {len(labels)} labels: each picture needs its own. Connect "
                            "`label` of the node that the prompts come from.")
        folder = _kept_folder(keep_in[0])
        if folder is not None:
            kept = Kept(folder, title)
            for text, picture in zip(labels, pictures, strict=True):
                kept.put(text, pixels(picture), lambda path, data: write_whole(path, [data], overwrite=True))
            names = list(kept.paths)
            notes = [f"kept: {len(names)} pictures in {folder}"]
            if kept.others:
                notes.append(f"note: {kept.others} pictures there are under another title and not shown")
        else:
            names = labels
        if twice := len(labels) - len(set(labels)):
            notes.append(f"note: {twice} pictures have the label of a later one and are not shown")

        def read(index: int) -> np.ndarray:
            return pixels(pictures[index]) if folder is None else kept.read(names[index])

        if write_thumbnails[0]:
            notes += _thumbnails(pictures, labels, characters)
        places = plan([parse_label(text) for text in names], columns[0])
        sheet = draw(places, read, _cell(read(0).shape, cell_size[0]), title)
        if undrawable([*names, title]):
            notes.append("note: no font of this machine has these letters; install Noto Sans CJK")
        text = "\n".join([f"pictures: {len(places.cells)}", *notes])
        return io.NodeOutput(torch.from_numpy(sheet)[None], ui={"text": [text]})


def _cell(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(width, height) of a cell for pictures of this shape."""
    height, width = shape[:2]
    scale = longest / max(height, width) if longest else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def pixels(picture: torch.Tensor) -> np.ndarray:
    """(height, width, channels) from 0 to 1 as (height, width, 3) uint8."""
    colours = picture[..., :3].expand(*picture.shape[:2], 3)
    return (colours.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _kept_folder(name: str) -> Path | None:
    """The folder in ComfyUI's output folder that is called so; None for no name. Raises FileError."""
    if not name.strip():
        return None
    return files.resolve_name(folder_paths.get_output_directory(), f"{name}/sheet").parent


def _thumbnails(pictures: list[torch.Tensor], labels: list[str], names: list[str] | None) -> list[str]:
    """Write the first picture of each character that is drawn under a LoHa; a line on what was done."""
    if not names or len(names) != len(pictures):
        raise CastError("write_thumbnails: who is on the pictures? Connect `character` of Character List to "
                        "`characters`.")
    first: dict[str, torch.Tensor] = {}
    for name, text, picture in zip(names, labels, pictures, strict=True):
        if parse_label(text).row != "none":
            first.setdefault(name, picture)
    folder, casts = _users_own() / "thumbnails", load_casts()
    for name, picture in first.items():
        found = casts.find(DEFAULT_CAST, name)
        data = byte_io.BytesIO()
        _square(Image.fromarray(pixels(picture))).save(data, "WEBP", quality=85)
        path = files.resolve_name(folder, f"{found.cast.name}/{found.character.name}").with_suffix(".webp")
        write_whole(path, [data.getvalue()], overwrite=True)
    return [f"thumbnails: {len(first)} in {folder}"]


def _square(picture: Image.Image) -> Image.Image:
    """The upper middle of the picture, where the face is, as a small square."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, min((picture.height - side) // 8, picture.height - side)
    return picture.crop((left, top, left + side, top + side)).resize((_THUMBNAIL,) * 2, Image.Resampling.LANCZOS)


def thumbnails(own: Path, cast: str) -> dict[str, int]:
    """Who of a cast has a thumbnail in a person's own folder: her name → when it was written, in seconds."""
    return {path.stem: int(path.stat().st_mtime) for path in (own / "thumbnails" / cast).glob("*.webp")}


def _users_own() -> Path:
    """Where the browser finds and keeps what is a person's own: ComfyUI serves it as /userdata."""
    return Path(folder_paths.get_user_directory()) / "default" / "shinymas"


def _favourites() -> frozenset[str]:
    return roster.read_favourites(_users_own() / "favourites.json")
