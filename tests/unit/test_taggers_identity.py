"""Identity models: known embeddings, every layout, and what is refused, in a sentence."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.taggers.identity import IdentityModel, ccip
from small_identity import identity_model, write_identity

RED, BROWN = Image.new("RGB", (30, 50), (255, 0, 0)), Image.new("RGB", (9, 9), (153, 204, 0))
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def refused(path, text, kind=FileError):
    with pytest.raises(kind) as error:
        IdentityModel(path)
    assert text in str(error.value), str(error.value)


@pytest.mark.parametrize("shape", [
    ("N", 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8), ("N", 8, 8, 3), (2, 8, 8, 3), ("N", 3, "h", "w"), ("N", "h", "w", 3),
    ("N", 3, 8, "w"), ("N", 3, 3, 3)])
def test_known_embeddings_of_every_layout(tmp_path, shape):
    model = IdentityModel(write_identity(tmp_path, shape=shape, side=3 if shape[2] == 3 else 8))
    assert model.size == (3 if shape[2] == 3 else 8) and model.provider == "CPU"
    for picture, embedding in ((RED, (1, 0, 0)), (BROWN, (0.6, 0.8, 0))):
        found = model.embed(picture)
        assert found.dtype == np.float32 and found.tolist() == pytest.approx(embedding, abs=1e-6)


def test_what_the_model_leaves_open_is_as_ccip_has_it(tmp_path):
    model = IdentityModel(write_identity(tmp_path, plain=False, shape=("N", "c", "h", "w"), axes=(2, 3)))
    assert model.size == 384 and [path.name for path in model.files] == ["model_feat.onnx"]
    colour = (np.array([1, 0, 0]) - CLIP_MEAN) / CLIP_STD
    assert model.embed(RED) == pytest.approx(colour / np.linalg.norm(colour), abs=1e-3)


def test_ccip_sees_the_whole_picture_in_a_square():
    halves = Image.new("RGB", (40, 10), (255, 255, 255))
    halves.paste((0, 0, 0), (20, 0, 40, 10))
    seen = ccip(halves, 8)
    assert seen.shape == (3, 8, 8) and seen.dtype == np.float32
    white, black = ((np.array([one] * 3) - CLIP_MEAN) / CLIP_STD for one in (1, 0))
    assert seen[:, 4, 0] == pytest.approx(white, abs=1e-5) and seen[:, 4, 7] == pytest.approx(black, abs=1e-5)


def test_half_precision(tmp_path):
    model = IdentityModel(write_identity(tmp_path, kind=TensorProto.FLOAT16))
    assert model.embed(BROWN).tolist() == pytest.approx((0.6, 0.8, 0), abs=1e-3)


def test_of_several_answers_the_embedding_is_taken(tmp_path):
    path = write_identity(tmp_path, outputs={"logits": ["N", 3], "image_embeds": ["N", 3], "hidden": ["N", 3]})
    assert IdentityModel(path).embed(RED).tolist() == [1, 0, 0]


def test_what_is_no_model(tmp_path):
    (tmp_path / "model.onnx").write_text("<html>Sign in to Hugging Face</html>")
    refused(tmp_path / "model.onnx", "model.onnx is no ONNX model")
    refused(tmp_path / "none.onnx", "none.onnx cannot be read (No such file or directory)")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "pipe.onnx is a named pipe")


@pytest.mark.parametrize(("options", "text"), [
    ({"inputs": 2}, "takes 2 inputs (input, input1), not one picture; choose an identity model"),
    ({"shape": ("N", 1, 8, 8), "axes": (2, 3)}, "not pictures of 3 channels; choose an identity model. Of CCIP that is "
                                                "model_feat.onnx."),
    ({"shape": ("N", "m"), "axes": (1,)}, "takes tensor(float) ['N', 'm'], not pictures of 3 channels"),
    ({"kind": TensorProto.INT64}, "takes tensor(int64) ['N', 3, 8, 8], not pictures of 3 channels"),
    ({"shape": ("N", 3, 8, 16)}, "takes ['N', 3, 8, 16], not squares of 1 to 2048 pixels"),
    ({"shape": ("N", 3, 4096, 4096)}, "not squares of 1 to 2048 pixels"),
    ({"shape": (65, 3, 8, 8)}, "takes 65 pictures at a time, over 64"),
    ({"shape": ("N", 3, 16, 16)}, "takes squares of 16 pixels, but preprocess.json beside it makes them 8. Take both"),
    ({"outputs": {"a": ["N", 3], "b": ["N", 3]}}, "gives 2 answers (a, b), of which not exactly one is called an"),
    ({"outputs": {"feat_a": ["N", 3], "feat_b": ["N", 3]}}, "of which not exactly one is called an embedding"),
    ({"outputs": {"output": ["N", 1]}, "last": [helper.make_node("ReduceSum", ["means"], ["answer"])]},
     "not one vector of 2 to 16384 numbers for each picture"),
    ({"outputs": {"output": ["N", 3, 1]}, "last": [
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Unsqueeze", ["means", "two"], ["answer"])]}, "its answer is ['N', 3, 1], not one vector"),
    ({"outputs": {"output": ["N", "d"]}, "last": [helper.make_node("Concat", ["means"] * 6000, ["answer"], axis=1)]},
     "its answer is ['N', 18000], not one vector of 2 to 16384 numbers"),
])
def test_what_is_no_identity_model(tmp_path, options, text):
    refused(write_identity(tmp_path, **options), f"model_feat.onnx: {text}" if text[:4] in ("take", "give") else text)


def test_answers_of_another_kind(tmp_path):
    model = identity_model(last=[helper.make_node("Cast", ["means"], ["answer"], to=TensorProto.STRING)])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(model, tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "m.onnx: answers with tensor(string), no embedding; choose an identity model.")


def nodes(*values):
    """The answer is that of the colours and these numbers in their place."""
    constant = numpy_helper.from_array(np.array(values, np.float32))
    return [helper.make_node("Constant", [], ["numbers"], value=constant),
            helper.make_node("Mul", ["means", "numbers"], ["answer"])]


@pytest.mark.parametrize(("options", "text"), [
    ({"last": nodes(np.nan, 1, 1)}, "its answer to a picture is not finite, so nothing can be compared with it"),
    ({"last": nodes(np.inf, 1, 1)}, "its answer to a picture is not finite"),
    ({"last": nodes(0, 1, 1)}, "its answer to a picture is all zero"),
    ({"outputs": {"output": ["N", "d"]}, "last": [helper.make_node("Concat", ["means"] * 2, ["answer"], axis=0)]},
     "its answer is [2, 3], not one vector"),
])
def test_answers_that_are_no_embedding(tmp_path, options, text):
    model = IdentityModel(write_identity(tmp_path, **options))
    with pytest.raises(FileError) as error:
        model.embed(RED)
    assert text in str(error.value) and "model_feat.onnx" in str(error.value)


def test_numbers_beyond_float32_have_a_length(tmp_path):
    model = IdentityModel(write_identity(tmp_path, last=nodes(1e30, 1e30, 1e30)))
    assert model.embed(BROWN).tolist() == pytest.approx((0.6, 0.8, 0), abs=1e-6)


def test_weights_elsewhere_are_not_opened(tmp_path):
    path = write_identity(tmp_path / "home", last=nodes(1, 1, 1))
    model = onnx.load(path)
    tensor = next(node for node in model.graph.node if node.op_type == "Constant").attribute[0].t
    (tmp_path / "outside").write_bytes(tensor.raw_data)
    tensor.raw_data, tensor.data_location = b"", TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    path.write_bytes(model.SerializeToString())
    refused(path, "model_feat.onnx keeps weights in '../outside', which is outside its folder and is not opened")


def test_a_preprocess_file_that_is_none(tmp_path):
    path = write_identity(tmp_path)
    (tmp_path / "preprocess.json").write_text(json.dumps({"stages": [{"type": "solarize"}]}))
    refused(path, "preprocess.json: a step cannot be understood")


def test_onnxruntime_is_not_there(tmp_path, monkeypatch):
    path = write_identity(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)  # an import then fails as where it is missing
    refused(path, "Taggers and identity models need onnxruntime, which ComfyUI does not bring along. Install it",
            SettingsError)


def test_a_graph_that_onnxruntime_does_not_take(tmp_path):
    model = identity_model()
    model.graph.node[0].op_type = "Teleport"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "m.onnx", "m.onnx: onnxruntime cannot open it")
