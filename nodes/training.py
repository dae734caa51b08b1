"""Train LoHa and what it takes: the pictures and the settings."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..loha import Loha
from ..loha.errors import LohaError, SettingsError, show
from ..loha.training import data as pictures
from ..loha.training.chart import loss_chart
from ..loha.training.data import CaptionOptions, DataOptions, FolderOptions, TrainingData
from ..loha.training.settings import TrainingSettings
from ..loha.training.settings_dataset import read_dataset
from ..loha.training.settings_fields import describe
from ..loha.training.settings_toml import read_settings
from .compat import schema
from .load import LohaType
from .training_display import Display
from .training_run import prepare
from .training_samples import Samples
from .widgets import inputs_of

DataType = io.Custom("SHINYMAS_DATA")
SettingsType = io.Custom("SHINYMAS_SETTINGS")
_DATA, _CAPTIONS = describe(DataOptions), describe(CaptionOptions)
# The graph says these: the checkpoint, the VAE, and the LoHa to go on from are connected.
_SETTINGS = {name: field for name, field in describe(TrainingSettings).items()
             if name not in ("base_model", "vae", "init_from")}


class LohaTrainingData(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasTrainingData",
            display_name="LoHa Training Data",
            category="ShinyMas/Training",
            description="Looks through a folder of pictures and captions and sorts the pictures into buckets.",
            search_aliases=["dataset", "captions", "buckets", "shinymas"],
            inputs=[
                io.String.Input("folder", default="", tooltip=(
                    "The folder with the pictures, or with kohya's folders N_name in it. A path that is not absolute "
                    "lies in ComfyUI's input folder.")),
                *inputs_of(_DATA.values()),
                *inputs_of(_CAPTIONS.values()),
                io.Boolean.Input("flip", default=False, tooltip="Mirror each picture half of the times."),
                io.String.Input("dataset", default="", multiline=True, tooltip=(
                    "A dataset TOML of kohya's scripts: its path, or its text. Not empty, it takes the place of "
                    "everything above.")),
            ],
            outputs=[
                DataType.Output("data", display_name="data", tooltip="The pictures, for Train LoHa."),
                io.String.Output("info", display_name="info",
                                 tooltip="Counts, buckets, and every picture that was left out with the reason."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **values) -> object:
        """Changed pictures or captions are looked through anew."""
        try:
            return pictures.fingerprint(_data_options(values)[0])
        except LohaError as error:
            return str(error)

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        options, notes = _data_options(values)
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        data = TrainingData(pictures.index_pictures(options, progress), options)
        info = "\n".join([pictures.describe_data(data), *notes])
        return io.NodeOutput(data, info, ui={"text": [info]})


class LohaTrainingSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasTrainingSettings",
            display_name="LoHa Training Settings",
            category="ShinyMas/Training",
            description="How to train. The defaults are the model page's v2.0 run; or drop in its own TOML.",
            search_aliases=["hyper-parameters", "kohya", "toml", "learning rate", "shinymas"],
            inputs=[
                io.String.Input("config", default="", multiline=True, tooltip=(
                    "A training TOML of kohya's scripts, such as the model page's: its path, or its text. Not empty, "
                    "it takes the place of everything below.")),
                *inputs_of(_SETTINGS.values(), multiline=["sample_prompts"]),
            ],
            outputs=[
                SettingsType.Output("settings", display_name="settings", tooltip="For Train LoHa."),
                io.String.Output("info", display_name="info", tooltip=(
                    "What differs from the page's run, and the keys of a TOML that change nothing or are not known.")),
            ],
        )

    @classmethod
    def validate_inputs(cls, **values) -> bool | str:
        try:
            _settings(values)
        except (LohaError, TypeError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **values) -> object:
        """A TOML file that was edited is read anew."""
        try:
            return repr(_settings(values))
        except LohaError as error:
            return str(error)

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        settings, lines = _settings(values)
        info = "\n".join([*lines, *_differences(settings)])
        return io.NodeOutput(settings, info, ui={"text": [info]})


class TrainLoha(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ShinyMasTrainLoha",
            display_name="Train LoHa",
            category="ShinyMas/Training",
            description="Trains a LoHa on the U-Net and the text encoder. Cancel keeps what there is; load the kept "
                        "file and connect it to `resume` to go on without losing a step.",
            search_aliases=["training", "fine-tune", "lycoris", "kohya", "shinymas"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The U-Net to train for. It is not changed."),
                io.Clip.Input("clip", tooltip="The text encoder. It is not changed."),
                io.Vae.Input("vae", tooltip="Makes latents of the pictures."),
                DataType.Input("data", tooltip="From LoHa Training Data."),
                SettingsType.Input("settings", tooltip="From LoHa Training Settings."),
                LohaType.Input("resume", optional=True, tooltip=(
                    "A LoHa to go on from. One that an interrupted run left goes on exactly where it was, if nothing "
                    "else changed; any other gives its weights.")),
            ],
            outputs=[
                LohaType.Output("loha", display_name="loha", tooltip="The trained LoHa, for Apply LoHa or Save LoHa."),
                io.Image.Output("loss_curve", display_name="loss_curve", tooltip="The loss of every step."),
                io.String.Output("report", display_name="report",
                                 tooltip="What was trained, how far, where its files are; one fact a line."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, data: TrainingData, settings: TrainingSettings,
                resume: Loha | None = None) -> io.NodeOutput:
        began = time.monotonic()
        settings = _with_known_start(settings)
        run = prepare(
            model, clip, vae, data, settings, start=resume,
            output=Path(folder_paths.get_folder_paths("loras")[0]),
            cache=Path(folder_paths.get_user_directory()) / "shinymas" / "latents")
        samples = Samples(model, clip, vae, run, data.options.resolution, settings)
        display = Display(cls.hidden.unique_id, run.training.total_steps, samples)
        loha = run.go(display.watcher())
        report = run.report(loha, time.monotonic() - began)
        chart = loss_chart(run.training.losses, run.training.learning_rates())
        return io.NodeOutput(loha, chart, report, ui={"text": [report]})


def _data_options(values: dict) -> tuple[DataOptions, list[str]]:
    """Options out of widgets or the TOML, and notes on it."""
    if values["dataset"].strip():
        found = read_dataset(values["dataset"])
        return found.options, [f"unknown: {show(key)}" for key in found.unknown]
    folder = values["folder"].strip()
    if not folder:
        raise SettingsError("folder: empty. Give the folder that holds the pictures.")
    captions = CaptionOptions(**{name: values[name] for name in _CAPTIONS})
    where = Path(folder_paths.get_input_directory()) / folder  # an absolute path stays as it is
    options = DataOptions((FolderOptions(where, captions=captions, flip=values["flip"]),),
                          **{name: values[name] for name in _DATA})
    return options, []


def _settings(values: dict) -> tuple[TrainingSettings, list[str]]:
    """Settings out of widgets or the TOML, and notes on it."""
    if not (values.get("config") or "").strip():
        return TrainingSettings(**{name: values[name] for name in _SETTINGS}), []
    found = read_settings(values["config"])
    elsewhere = [f"pictures: {show(key)} is for LoHa Training Data, not read here" for key in found.data]
    return found.settings, [*found.lines(), *elsewhere]


def _differences(settings: TrainingSettings) -> list[str]:
    page = TrainingSettings()
    return [f"{field.name}: {show(getattr(settings, field.name), 200)}" for field in dataclasses.fields(settings)
            if getattr(settings, field.name) != getattr(page, field.name)] or ["as the model page's v2.0 run"]


def _with_known_start(settings: TrainingSettings) -> TrainingSettings:
    """A TOML's network_weights, looked for in the loras folder: a graph from elsewhere opens no other file."""
    if not settings.init_from:
        return settings
    name = settings.init_from.replace("\\", "/").rpartition("/")[2]
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise SettingsError(f"network_weights: {show(name)} is not in the models/loras folder. Put it there, or load "
                            "it with Load LoHa and connect it to `resume`.")
    return dataclasses.replace(settings, init_from=path)
