"""The graph from a folder of pictures to a character: tagged, counted, trained, drawn at strengths, recognised."""

from __future__ import annotations

import json
from pathlib import Path

from kit import training_graphs
from kit.drawing_graphs import CHECKPOINT, HEIGHT
from kit.graph_file import KINDS, PACK, Graph, Kind
from kit.workspace import library

_FOLDER = "my-characters"  # in ComfyUI's input folder
_TAGGER = "wd-v1-4-convnextv2-tagger-v2/model.onnx"
_STRENGTHS = "none, 0.6, 0.8, 1"


def build() -> dict:
    texts, options = library("characters"), library("taggers.options").TaggingOptions
    described = library("loha.training.settings.fields").describe(options)
    tagging = {name: field.default for name, field in described.items()}
    data, settings = training_graphs.widgets(training_graphs.RUNS[0])
    KINDS.update(_kinds(tagging))

    graph = Graph()
    graph.notes("circle", lambda language: {"folder": f"input/{_FOLDER}"}, 0, 320, HEIGHT)
    pictures = graph.column("1 Pictures · 画像 · 图片", "#b58b2a", 350, 310, HEIGHT)
    training = graph.column("2 Training · 学習 · 训练", "#c0629b", 690, 310, HEIGHT)
    drawing = graph.column("3 Drawing · 生成 · 生成", "#4f9a5f", 1030, 300, HEIGHT)
    judged = graph.column("4 How well? · 成果 · 效果", "#3f8fc4", 1360, 330, HEIGHT)

    tags = graph.node("ShinyMasTagImages", pictures.box(540), widgets={
        "folder": _FOLDER, "model": _TAGGER, **tagging, "folder_name": True})
    counts = graph.node(
        "ShinyMasTagStatistics", pictures.box(0), is_small=True, links={"folder": (tags, "pictures")},
        widgets={"folder": "", "told_apart_by": "folder", "top_n": 20, "names": "", "write_cast": _FOLDER,
                 "write_dataset": ""})
    trained_on = graph.node(
        "ShinyMasTrainingData", pictures.box(0), is_small=True, links={"folder": (tags, "pictures")},
        widgets={**data, "folder": "", "keep_tokens": 1, "shuffle": True})
    checkpoint = graph.node("CheckpointLoaderSimple", pictures.box(), models=[CHECKPOINT],
                            title="Checkpoint: an SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})

    chosen = graph.node("ShinyMasTrainingSettings", training.box(362),
                        widgets={**settings, "config": "", "output_name": _FOLDER})
    train = graph.node("ShinyMasTrainLoha", training.box(), links={
        "model": (checkpoint, "MODEL"), "clip": (checkpoint, "CLIP"), "vae": (checkpoint, "VAE"),
        "data": (trained_on, "data"), "settings": (chosen, "settings")})

    everyone = graph.node(
        "ShinyMasCharacterList", drawing.box(0), is_small=True, links={"cast_yaml": (counts, "yaml")},
        widgets={"unit": "every unit", "minimum_cards": 0, "model_version": "v2.1", "tag_set": "identity",
                 "max_tags": 20, "weight": 1.0, "before": texts.QUALITY, "after": "looking at viewer, upper body",
                 "exclude": "", "names": "", "strengths": _STRENGTHS, "label_script": "romaji", "run": "whole cast",
                 "index": 0, "control_after_generate": "increment", "cast": "shinymas", "lora_files": ""})
    apply = graph.node(
        "ShinyMasApplyLoha", drawing.box(0), is_small=True,
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": True, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (train, "loha"), "clip": (checkpoint, "CLIP"),
               "strength_model": (everyone, "strength"), "strength_clip": (everyone, "strength")})
    skip = graph.node("CLIPSetLastLayer", drawing.box(0), title="Clip skip 2", is_small=True,
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    positive = graph.node("CLIPTextEncode", drawing.box(0), title="Positive prompt", is_small=True,
                          widgets={"text": ""}, links={"clip": (skip, "CLIP"), "text": (everyone, "positive")})
    negative = graph.node("CLIPTextEncode", drawing.box(0), title="Negative prompt", is_small=True,
                          widgets={"text": texts.NEGATIVE}, links={"clip": (skip, "CLIP")})
    size = graph.node("EmptyLatentImage", drawing.box(0), is_small=True, title="512 × 768",
                      widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", drawing.box(0), is_small=True,
        widgets={"seed": 1, "control_after_generate": "fixed", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", drawing.box(0), is_small=True,
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})

    sheet = graph.node(
        "ShinyMasSheet", drawing.box(0), is_small=True,
        widgets={"columns": 0, "cell_size": 256, "title": "", "keep_in": "", "write_thumbnails": False},
        links={"images": (decode, "IMAGE"), "labels": (everyone, "label"), "characters": (everyone, "character"),
               "title": (everyone, "title")})
    graph.node("SaveImage", drawing.box(), widgets={"filename_prefix": _FOLDER}, links={"images": (sheet, "sheet")})

    graph.node("ShinyMasSaveLoha", judged.box(210), links={"loha": (train, "loha")},
               widgets={"name": f"{_FOLDER}-1", "precision": "fp16", "write_cast": False})
    report = graph.node(
        "ShinyMasRecognition", judged.box(410),
        widgets={"tagger": _TAGGER, "threshold": 0.35, "cast": "shinymas", "folder": "",
                 "identity_model": "none", "references": ""},
        links={"images": (decode, "IMAGE"), "characters": (everyone, "character"),
               "strengths": (everyone, "strength"), "cast_yaml": (counts, "yaml")})
    graph.node("PreviewImage", judged.box(), links={"images": (report, "heat_map")})
    return graph.document("5817a5c0-10fa-4000-8000-000000000005")


def _kinds(tagging: dict) -> dict[str, Kind]:
    return {
        "ShinyMasTagImages": Kind(outputs=[("info", "STRING"), ("pictures", "STRING")],
                                  widgets=["folder", "model", *tagging], origin=PACK),
        "ShinyMasTagStatistics": Kind(
            [("loha", "SHINYMAS_LOHA")],
            [("yaml", "STRING"), ("table", "STRING"), ("chart", "IMAGE"), ("report", "STRING"), ("balance", "STRING")],
            ["folder", "told_apart_by", "top_n", "names", "write_cast", "write_dataset"], origin=PACK),
        "ShinyMasRecognition": Kind(
            [("images", "IMAGE"), ("characters", "STRING"), ("strengths", "FLOAT"), ("cast_yaml", "STRING")],
            [("table", "STRING"), ("heat_map", "IMAGE"), ("csv", "STRING")],
            ["tagger", "threshold", "cast", "folder", "identity_model", "references"], origin=PACK),
    }


def write(folder: Path) -> None:
    text = json.dumps(build(), indent=2, ensure_ascii=False)
    (folder / "pictures-to-character.json").write_text(text + "\n", encoding="utf-8", newline="\n")
