"""Identity models of a kilobyte, whose answers are known: real ONNX files that average each channel of a picture.

Beside them a `preprocess.json` that leaves colours as they are, from 0 to 1: then the embedding of a picture in one
colour is that colour, brought to length 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

STAGES = [{"type": "resize", "size": [8, 8], "interpolation": "bilinear"}, {"type": "to_tensor"}]


def write_identity(folder: Path, *, name: str = "model_feat.onnx", plain: bool = True, side: int = 8,
                   **options) -> Path:
    """Write a model into `folder`; returns it.

    Args:
        plain: put the `preprocess.json` beside it.
        side: of the squares that the `preprocess.json` makes.
        options: of `identity_model`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if plain:
        stages = [STAGES[0] | {"size": [side, side]}, *STAGES[1:]]
        (folder / "preprocess.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    onnx.save(identity_model(**options), folder / name)
    return folder / name


def identity_model(shape: tuple = ("N", 3, 8, 8), *, outputs: dict[str, list] | None = None, last: list | None = None,
                   inputs: int = 1, kind: int = TensorProto.FLOAT, axes: tuple = ()) -> onnx.ModelProto:
    """A checked model.

    Args:
        shape: of the input; the channels are the first of 1 and 3 that holds a 3.
        outputs: name → shape, each the same answer; one, `output`, where none is given.
        last: nodes from `means` to `answer`.
        inputs: how many; all but the first are unused.
        axes: to average over, where `shape` does not tell.
    """
    outputs = outputs or {"output": [shape[0], 3]}
    axes = list(axes or ([2, 3] if shape[1] == 3 else [1, 2]))
    last = last if last is not None else [helper.make_node("Identity", ["means"], ["answer"])]
    nodes = [helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
             helper.make_node("ReduceMean", ["pixels"], ["means"], axes=axes, keepdims=0), *last]
    nodes += [helper.make_node("Identity", ["answer"], [name]) for name in outputs]
    taken = [helper.make_tensor_value_info("input" if not at else f"input{at}", kind, list(shape))
             for at in range(inputs)]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in outputs.items()]
    model = helper.make_model(helper.make_graph(nodes, "identity", taken, given),
                              opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model
