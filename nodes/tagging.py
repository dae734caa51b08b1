"""Tag Images: a folder of pictures to captions beside them."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..loha.errors import FileError, LohaError, SettingsError
from ..loha.files.opening import file_stamp
from ..loha.training.settings.fields import describe
from ..patcher.comfyui import schema
from ..patcher.messages import clock, progress, tell
from ..taggers.options import TaggingOptions
from ..text import show
from .typed_paths import bare, reach, typed_path
from .widgets import inputs_of

# Other packs keep their WD models in the first.
_FOLDERS = ("wd14_tagger", "taggers")
NO_TAGGER = "no tagger found"
_SECONDS = 0.5  # between two words to the browser


def register_folders() -> None:
    """Let ComfyUI look for taggers in models/wd14_tagger and models/taggers, and wherever a person has moved them."""
    for name in _FOLDERS:
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))


class TagImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        fields = list(describe(TaggingOptions).values())
        return schema(
            node_id="ShinyMasTagImages",
            display_name="Tag Images (WD14)",
            category="ShinyMas/Training",
            description="Writes captions for a folder of pictures with a tagger: WD14 and its kin, cl_tagger, camie or "
                        "pixai. No caption that is there is touched unless you ask for it.",
            search_aliases=["wd14", "tagger", "caption", "interrogate", "danbooru", "shinymas"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.String.Input("folder", default="", tooltip=(
                    "The folder with the pictures, or with folders of pictures in it. A path that is not absolute lies "
                    "in ComfyUI's input folder.")),
                io.Combo.Input("model", options=list(tagger_names()) or [NO_TAGGER], tooltip=(
                    "An .onnx file in ComfyUI's models/taggers or models/wd14_tagger folder, with its tags beside it. "
                    "Which kind of tagger it is shows by its files. The help page says where to get one.")),
                *inputs_of(fields[:1], first=["threshold"]),
                *inputs_of(fields[1:], optional=[field.name for field in fields],
                           first=["character_threshold", "character_tags", "existing", "prefix", "exclude"]),
            ],
            outputs=[
                io.String.Output("info", display_name="info", tooltip=(
                    "The tagger, its layout and thresholds, how many captions were written, and every picture that was "
                    "left out with the reason.")),
                io.String.Output("pictures", display_name="pictures", tooltip=(
                    "The folder, for the `folder` of LoHa Training Data, which then waits for the captions.")),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        try:
            if model is not None:  # connected: known in the run
                tagger_path(model)
        except FileError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, model: str | None = None, **options) -> object:
        """New pictures, changed captions and another model under the same name are seen."""
        from ..loha.training.data import DataOptions, FolderOptions, folders_digest
        from ..taggers.layouts import recognise

        if folder is None or model is None:
            return float("nan")
        try:
            pictures = folders_digest(DataOptions((FolderOptions(_typed(folder)),)), reach())
            return pictures, *map(file_stamp, recognise(tagger_path(model)).all)
        except LohaError as error:
            return str(error)

    @classmethod
    def execute(cls, folder: str, model: str, **options) -> io.NodeOutput:
        from ..taggers.run import TaggingRun
        from ..taggers.tagger import Tagger

        node_id = cls.hidden.unique_id
        chosen, path = TaggingOptions(**options), _typed(folder)
        run = TaggingRun(path, Tagger(tagger_path(model)), chosen, reach())
        try:
            run.go(_Progress(node_id))
        except BaseException:  # a cancelled run is an Exception in older cores, and none in newer ones
            tell(node_id, f"stopped: run again to go on\n{run.report()}", logging.WARNING)
            raise
        info = run.report()
        return io.NodeOutput(info, str(path), ui={"text": [info]})


class _Progress:
    """Tells ComfyUI and the person how far the run is; stops it when somebody cancels."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._began = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if now - self._told < _SECONDS and done < total:
            return
        self._told = now
        pace = done / max(now - self._began, 1e-9)
        self._bar.update_absolute(done, total)
        progress(self._node_id, f"{done}/{total} · {pace:.1f} pictures/s · {clock((total - done) / pace)} left")


def tagger_names() -> dict[str, str]:
    """Every model → the kind of folder that it is in."""
    return {name: kind for kind in reversed(_FOLDERS) for name in folder_paths.get_filename_list(kind)
            if name.lower().endswith(".onnx")}


def tagger_path(model: str) -> Path:
    """Where the model of this name is. Raises FileError, with what to fetch, where there is none."""
    kind = tagger_names().get(model)
    path = kind and folder_paths.get_full_path(kind, model)
    if path is None:
        place = Path(folder_paths.get_folder_paths("taggers")[0])
        what = "there is no tagger" if model == NO_TAGGER else f"'{show(model)}' is not there"
        raise FileError(
            f"{what}. Nothing is downloaded by itself: get a tagger, for example model.onnx and selected_tags.csv of "
            "SmilingWolf/wd-v1-4-convnextv2-tagger-v2 on Hugging Face, which tagged the model page's pictures, put "
            f"both into a folder of their own in {show(place, 300)}, and press R to refresh the list.")
    return Path(path)


def _typed(folder: str) -> Path:
    if not bare(folder):
        raise SettingsError("folder: empty. Give the folder that holds the pictures.")
    return typed_path(bare(folder))
