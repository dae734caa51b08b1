"""Taggers of a few kilobytes, one for each layout, whose answers are known: real ONNX files with the real files beside.

Each knows the same tags: three that are as sure as the picture is red, green or blue, and some that are always as sure
as PROBABILITIES says.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Name → Danbooru's number of the category (9 is WD's for ratings).
TAGS = {"general": 9, "red_sky": 0, "green_grass": 0, "blue_eyes": 0, "long_hair": 0, "^_^": 0, "hair_(style)": 0,
        "smile": 0, "faint": 0, "sakuragi_mano": 4, "kazano_hiori": 4}
PROBABILITIES = {"general": 0.9, "long_hair": 0.7, "^_^": 0.6, "hair_(style)": 0.5, "smile": 0.375, "faint": 0.25,
                 "sakuragi_mano": 0.9, "kazano_hiori": 0.8}
COLOURS = ("red_sky", "green_grass", "blue_eyes")
CATEGORIES = {0: "General", 4: "Character", 9: "Rating"}
LAYOUTS = ("WD", "cl_tagger", "camie v2", "pixai")

STAGES = [
    {"type": "resize", "size": [448, 448], "interpolation": "bilinear", "antialias": True, "max_size": None},
    {"type": "maybe_to_tensor"},
    {"type": "normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
]


def write_tagger(folder: Path, layout: str = "WD", *, batch: int | str = "N", extra: int = 0) -> Path:
    """Write model and tags of a layout into `folder`; returns the model.

    Args:
        batch: how many pictures it takes, a name where that is free.
        extra: answers that no tag stands for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tags(folder, layout)
    path = folder / ("camie-tagger-v2.onnx" if layout == "camie v2" else "model.onnx")
    onnx.save(tagger_model(layout, batch=batch, extra=extra), path)
    return path


def write_tags(folder: Path, layout: str) -> None:
    """The files beside a model of this layout."""
    mapping = {"idx_to_tag": {str(at): name for at, name in enumerate(TAGS)},
               "tag_to_category": {name: CATEGORIES[one] for name, one in TAGS.items()}}
    if layout == "cl_tagger":
        both = {str(at): {"tag": name, "category": CATEGORIES[one]} for at, (name, one) in enumerate(TAGS.items())}
        (folder / "tag_mapping.json").write_text(json.dumps(both), encoding="utf-8")
    elif layout == "camie v2":
        mapping["tag_to_category"] = {name: one.lower() for name, one in mapping["tag_to_category"].items()}
        found = {"model_info": {"img_size": 512}, "dataset_info": {"total_tags": len(TAGS), "tag_mapping": mapping}}
        (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps(found), encoding="utf-8")
    else:
        with open(folder / "selected_tags.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["tag_id", "name", "category", "count"])
            rows.writerows([at, name, one, 100] for at, (name, one) in enumerate(TAGS.items()))
    if layout == "pixai":
        (folder / "preprocess.json").write_text(json.dumps({"stages": STAGES}), encoding="utf-8")
        (folder / "thresholds.csv").write_text("category,name,threshold\n0,general,0.3\n4,character,0.85\n",
                                               encoding="utf-8")


def tagger_model(layout: str, *, batch: int | str = "N", extra: int = 0) -> onnx.ModelProto:
    """A model that averages each channel and turns the averages into an answer for each tag."""
    first = layout != "WD"
    side = 512 if layout == "camie v2" else 448
    shape = [batch, 3, side, side] if first else [batch, side, side, 3]
    count = len(TAGS) + extra
    weights, bias = np.zeros((3, count), np.float32), np.zeros(count, np.float32)
    for at, name in enumerate(TAGS):
        if name in COLOURS:
            # BGR in the first two, RGB in the others; from 0–255, or from around zero to where a sigmoid is sure.
            channel = COLOURS.index(name)
            weights[channel if layout in ("camie v2", "pixai") else 2 - channel, at] = 8.0 if first else 1 / 256
        else:
            chance = PROBABILITIES[name]
            bias[at] = np.log(chance / (1 - chance)) if first else chance
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3] if first else [1, 2], keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["logits" if first else "answers"]),
    ]
    outputs = {"answers": count}
    if layout == "cl_tagger":
        outputs = {"logits": count}
    if layout == "camie v2":  # three outputs, the refined one counts
        nodes[1].output[0] = "refined_predictions"
        nodes += [helper.make_node("Neg", ["refined_predictions"], ["initial_predictions"]),
                  helper.make_node("Identity", ["means"], ["selected_candidates"])]
        outputs = {"initial_predictions": count, "refined_predictions": count, "selected_candidates": 3}
    if layout == "pixai":
        nodes += [helper.make_node("Sigmoid", ["logits"], ["prediction"]),
                  helper.make_node("Identity", ["means"], ["embedding"])]
        outputs = {"embedding": 3, "logits": count, "prediction": count}
    return small_model(nodes, shape, outputs, {"weights": weights, "bias": bias})


def small_model(nodes: list, shape: list, outputs: dict[str, int], tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A checked model with one float32 input and (batch, n) outputs."""
    graph = helper.make_graph(
        nodes, "tagger", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], count]) for name, count in outputs.items()],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model
