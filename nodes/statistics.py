"""Tag Statistics: who is in the captions, her tags and looks, a cast of that, and repeats that balance it."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..characters import DEFAULT_CAST, CastError, Casts, cast_stamps
from ..characters import statistics as captions
from ..loha import FileError, Loha, files
from ..loha.files.atomic import write_whole
from ..patcher.comfyui import schema
from .cast_file import cast_path, write_cast
from .load import LohaType
from .prompt import load_casts
from .typed_paths import bare, reach, typed_path


class TagStatistics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasTagStatistics",
            display_name="Tag Statistics",
            category="ShinyMas/Training",
            description="Counts the tags of captions, or of a LoHa's training, for each character: her top tags, what "
                        "she looks like, contradictions, a cast of it all, and repeats that balance few pictures with "
                        "many.",
            search_aliases=["captions", "tag frequency", "dataset balance", "repeats", "cast", "shinymas"],
            is_output_node=True,
            inputs=[
                io.String.Input("folder", default="", tooltip=(
                    "The folder with the captions, .txt or .caption; all folders below it count. A path that is not "
                    "absolute lies in ComfyUI's input folder.")),
                io.Combo.Input("told_apart_by", options=list(captions.TOLD_APART_BY), tooltip=(
                    "folder: each character has a folder, such as 10_Kazano Hiori. name in tags: her name is one of "
                    "the tags. first tag: the first tag of each caption is a name.")),
                io.Int.Input("top_n", default=20, min=1, max=200, tooltip="So many tags of each character."),
                io.String.Input("names", default="", multiline=True, tooltip=(
                    "For name in tags: who to look for, one a line. Empty: everyone in the casts.")),
                io.String.Input("write_cast", default="", tooltip=(
                    "A name: the characters become a cast of that name for the Character Prompt. Never over an "
                    "existing one. Empty: nothing is written.")),
                io.String.Input("write_dataset", default="", tooltip=(
                    "A name: writes NAME.toml into the folder, kohya's dataset file with the balanced repeats. No "
                    "folder is renamed, no file replaced. Empty: nothing is written.")),
                LohaType.Input("loha", optional=True, tooltip=(
                    "Count what the trainer of this LoHa counted (ss_tag_frequency) instead of a folder's captions.")),
            ],
            outputs=[
                io.String.Output("yaml", display_name="yaml",
                                 tooltip="The characters as a cast, in the form of character_tags.yaml."),
                io.String.Output("table", display_name="table",
                                 tooltip="Top tags and number of pictures, in the form of the model page."),
                io.Image.Output("chart", display_name="chart",
                                tooltip="A bar for each character's pictures, and her looks beside it."),
                io.String.Output("report", display_name="report", tooltip=(
                    "What was read; of each character the shares of her tags, what is distinctive, her looks, and "
                    "contradictions; one fact a line.")),
                io.String.Output("balance", display_name="balance",
                                 tooltip="Repeats for each character, and how many pictures of hers an epoch sees."),
            ],
        )

    @classmethod
    def validate_inputs(cls, write_cast: str | None = None, write_dataset: str | None = None) -> bool:
        """What is wrong is raised: ComfyUI would repeat a returned text for each of the inputs, as theirs."""
        if write_cast:
            cast_path(write_cast)
        if write_dataset:
            _dataset_path(Path(), write_dataset)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, told_apart_by: str | None = None, names: str | None = None,
                           **values) -> object:
        """Changed captions are counted anew, and where the names of the casts count, changed casts."""
        if folder is None:  # connected: may be any
            return float("nan")
        casts = () if told_apart_by != captions.BY_NAME or names else cast_stamps(
            Path(folder_paths.get_user_directory()))
        try:
            return captions.folder_stamp(typed_path(bare(folder)), reach()) if folder.strip() else "", casts
        except (CastError, FileError) as error:
            return str(error)

    @classmethod
    def execute(cls, folder: str, told_apart_by: str, top_n: int, names: str, write_cast: str, write_dataset: str,
                loha: Loha | None = None) -> io.NodeOutput:
        casts = load_casts()
        found = captions.summarise(_counted(folder, told_apart_by, names, loha, casts), top_n,
                                   casts.get(DEFAULT_CAST).withheld, casts.character_names())
        repeats = captions.balance(found)
        text = captions.cast_yaml(found, casts.get(DEFAULT_CAST).withheld)
        report, balance = captions.report_text(found), captions.balance_text(repeats)
        written = []
        if write_cast:
            written += _cast_lines(write_cast, text)
        if write_dataset:
            written += _dataset_lines(found, folder, write_dataset, loha is not None)
        if loha is not None and folder.strip():
            written.append("note: the folder is not looked into: a LoHa is connected")
        report = "\n".join([*written, report])
        chart = torch.from_numpy(captions.draw_chart(found, repeats))[None]
        return io.NodeOutput(text, captions.page_text(found), chart, report, balance,
                             ui={"text": [f"{report}\n{balance}"]})


def _counted(folder: str, told_apart_by: str, names: str, loha: Loha | None, casts: Casts) -> captions.Tallies:
    from ..loha.training.data.captions import CaptionError, read_caption
    from ..loha.training.data.folders import LEADS_OUT

    people = (who for cast in casts.by_name.values() for who in cast.characters)
    known = captions.known_names(names, people)
    if loha is not None:
        return captions.count_metadata(loha.metadata, told_apart_by, known)
    if not folder.strip():
        raise CastError("folder: empty. Give the folder that holds the captions, or connect a LoHa")
    bar, may_read = comfy.utils.ProgressBar(1), reach()

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    def read(path: str) -> str:
        if os.path.islink(path) and not may_read(Path(path)):
            raise captions.NotACaption(LEADS_OUT)
        # By the trainer's own rules: of a file of several lines it may take the first alone.
        try:
            return read_caption(path)
        except CaptionError as error:
            raise captions.NotACaption(error.reason) from error

    return captions.count_captions(typed_path(bare(folder)), told_apart_by, known, read, progress, may_read)


def _cast_lines(name: str, text: str) -> list[str]:
    """What became of the cast: the counts stand whatever is wrong with it."""
    path, data = cast_path(name), text.encode()
    try:
        if _holds(path, data):
            return [f"cast: {path} is as counted"]
        return [f"cast: {write_cast(name, data)}; press R in ComfyUI, then it is in the lists"]
    except (FileError, CastError) as error:
        return [f"cast: not written: {error}"]


def _dataset_lines(found: captions.Statistics, folder: str, name: str, from_loha: bool) -> list[str]:
    """What became of the dataset's TOML, and what in it differs from the folders as they are."""
    try:
        if from_loha:
            raise CastError("a LoHa does not say where its pictures are; give the folder instead")
        path = _dataset_path(typed_path(bare(folder)), name)
        text, changes = captions.dataset_toml(found)
        if not _holds(path, text.encode()):
            write_whole(path, [text.encode()], overwrite=False)
    except (FileError, CastError) as error:
        return [f"dataset: not written: {error}"]
    return [f"dataset: {path}; folders with other repeats: {len(changes)}, none renamed", *changes]


def _holds(path: Path, data: bytes) -> bool:
    """Whether this was written before: the same graph may run again."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _dataset_path(folder: Path, name: str) -> Path:
    path = files.resolve_name(folder, name)
    if path.parent != folder:
        raise FileError("write_dataset: the file lies beside the captions; take the folder out of the name")
    return path.with_suffix(".toml")
