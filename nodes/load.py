"""Load LoHa: a file of the `loras` folder to the value that every other node takes."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache

from comfy_api.latest import io

from ..loha import FileError, files, overview, report
from ..patcher import loras
from ..patcher.comfyui import schema
from .model_version import FileSays, version_lines, words_of

LohaType = io.Custom("SHINYMAS_LOHA")


class LoadLoha(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasLoadLoha",
            display_name="Load LoHa",
            category="ShinyMas/LoHa",
            description="Reads and checks a LoHa file of the models/loras folder. Plain LoRA files load too.",
            search_aliases=["lycoris", "hadamard", "lora loader", "shinymas"],
            inputs=[
                io.Combo.Input("lora_name", options=loras.names(),
                               tooltip="A .safetensors file in ComfyUI's models/loras folder."),
            ],
            outputs=[
                LohaType.Output("loha", display_name="loha", tooltip="The checked file, for Apply LoHa."),
                io.String.Output("info", display_name="info",
                                 tooltip="What the file holds, one fact a line: hash, kinds, ranks, alphas, top tags."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None) -> object:
        """A file replaced under the same name is read anew, also when the scale beside it (PEFT) is.

        A name that comes over a link is None here: then whatever is replaced counts.
        """
        return [_stamp(name) for name in ([lora_name] if lora_name else loras.names())]

    @classmethod
    def validate_inputs(cls, lora_name: str | None) -> bool | str:
        """Before anything runs; a name that comes over a link is None here and is checked at the run."""
        try:
            if lora_name is not None:
                loras.find(lora_name)
        except FileError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, lora_name: str) -> io.NodeOutput:
        loha = files.read(loras.find(lora_name))
        version = version_lines(loha)
        info = "\n".join(report.file_lines(loha) + report.unusable_lines(loha) + version + report.hash_lines(loha))
        drawn = overview.of_file(loha)
        drawn |= {"facts": [line.split(": ", 1) for line in version] + drawn["facts"], "words": words_of(loha)}
        return io.NodeOutput(loha, info, ui={"text": [info], "shinymas_loha": [drawn]})


def says(name: str) -> FileSays:
    """What a file of the list tells of its names, read once as long as it stays. Raises FileError."""
    return _says(loras.find(name), _stamp(name))


@lru_cache(maxsize=16)
def _says(path: str, stamp: tuple) -> FileSays:
    return FileSays.of(files.read(path))


def _stamp(name: str) -> tuple:
    path = loras.path_of(name)
    stamp = [name]
    for place in (path, path and os.path.join(os.path.dirname(path), files.PEFT_CONFIG)):
        with suppress(FileError):
            stamp += files.file_stamp(place) if place else ()
    return tuple(stamp)
