"""Weights that a model keeps in files of their own: read beside it, and nowhere else."""

from __future__ import annotations

import os
import re

import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from shinymas_loha.loha.errors import FileError
from shinymas_loha.taggers import onnx_file
from shinymas_loha.taggers.onnx_file import check_model
from shinymas_loha.taggers.tagger import Tagger
from small_taggers import TAGS, tagger_model, write_tagger


def refused(path, text):
    with pytest.raises(FileError, match=re.escape(text)):
        Tagger(path)


def with_external(path, location, where="graph"):
    """The tagger in `path`, its weights said to be at `location`; that tensor wherever a model can hold one."""
    model = tagger_model("WD")
    tensor = model.graph.initializer[0]
    data, tensor.raw_data = tensor.raw_data, b""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    if where != "graph":
        moved = onnx.TensorProto()
        moved.CopyFrom(tensor)
        model.graph.initializer.pop(0)
        node = helper.make_node("Constant", [], ["weights"])
        attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        attribute.t.CopyFrom(moved)
        if where == "constant":
            model.graph.node.insert(0, node)
        elif where == "subgraph":
            branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("weights", 1, [3, len(TAGS)])])
            both = helper.make_node("If", ["x"], ["weights"], then_branch=branch, else_branch=branch)
            model.graph.node.insert(0, both)
        elif where == "function":
            model.functions.append(helper.make_function("d", "F", [], ["weights"], [node], []))
        elif where == "sparse":
            sparse = model.graph.sparse_initializer.add(dims=[3, len(TAGS)])
            sparse.values.CopyFrom(moved)
        elif where == "training":
            model.training_info.add().algorithm.initializer.append(moved)
        elif where == "list":
            many = model.graph.node.add(op_type="X").attribute.add(name="v", type=onnx.AttributeProto.TENSORS)
            many.tensors.append(moved)
    path.write_bytes(model.SerializeToString())
    return data


def test_weights_beside_the_model_are_read(tmp_path):
    path = write_tagger(tmp_path)
    data = with_external(path, "model.onnx_data")
    refused(path, "model.onnx keeps weights in 'model.onnx_data', which cannot be read (No such file or directory)")
    (tmp_path / "model.onnx_data").write_bytes(data)
    tagger = Tagger(path)
    answers = dict(zip(TAGS, tagger.predict([tagger.prepare(Image.new("RGB", (9, 9), "red"))])[0], strict=True))
    assert answers["red_sky"] == pytest.approx(1, abs=0.01) and answers["long_hair"] == pytest.approx(0.7)


@pytest.mark.parametrize("location", ["../outside", "/etc/hostname", "inside/../../outside", "link", "linked/outside",
                                      "*/_ORT_MEM_ADDR_/*", "a\0b"])
def test_weights_elsewhere_are_not_opened(tmp_path, location):
    home = tmp_path / "home"
    path = write_tagger(home)
    (tmp_path / "outside").write_bytes(bytes(4096))
    (home / "inside").mkdir()
    (home / "link").symlink_to("../outside")
    (home / "linked").symlink_to("..")
    with_external(path, location)
    refused(path, "which is outside its folder and is not opened; get the model from its authors")


@pytest.mark.parametrize("where", ["graph", "constant", "subgraph", "function", "sparse", "training", "list"])
def test_they_are_found_wherever_they_are_named(tmp_path, where):
    path = write_tagger(tmp_path)
    with_external(path, "../outside", where)
    with pytest.raises(FileError, match="model.onnx keeps weights in '../outside', which is outside its folder"):
        check_model(path)


def test_weights_in_what_is_no_file(tmp_path):
    path = write_tagger(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with_external(path, "pipe")
    refused(path, "model.onnx keeps weights in 'pipe', which is a named pipe")


def test_weights_beyond_all_measure(tmp_path):
    path = write_tagger(tmp_path)
    with_external(path, "data")
    with open(tmp_path / "data", "wb") as file:
        file.truncate(onnx_file.MAX_EXTERNAL_BYTES + 1)
    refused(path, "model.onnx keeps 8.6 GB of weights beside it; at most 8 GB are opened.")
