"""The blueprints: the drawing, the scene's and the sheet's graph, each as one node with what a person sets.

ComfyUI offers a pack's `subgraphs/*.json` in the node library and in the search for nodes. It reads them in the
system's own encoding, which on Windows is not UTF-8: they are ASCII.
"""

from __future__ import annotations

import json
from pathlib import Path

from kit import drawing_graphs, scene_graph, sheet_graph
from kit.graph_file import Graph, Promoted


def _model(ids: dict[str, int]) -> list[Promoted]:
    return [*_of(ids["checkpoint"], "ckpt_name"), *_of(ids["loha"], "lora_name")]


def _strength(ids: dict[str, int]) -> Promoted:
    return Promoted("strength", [(ids["apply"], "strength_model"), (ids["apply"], "strength_clip")])


def _sampling(ids: dict[str, int]) -> list[Promoted]:
    return [*_of(ids["size"], "width", "height"), *_of(ids["sampler"], "seed", "steps", "cfg")]


def _of(node: int, *widgets: str) -> list[Promoted]:
    return [Promoted(widget, [(node, widget)]) for widget in widgets]


def draw_one() -> tuple[str, dict]:
    graph, name = Graph(), "ShinyMas Draw one"
    ids, _ = drawing_graphs.nodes(graph, drawing_graphs.VERSIONS[-1])
    prompt = _of(ids["prompt"], "character", "model_version", "after")
    return name, graph.blueprint(
        name, "One ShinyMas character, with a LoHa on any SD 1.5 checkpoint: from her name to the picture.",
        [*_model(ids), _strength(ids), *prompt, *_sampling(ids)], [(ids["decode"], "IMAGE", "image")], height=420)


def draw_two() -> tuple[str, dict]:
    graph, name = Graph(), "ShinyMas Draw two"
    ids, _ = scene_graph.nodes(graph)
    scene = _of(ids["scene"], "people", "shared", "model_version", "method", "feather")
    return name, graph.blueprint(
        name, "Several ShinyMas characters in one picture, a line for each, and the plan of who stands where.",
        [*_model(ids), _strength(ids), *scene, *_sampling(ids)],
        [(ids["decode"], "IMAGE", "image"), (ids["scene"], "layout", "layout")], height=540)


def sheet() -> tuple[str, dict]:
    graph, name = Graph(), "ShinyMas Sheet of the cast"
    ids, _ = sheet_graph.nodes(graph)
    cast = _of(ids["cast"], "unit", "names", "strengths", "model_version", "after")
    return name, graph.blueprint(
        name, "The whole ShinyMas cast, a unit, or those you name, drawn with the same noise on one labelled sheet.",
        [*_model(ids), *cast, *_sampling(ids)], [(ids["sheet"], "sheet", "sheet")], height=520)


def write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, document in (draw_one(), draw_two(), sheet()):
        text = json.dumps(document, indent=2)
        (folder / f"{name}.json").write_text(text + "\n", encoding="ascii", newline="\n")
