"""The training graphs: the model page's two runs, from pictures to a picture.

Widgets and their values are the libraries' own fields, so that a graph cannot fall behind them.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

from kit.drawing_graphs import CHECKPOINT, KINDS, PACK, Graph, Kind

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One of the page's runs: what differs from the defaults, which are v2.0's."""

    version: str
    resolution: int
    batch_size: int
    config: str
    goes_on_from: str | None
    about: str


# The page's own configuration of v2.0, as printed there.
PAGE_CONFIG = """\
[model_arguments]
v2 = false
v_parameterization = false
pretrained_model_name_or_path = "animefull-final-pruned.ckpt"

[additional_network_arguments]
no_metadata = false
network_module = "lycoris.kohya"
network_dim = 16
network_alpha = 1
network_args = [ "conv_dim=0", "algo=loha",]
network_train_unet_only = false
network_train_text_encoder_only = false
cache_latents = false

[optimizer_arguments]
optimizer_type = "AdamW8bit"
learning_rate = 0.001
max_grad_norm = 1.0
lr_scheduler = "custom"

[dataset_arguments]
debug_dataset = false
# batch size: 4 x 2
# resolution: 640

[training_arguments]
output_name = "shinymas-v2.0"
save_precision = "fp16"
save_every_n_epochs = 1
max_token_length = 225
mem_eff_attn = false
xformers = true
max_train_epochs = 31
max_data_loader_n_workers = 0
persistent_data_loader_workers = false
gradient_checkpointing = false
gradient_accumulation_steps = 1
mixed_precision = "fp16"
clip_skip = 2
log_prefix = "shinymas-v2.0"
lowram = true

[sample_prompt_arguments]

[saving_arguments]
save_model_as = "safetensors"
"""

RUNS = (
    Run("v2.0", 640, 4, PAGE_CONFIG, None,
        "640 px, 31 epochs, the page's configuration as it is printed there. The page's run went on from another "
        "LoHa by accident; connect a Load LoHa to `resume` to do so too."),
    Run("v2.1", 768, 2, "", "shinymas-v2.0-000028.safetensors",
        "v2.0 tuned further: 768 px, batch size and learning rate halved. `Load LoHa` holds what it goes on from."),
)


def library(name: str):
    """A module of the pack, loaded under a package name of its own."""
    if "shinymas_loha" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "shinymas_loha", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules["shinymas_loha"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["shinymas_loha"])
    return importlib.import_module(f"shinymas_loha.{name}")


def build(run: Run) -> dict:
    """The graph of one run."""
    options, settings = library("loha.training.data"), library("loha.training.settings").TrainingSettings()
    if not run.config:
        settings = replace(settings, learning_rate=settings.learning_rate / 2, output_name=f"shinymas-{run.version}")
    left_out = ("base_model", "vae", "init_from")
    setting_values = {"config": run.config, **{
        item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in left_out}}
    data = options.DataOptions(resolution=run.resolution, batch_size=run.batch_size)
    captions = options.CaptionOptions()
    data_values = {
        "folder": "shinymas", **{item.name: getattr(data, item.name) for item in fields(data) if item.metadata},
        **{item.name: getattr(captions, item.name) for item in fields(captions)}, "flip": False, "dataset": ""}
    KINDS.update(_kinds(data_values, setting_values))

    graph = Graph()
    graph.group("Model", "#b58b2a", (400, 0, 400, 420))
    graph.group("Pictures and settings", "#c0629b", (820, 0, 880, 1560))
    graph.group("Training", "#4f9a5f", (1720, 0, 480, 1560))
    graph.group("A first picture", "#3f8fc4", (2220, 0, 480, 1560))
    graph.node("MarkdownNote", (0, 30, 380, 560), title="Start here", note=True, widgets={"text": _note(run)})
    checkpoint = graph.node("CheckpointLoaderSimple", (420, 80, 360, 100), models=[CHECKPOINT],
                            title="Checkpoint: any SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})
    links = {"model": (checkpoint, "MODEL"), "clip": (checkpoint, "CLIP"), "vae": (checkpoint, "VAE")}
    if run.goes_on_from:
        start = graph.node("ShinyMasLoadLoha", (420, 230, 360, 160), title="Goes on from",
                           widgets={"lora_name": run.goes_on_from})
        links["resume"] = (start, "loha")
    pictures = graph.node("ShinyMasTrainingData", (840, 80, 400, 1440), widgets=data_values)
    chosen = graph.node("ShinyMasTrainingSettings", (1260, 80, 420, 1440), widgets=setting_values)
    links |= {"data": (pictures, "data"), "settings": (chosen, "settings")}
    train = graph.node("ShinyMasTrainLoha", (1740, 80, 440, 460), links=links)
    graph.node("ShinyMasSaveLoha", (1740, 600, 440, 180), links={"loha": (train, "loha")},
               widgets={"name": f"my-shinymas-{run.version}", "precision": "fp16", "write_cast": False})
    graph.node("PreviewImage", (1740, 840, 440, 320), title="Loss", links={"images": (train, "loss_curve")})
    graph.node("PreviewAny", (1740, 1210, 440, 320), title="Report", links={"source": (train, "report")})

    apply = graph.node(
        "ShinyMasApplyLoha", (2240, 80, 440, 260),
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": True, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (train, "loha"), "clip": (checkpoint, "CLIP")})
    skip = graph.node("CLIPSetLastLayer", (2240, 390, 440, 60), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    positive, negative = (
        graph.node("CLIPTextEncode", (2240, y, 440, 100), title=title, widgets={"text": text},
                   links={"clip": (skip, "CLIP")})
        for title, text, y in (
            ("Positive prompt", "masterpiece, best quality, Kazano Hiori, 1girl, solo, smile", 500),
            ("Negative prompt", "nsfw, lowres, bad anatomy, bad hands, text, worst quality, low quality", 650)))
    size = graph.node("EmptyLatentImage", (2240, 800, 440, 110), widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", (2240, 960, 440, 270),
        widgets={"seed": 1, "control_after_generate": "fixed", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", (2240, 1270, 440, 50), links={"samples": (sampler, "LATENT"),
                                                                   "vae": (checkpoint, "VAE")})
    graph.node("SaveImage", (2240, 1360, 440, 180), widgets={"filename_prefix": f"train-shinymas-{run.version}"},
               links={"images": (decode, "IMAGE")})
    return graph.document(f"5817a5c0-10fa-4000-8000-0000000001{run.version[1]}{run.version[3]}")


def _kinds(data: dict, settings: dict) -> dict[str, Kind]:
    return {
        "ShinyMasTrainingData": Kind(
            outputs=[("data", "SHINYMAS_DATA"), ("info", "STRING")], widgets=list(data), origin=PACK),
        "ShinyMasTrainingSettings": Kind(
            outputs=[("settings", "SHINYMAS_SETTINGS"), ("info", "STRING")], widgets=list(settings), origin=PACK),
        "ShinyMasTrainLoha": Kind(
            [("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE"), ("data", "SHINYMAS_DATA"),
             ("settings", "SHINYMAS_SETTINGS"), ("resume", "SHINYMAS_LOHA")],
            [("loha", "SHINYMAS_LOHA"), ("loss_curve", "IMAGE"), ("report", "STRING")], origin=PACK),
        "ShinyMasSaveLoha": Kind(
            [("loha", "SHINYMAS_LOHA")], [("path", "STRING")], ["name", "precision", "write_cast"], origin=PACK),
        "PreviewImage": Kind([("images", "IMAGE")]),
        "CLIPTextEncode": Kind([("clip", "CLIP")], [("CONDITIONING", "CONDITIONING")], ["text"]),
    }


def _note(run: Run) -> str:
    return f"""## Train ShinyMas {run.version}

{run.about}

1. **Checkpoint**: the SD 1.5 anime model to train for.

2. **Pictures** into `ComfyUI/input/shinymas`, or the path of your folder into `folder`. A `.txt` of the same name \
beside each picture holds its caption; without one the name of its folder is the caption.

3. **Run.** Loss and learning rate show in Train LoHa. Files appear in `models/loras/shinymas-{run.version}` after \
every epoch.

4. **Cancel** keeps what there is. To go on, load the newest file of that folder with Load LoHa and connect it to \
`resume`: not a step is lost.

The page trained with two GPUs at {run.batch_size} pictures each; here one device trains with {run.batch_size}. \
`gradient_accumulation_steps` 2 gives its batch back, `train.py` trains on several GPUs."""


def write(folder: Path) -> None:
    for run in RUNS:
        text = json.dumps(build(run), indent=2, ensure_ascii=False)
        path = folder / f"train-shinymas-{run.version}.json"
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
