"""The training graphs: the model page's two runs, from pictures to a picture.

Widgets and their values are the libraries' own fields, so that a graph cannot fall behind them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from kit.drawing_graphs import CHECKPOINT, HEIGHT
from kit.graph_file import KINDS, PACK, Graph, Kind
from kit.workspace import library

GOES_ON_FROM = "shinymas-v2.0-000028.safetensors"


@dataclass(frozen=True)
class Run:
    """One of the page's runs: what differs from the defaults, which are v2.0's."""

    version: str
    resolution: int
    batch_size: int
    config: str
    is_tuning: bool  # of the file that Load LoHa names
    about: Mapping[str, str]


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
    Run("v2.0", 640, 4, PAGE_CONFIG, is_tuning=False, about={
        "en": "640 px, 31 epochs; **config** is the page's, as printed there.",
        "ja": "640 px、31エポック。**設定ファイル**（config）はモデルページに載っているものです。",
        "zh": "640 px，31 轮。**配置**（config）即模型页面上的配置。"}),
    Run("v2.1", 768, 2, "", is_tuning=True, about={
        "en": "v2.0 tuned further: 768 px, batch size and learning rate halved.",
        "ja": "v2.0の追加学習：768 px、バッチサイズと学習率は半分。",
        "zh": "在 v2.0 上继续训练：768 px，批量大小和学习率减半。"}),
)


def widgets(run: Run) -> tuple[dict, dict]:
    """The widgets of LoHa Training Data and LoHa Training Settings for a run; adds their kinds to `KINDS`."""
    options, settings = library("loha.training.data"), library("loha.training.settings").TrainingSettings()
    if not run.config:
        settings = replace(settings, learning_rate=settings.learning_rate / 2, output_name=f"shinymas-{run.version}")
    left_out = ("base_model", "vae", "init_from", "logging_dir")
    setting_values = {"config": run.config, **{
        item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in left_out}}
    data = options.DataOptions(resolution=run.resolution, batch_size=run.batch_size)
    captions = options.CaptionOptions()
    data_values = {
        "folder": "shinymas", **_widgets(data, later=False), **_widgets(captions, later=False), "flip": False,
        "dataset": "", "defaults": settings.defaults, "validation_split": 0.0, "validation_folder": "",
        **_widgets(data, later=True), **_widgets(captions, later=True)}
    KINDS.update(_kinds(data_values, setting_values))
    return data_values, setting_values


def build(run: Run) -> dict:
    """The graph of one run."""
    data_values, setting_values = widgets(run)

    graph = Graph()
    graph.notes("train", lambda language: _words(run, language), 0, 320, HEIGHT)
    model = graph.column("1 Pictures · 画像 · 图片", "#b58b2a", 350, 310, HEIGHT)
    how = graph.column("2 Settings · 設定 · 设置", "#c0629b", 690, 310, HEIGHT)
    training = graph.column("3 Training · 学習 · 训练", "#4f9a5f", 1030, 330, HEIGHT)
    picture = graph.column("4 Try it · 試し描き · 试画", "#3f8fc4", 1390, 290, HEIGHT)

    checkpoint = graph.node("CheckpointLoaderSimple", model.box(165), models=[CHECKPOINT],
                            title="Checkpoint: an SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})
    start = graph.node(
        "ShinyMasLoadLoha", model.box(190), is_off=not run.is_tuning, widgets={"lora_name": GOES_ON_FROM},
        title="Goes on from · 再開 · 继续" if run.is_tuning else "To go on: switch on · 再開 · 继续 (Ctrl+B)")
    pictures = graph.node("ShinyMasTrainingData", model.box(), widgets=data_values)
    chosen = graph.node("ShinyMasTrainingSettings", how.box(), widgets=setting_values)
    train = graph.node("ShinyMasTrainLoha", training.box(510), links={
        "model": (checkpoint, "MODEL"), "clip": (checkpoint, "CLIP"), "vae": (checkpoint, "VAE"),
        "data": (pictures, "data"), "settings": (chosen, "settings"), "resume": (start, "loha")})
    graph.node("ShinyMasSaveLoha", training.box(), links={"loha": (train, "loha")},
               widgets={"name": f"my-shinymas-{run.version}", "precision": "fp16", "write_cast": False})

    apply = graph.node(
        "ShinyMasApplyLoha", picture.box(0), is_small=True,
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": True, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (train, "loha"), "clip": (checkpoint, "CLIP")})
    skip = graph.node("CLIPSetLastLayer", picture.box(0), title="Clip skip 2", is_small=True,
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    positive, negative = (
        graph.node("CLIPTextEncode", picture.box(100), title=title, widgets={"text": text},
                   links={"clip": (skip, "CLIP")})
        for title, text in (
            ("Positive prompt", "masterpiece, best quality, Kazano Hiori, 1girl, solo, smile"),
            ("Negative prompt", "nsfw, lowres, bad anatomy, bad hands, text, worst quality, low quality")))
    size = graph.node("EmptyLatentImage", picture.box(0), is_small=True, title="512 × 768",
                      widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", picture.box(0), is_small=True,
        widgets={"seed": 1, "control_after_generate": "fixed", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", picture.box(0), is_small=True, links={
        "samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    graph.node("SaveImage", picture.box(), widgets={"filename_prefix": f"train-shinymas-{run.version}"},
               links={"images": (decode, "IMAGE")})
    return graph.document(f"5817a5c0-10fa-4000-8000-0000000001{run.version[1]}{run.version[3]}")


def _widgets(options: object, *, later: bool) -> dict[str, object]:
    """Those of version 0.1.0, or those that came later, which stand below all others."""
    return {item.name: getattr(options, item.name) for item in fields(options)
            if item.metadata and item.metadata["widget"] and bool(item.metadata["since"]) == later}


def _kinds(data: dict, settings: dict) -> dict[str, Kind]:
    return {
        "ShinyMasTrainingData": Kind(
            outputs=[("data", "SHINYMAS_DATA"), ("info", "STRING"), ("preview", "IMAGE")], widgets=list(data),
            origin=PACK),
        "ShinyMasTrainingSettings": Kind(
            outputs=[("settings", "SHINYMAS_SETTINGS"), ("info", "STRING")], widgets=list(settings), origin=PACK),
        "ShinyMasTrainLoha": Kind(
            [("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE"), ("data", "SHINYMAS_DATA"),
             ("settings", "SHINYMAS_SETTINGS"), ("resume", "SHINYMAS_LOHA")],
            [("loha", "SHINYMAS_LOHA"), ("loss_curve", "IMAGE"), ("report", "STRING"), ("best", "SHINYMAS_LOHA")],
            origin=PACK),
        "ShinyMasSaveLoha": Kind(
            [("loha", "SHINYMAS_LOHA")], [("path", "STRING")], ["name", "precision", "write_cast"], origin=PACK),
    }


def _words(run: Run, language: str) -> dict[str, str]:
    return {"about": run.about[language], "folder": f"models/loras/shinymas-{run.version}"}


def write(folder: Path) -> None:
    for run in RUNS:
        text = json.dumps(build(run), indent=2, ensure_ascii=False)
        path = folder / f"train-shinymas-{run.version}.json"
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
