"""Train LoHa and what it takes: the pictures and the settings.

ComfyUI's start pays for the widgets alone: what reads, indexes and trains is imported when a node runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..loha import Loha
from ..loha.errors import LohaError
from ..loha.training.settings.fields import describe
from ..loha.training.settings.hyper_parameters import KOHYA, MODEL_CARD, TrainingSettings
from ..loha.training.settings.pictures import CaptionOptions, DataOptions
from ..patcher import loras
from ..patcher.comfyui import folded, schema
from .load import LohaType
from .widgets import inputs_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..loha.training.data import TrainingData

DataType = io.Custom("SHINYMAS_DATA")
SettingsType = io.Custom("SHINYMAS_SETTINGS")
# The graph says these: the checkpoint, the VAE, and the LoHa to go on from are connected; logs go to one place.
_CONNECTED = ("base_model", "vae", "init_from", "logging_dir")


def _required(node: type[io.ComfyNode]) -> list[str]:
    """The inputs that every prompt has."""
    return [item.id for item in node.define_schema().inputs if not item.optional]


def _preview(data: TrainingData) -> Tensor:
    """A sheet of some of the pictures, as an IMAGE."""
    import torch

    from ..characters.fonts import font
    from ..loha.training.data.preview import draw_previews, previews
    from ..patcher.trainer.tokens import tokenizer

    return torch.from_numpy(draw_previews(previews(data, tokenizer()), len(data.index), font))[None]


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
                *inputs_of((field for field in describe(DataOptions).values() if not field.since),
                           first=["resolution", "batch_size"]),
                *inputs_of(field for field in describe(CaptionOptions).values() if not field.since),
                folded(io.Boolean.Input("flip", default=False, tooltip="Mirror each picture half of the times.")),
                io.String.Input("dataset", default="", multiline=True, tooltip=(
                    "A dataset TOML of kohya's scripts: its path, or its text. A path that is not absolute, its own "
                    "and those in it, lies in ComfyUI's input folder. Not empty, it takes the place of all the other "
                    "widgets but defaults.")),
                folded(io.Combo.Input("defaults", options=[MODEL_CARD, KOHYA], default=MODEL_CARD, optional=True,
                                      tooltip=("Whose values count where a dataset TOML names none."))),
                folded(io.Float.Input(
                    "validation_split", default=0.0, min=0.0, max=1.0, step=0.01, optional=True, tooltip=(
                        "Share of the pictures that is set apart: the loss on them tells when to stop, and they are "
                        "never trained on. 0 is off."))),
                folded(io.String.Input("validation_folder", default="", optional=True, tooltip=(
                    "A folder whose pictures are all for validation, and none of them trained on. A path that is not "
                    "absolute lies in ComfyUI's input folder. Empty: none."))),
                *inputs_of(field for field in describe(DataOptions).values() if field.since and field.widget),
                *inputs_of(field for field in describe(CaptionOptions).values() if field.since),
            ],
            outputs=[
                DataType.Output("data", display_name="data", tooltip="The pictures, for Train LoHa."),
                io.String.Output("info", display_name="info",
                                 tooltip="Counts, buckets, and every picture that was left out with the reason."),
                io.Image.Output("preview", display_name="preview", tooltip=(
                    "Some of the pictures as they are trained: cut to their bucket, with the caption after shuffling "
                    "and dropping, its tokens, and what of it is cut off.")),
            ],
        )

    @classmethod
    def validate_inputs(cls, **values) -> bool:
        from .values import data_options, refuse_early

        refuse_early(data_options, "dataset", values, _required(cls), DataOptions, CaptionOptions)
        return True

    @classmethod
    def fingerprint_inputs(cls, **values) -> object:
        """Changed pictures or captions are looked through anew."""
        from ..loha.training.data import folders_digest
        from .typed_paths import reach
        from .values import data_options

        # What is connected is not known yet: the folder then may be any.
        if values.get("folder") is None or values.get("dataset") is None:
            return float("nan")
        try:
            return folders_digest(data_options(values)[0], reach())
        except LohaError as error:
            return str(error)

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        from ..loha.training.data import describe_data, index_pictures, training_data
        from .typed_paths import reach
        from .values import data_options

        options, notes = data_options(values)
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        ledgers = Path(folder_paths.get_user_directory()) / "shinymas" / "pictures"
        data = training_data(index_pictures(options, progress, ledgers=ledgers, may_read=reach()), options)
        info = "\n".join([describe_data(data), *notes])
        # Notes stand below the text too: of a long one nobody reads the middle.
        noted = [line for line in info.splitlines() if line.startswith("note: ")]
        return io.NodeOutput(data, info, _preview(data), ui={"text": [info], "notes": noted})


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
                    "A training TOML of kohya's scripts, such as the model page's, or a file of a program around them: "
                    "its path, or its text. A path that is not absolute lies in ComfyUI's input folder. Not empty, it "
                    "takes the place of everything below but defaults.")),
                *inputs_of((field for name, field in describe(TrainingSettings).items() if name not in _CONNECTED),
                           multiline=["sample_prompts"],
                           first=["network_rank", "learning_rate", "max_train_epochs", "output_name"]),
            ],
            outputs=[
                SettingsType.Output("settings", display_name="settings", tooltip="For Train LoHa."),
                io.String.Output("info", display_name="info", tooltip=(
                    "What differs from the page's run; where the values of a TOML came from, and its keys that change "
                    "nothing or are not known.")),
            ],
        )

    @classmethod
    def validate_inputs(cls, **values) -> bool:
        from .values import refuse_early, training_settings

        refuse_early(training_settings, "config", values, _required(cls), TrainingSettings)
        return True

    @classmethod
    def fingerprint_inputs(cls, **values) -> object:
        """A TOML file that was edited is read anew."""
        from .values import training_settings

        try:
            return repr(training_settings(values))
        except LohaError as error:
            return str(error)

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        from .values import differences, training_settings

        settings, notes = training_settings(values)
        info = "\n".join([*notes, *differences(settings)])
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
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
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
                LohaType.Output("best", display_name="best", tooltip=(
                    "The LoHa that validated best, where pictures are set apart for validation; else the same as "
                    "loha.")),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, data: TrainingData, settings: TrainingSettings,
                resume: Loha | None = None) -> io.NodeOutput:
        from ..loha.training.run.chart import loss_chart
        from ..patcher.trainer.base import base_of_graph
        from ..patcher.trainer.display import Display, RunView
        from ..patcher.trainer.run import memory_advice, prepare
        from ..patcher.trainer.samples import Samples
        from .values import with_known_start

        began = time.monotonic()
        settings = with_known_start(settings)
        view, run = RunView(cls.hidden.unique_id), None
        user = Path(folder_paths.get_user_directory()) / "shinymas"
        try:
            with memory_advice(view.advise):
                base, notes = base_of_graph(cls.hidden.prompt, cls.hidden.unique_id, user / "hashes.json", view.say)
                run = prepare(model, clip, vae, data, settings, start=resume, output=loras.folder(),
                              cache=user / "latents", base=base, notes=notes,
                              logs=lambda run: Path(folder_paths.get_output_directory()) / "shinymas" / run / "logs")
                samples = Samples(model, clip, vae, run, data.options.resolution, settings)
                loha = run.go(Display(view, cls.hidden.unique_id, run, samples).watcher())
        except BaseException:  # a cancelled run is an Exception in older cores, and none in newer ones
            view.end(run.stopped_report() if run else "stopped: before the first step\nkept: nothing")
            raise
        report = run.report(loha, time.monotonic() - began)
        validation = [(one.step, one.loss) for one in run.training.validator.found]
        chart = loss_chart(run.training.losses, run.training.learning_rates(), validation)
        return io.NodeOutput(loha, chart, report, run.best(loha), ui=view.output(report))
