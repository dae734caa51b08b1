"""The graph of ShinyMas Sheet: the whole cast on one labelled picture, with v2.1."""

from __future__ import annotations

import json
from pathlib import Path

from kit.drawing_graphs import HEIGHT, VERSIONS, model_nodes, words
from kit.graph_file import Column, Graph
from kit.workspace import library


def build() -> dict:
    """Checkpoint and LoHa, the list of the cast, one sampler with the same noise for everyone, the sheet."""
    graph = Graph()
    graph.notes("sheet", lambda language: words(VERSIONS[-1], language), 0, 320, HEIGHT)
    ids, picture = nodes(graph)
    graph.node("SaveImage", picture.box(), widgets={"filename_prefix": "shinymas-sheet"},
               links={"images": (ids["sheet"], "sheet")})
    return graph.document("5817a5c0-10fa-4000-8000-000000000004")


def nodes(graph: Graph) -> tuple[dict[str, int], Column]:
    """Everything up to the sheet: the ids of the nodes that a person sets, and where the next one goes."""
    version, texts = VERSIONS[-1], library("characters")
    model = graph.column("1 Model · モデル · 模型", "#b58b2a", 350, 310, HEIGHT)
    cast = graph.column("2 Cast · キャスト · 角色表", "#c0629b", 690, 340, HEIGHT)
    sampling = graph.column("3 Sampling · 生成 · 采样", "#4f9a5f", 1060, 280, HEIGHT)
    picture = graph.column("4 Sheet · シート · 拼图", "#3f8fc4", 1370, 300, HEIGHT)

    everyone = graph.node(
        "ShinyMasCharacterList", cast.box(),
        widgets={"unit": "every unit", "minimum_cards": 0, "model_version": version.name, "tag_set": "identity",
                 "max_tags": 20, "weight": 1.0, "before": texts.QUALITY, "after": "looking at viewer, upper body",
                 "exclude": "", "names": "", "strengths": "", "label_script": "romaji", "run": "whole cast",
                 "index": 0, "control_after_generate": "increment", "cast": "shinymas", "lora_files": ""})
    checkpoint, loha, apply = model_nodes(graph, model, version, strength=(everyone, "strength"))
    skip = graph.node("CLIPSetLastLayer", sampling.box(62), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    positive = graph.node("CLIPTextEncode", sampling.box(88), title="Positive prompt", widgets={"text": ""},
                          links={"clip": (skip, "CLIP"), "text": (everyone, "positive")})
    negative = graph.node("CLIPTextEncode", sampling.box(88), title="Negative prompt",
                          widgets={"text": texts.NEGATIVE}, links={"clip": (skip, "CLIP")})
    size = graph.node("EmptyLatentImage", sampling.box(118), widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", sampling.box(),
        widgets={"seed": 1, "control_after_generate": "fixed", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", picture.box(56),
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    sheet = graph.node(
        "ShinyMasSheet", picture.box(320),
        widgets={"columns": 0, "cell_size": 256, "title": "", "keep_in": "", "write_thumbnails": False},
        links={"images": (decode, "IMAGE"), "labels": (everyone, "label"), "characters": (everyone, "character"),
               "title": (everyone, "title")})
    return {"checkpoint": checkpoint, "loha": loha, "apply": apply, "cast": everyone, "size": size,
            "sampler": sampler, "sheet": sheet}, picture


def write(folder: Path) -> None:
    text = json.dumps(build(), indent=2, ensure_ascii=False)
    (folder / "shinymas-sheet.json").write_text(text + "\n", encoding="utf-8", newline="\n")
