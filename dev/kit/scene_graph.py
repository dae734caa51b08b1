"""The graph of ShinyMas Scene: two people in one picture, with v2.1."""

from __future__ import annotations

import json
from pathlib import Path

from kit.drawing_graphs import HEIGHT, VERSIONS, model_nodes, words
from kit.graph_file import Column, Graph
from kit.workspace import library

_PEOPLE = "Kazano Hiori | left | school uniform\nSakuragi Mano | right | smile, sweater"
_WIDTH, _HEIGHT = 768, 512  # of the picture


def build() -> dict:
    """Checkpoint and LoHa, the people, sampler, picture and plan."""
    graph = Graph()
    graph.notes("scene", lambda language: words(VERSIONS[-1], language), 0, 320, HEIGHT)
    ids, picture = nodes(graph)
    graph.node("SaveImage", picture.box(360), widgets={"filename_prefix": "shinymas-scene"},
               links={"images": (ids["decode"], "IMAGE")})
    graph.node("PreviewImage", picture.box(), title="Who stands where · 配置 · 布局",
               links={"images": (ids["scene"], "layout")})
    return graph.document("5817a5c0-10fa-4000-8000-000000000003")


def nodes(graph: Graph) -> tuple[dict[str, int], Column]:
    """Everything up to the decoded picture: the ids of the nodes that a person sets, and where the next one goes."""
    version = VERSIONS[-1]
    model = graph.column("1 Model · モデル · 模型", "#b58b2a", 350, 310, HEIGHT)
    people = graph.column("2 People · 人物 · 人物", "#c0629b", 690, 340, HEIGHT)
    sampling = graph.column("3 Sampling · 生成 · 采样", "#4f9a5f", 1060, 280, HEIGHT)
    picture = graph.column("4 Picture · 画像 · 图片", "#3f8fc4", 1370, 300, HEIGHT)

    checkpoint, loha, apply = model_nodes(graph, model, version)
    skip = graph.node("CLIPSetLastLayer", sampling.box(62), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    size = graph.node("EmptyLatentImage", sampling.box(118),
                      widgets={"width": _WIDTH, "height": _HEIGHT, "batch_size": 1})
    scene = graph.node(
        "ShinyMasScene", people.box(),
        widgets={"people": _PEOPLE, "shared": "masterpiece, best quality, outdoors, blue sky",
                 "negative": library("characters").NEGATIVE, "model_version": version.name, "tag_set": "identity",
                 "method": "attention couple", "feather": 8.0, "width": _WIDTH, "height": _HEIGHT, "cast": "shinymas"},
        links={"model": (apply, "model"), "clip": (skip, "CLIP"), "loha": (loha, "loha"), "latent": (size, "LATENT")})
    sampler = graph.node(
        "KSampler", sampling.box(),
        widgets={"seed": 1, "control_after_generate": "randomize", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (scene, "model"), "positive": (scene, "positive"), "negative": (scene, "negative"),
               "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", picture.box(56),
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    return {"checkpoint": checkpoint, "loha": loha, "apply": apply, "scene": scene, "size": size, "sampler": sampler,
            "decode": decode}, picture


def write(folder: Path) -> None:
    text = json.dumps(build(), indent=2, ensure_ascii=False)
    (folder / "shinymas-scene.json").write_text(text + "\n", encoding="utf-8", newline="\n")
