"""Save LoHa: into the loras folder, under a new name."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from comfy_api.latest import io

from ..characters import CastError
from ..loha import FileError, Loha, files, report
from ..loha.precision import DTYPES
from ..patcher import loras
from ..patcher.comfyui import schema
from ..text import show
from .cast_file import write_cast
from .load import LohaType

_CAST_KEY = "shinymas_cast"


class SaveLoha(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasSaveLoha",
            display_name="Save LoHa",
            category="ShinyMas/LoHa",
            description="Writes a LoHa into models/loras, for ComfyUI, A1111 and kohya's tools. Never over a file.",
            search_aliases=["export", "safetensors", "lycoris", "shinymas"],
            is_output_node=True,
            inputs=[
                LohaType.Input("loha", tooltip="From Train LoHa or Load LoHa."),
                io.String.Input("name", default="my-loha",
                                tooltip="A plain name, or folder/name; .safetensors is added."),
                io.Combo.Input("precision", options=list(DTYPES), default="fp16",
                               tooltip="fp16 is what other tools write; fp32 keeps every digit of training."),
                io.Boolean.Input("write_cast", default=False, optional=True, tooltip=(
                    "Also write the characters it was trained on, with their tags, as a cast for the Character "
                    "Prompt: NAME.yaml in the folder 'shinymas' of ComfyUI's user directory. A character is a folder "
                    "N_name of the pictures, or the first tag of the captions where keep_tokens is on.")),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        try:
            if name is not None:  # connected: known in the run
                _target(name)
        except FileError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, loha: Loha, name: str, precision: str, write_cast: bool = False) -> io.NodeOutput:
        path = _target(name)
        written = files.save(loha, path, DTYPES[precision])
        # Last: whatever is wrong with the cast, the LoHa is on the disk.
        cast = [_cast_line(loha, path.stem)] if write_cast else []
        text = "\n".join([f"file: {written.path}", f"sha256: {written.sha256}",
                          *report.unusable_lines(loha, "not written"), *cast])
        return io.NodeOutput(written.path, ui={"text": [text]})


def _cast_line(loha: Loha, name: str) -> str:
    try:
        return f"cast: {write_cast(name, _cast_of(loha))}"
    except (FileError, CastError) as error:
        return f"cast: not written: {error}"


def _cast_of(loha: Loha) -> bytes:
    """The cast file of the characters in a LoHa's metadata. Raises FileError where it carries none."""
    if _CAST_KEY not in loha.metadata:
        raise FileError("this LoHa carries no cast; only files trained by Train LoHa do")
    try:
        characters = json.loads(loha.metadata[_CAST_KEY])["characters"]
        data = yaml.safe_dump({"version": 1, "characters": characters}, allow_unicode=True, sort_keys=False).encode()
    except (KeyError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise FileError(f"{_CAST_KEY} in the LoHa's metadata is not what Train LoHa writes") from error
    if not characters:
        raise FileError("its pictures name nobody. A character is a folder called N_name, such as 10_Kazano Hiori, or "
                        "the first tag of each caption where keep_tokens is 1 or more")
    return data


def _target(name: str) -> Path:
    """Where a LoHa of this name goes. Raises FileError where it is no name, or one that is taken elsewhere."""
    path = files.resolve_name(loras.folder(), name)
    if hidden := loras.hidden_by(path):
        raise FileError(f"'{show(name)}' is the name of a file in another loras folder ({show(hidden, 300)}); every "
                        "graph that names it would get this one instead. Choose another name.")
    return path
