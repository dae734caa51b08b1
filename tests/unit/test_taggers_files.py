"""Models and the files beside them: recognised, read, and refused where something is wrong, in a sentence."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import small_taggers
from onnx import TensorProto, helper
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.taggers import onnx_file
from shinymas_loha.taggers.labels import read_labels, read_thresholds
from shinymas_loha.taggers.layouts import recognise
from shinymas_loha.taggers.onnx_file import check_model
from shinymas_loha.taggers.tagger import Tagger
from small_taggers import COLOURS, LAYOUTS, PROBABILITIES, STAGES, TAGS, small_model, tagger_model, write_tagger

RED = Image.new("RGB", (30, 40), "red")


@pytest.mark.parametrize("batch", ["N", 1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_answers_of_every_layout(tmp_path, layout, batch):
    """Pictures in one colour, some of another size, in more than one batch; the last is not full."""
    tagger = Tagger(write_tagger(tmp_path, layout, batch=batch))
    assert tagger.files.layout.name == layout and tagger.provider == "CPU"
    assert tagger.batch == (None if batch == "N" else batch)
    assert tagger.labels.names == tuple(TAGS)
    square = [Image.new("RGB", (side, side), colour) for side, colour in (
        (30, "red"), (600, "lime"), (448, "blue"), (512, "red"), (40, "blue"))]
    found = tagger.predict([tagger.prepare(image) for image in square])
    assert found.shape == (5, len(TAGS)) and found.dtype == np.float32
    for row, colour in zip(found, (0, 1, 2, 0, 2), strict=True):
        answers = dict(zip(TAGS, row.tolist(), strict=True))
        for name, chance in PROBABILITIES.items():
            assert answers[name] == pytest.approx(chance, abs=1e-6)
        assert [answers[name] > 0.99 for name in COLOURS] == [colour == at for at in range(3)]
        assert min(answers[name] for name in COLOURS) < 0.01


@pytest.mark.parametrize(("layout", "thresholds"), [
    ("WD", (0.35, 0.85)), ("cl_tagger", (0.55, 0.6)), ("camie v2", (0.5, 0.5)), ("pixai", (0.3, 0.85))])
def test_what_the_authors_advise(tmp_path, layout, thresholds):
    assert Tagger(write_tagger(tmp_path, layout)).thresholds == thresholds


def test_pixais_thresholds_are_in_a_file(tmp_path):
    path = write_tagger(tmp_path, "pixai")
    (tmp_path / "thresholds.csv").write_text("category,name,threshold\n4,character,0.75\n0,general,0.2\n")
    assert Tagger(path).thresholds == (0.2, 0.75)
    (tmp_path / "thresholds.csv").unlink()
    assert Tagger(path).thresholds == (0.3, 0.85)


def test_half_precision(tmp_path):
    small_taggers.write_tags(tmp_path, "WD")
    model = tagger_model("WD")
    nodes = [helper.make_node("Cast", ["half"], ["input"], to=TensorProto.FLOAT), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["N", 448, 448, 3]))
    onnx.save(model, tmp_path / "model.onnx")
    tagger = Tagger(tmp_path / "model.onnx")
    answers = tagger.predict([tagger.prepare(Image.new("RGB", (9, 9), "red"))])[0]
    assert answers[list(TAGS).index("red_sky")] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("files", "layout", "labels"), [
    (["model.onnx", "selected_tags.csv"], "WD", "selected_tags.csv"),
    (["wd-v1-4.onnx", "wd-v1-4.csv"], "WD", "wd-v1-4.csv"),
    (["wd.onnx", "wd.csv", "tag_mapping.json", "selected_tags.csv", "preprocess.json"], "WD", "wd.csv"),
    (["model_optimized.onnx", "model.onnx", "tag_mapping.json"], "cl_tagger", "tag_mapping.json"),
    (["cl.onnx", "cl_tag_mapping.json"], "cl_tagger", "cl_tag_mapping.json"),
    (["camie-tagger-v2.onnx", "camie-tagger-v2-metadata.json"], "camie v2", "camie-tagger-v2-metadata.json"),
    (["c.onnx", "metadata.json"], "camie v2", "metadata.json"),
    (["c.onnx", "c_metadata.json", "metadata.json"], "camie v2", "c_metadata.json"),
    (["model.onnx", "selected_tags.csv", "preprocess.json"], "pixai", "selected_tags.csv"),
    (["model.onnx", "selected_tags.csv", "preprocess.json", "thresholds.csv"], "pixai", "selected_tags.csv"),
])
def test_a_layout_shows_by_its_files(tmp_path, files, layout, labels):
    for name in files:
        (tmp_path / name).touch()
    found = recognise(tmp_path / files[0])
    assert (found.layout.name, found.labels.name) == (layout, labels)
    assert {path.name for path in found.all} <= set(files)


def test_a_model_without_tags(tmp_path):
    with pytest.raises(FileError, match="wd.onnx: there are no tags beside it. Put .* selected_tags.csv .* wd-meta"):
        recognise(tmp_path / "wd.onnx")


def refused(path, text, kind=FileError):
    with pytest.raises(kind) as error:
        Tagger(path)
    assert text in str(error.value), str(error.value)


def test_tags_that_do_not_match_the_model(tmp_path):
    refused(write_tagger(tmp_path, extra=2),
            "selected_tags.csv lists 11 tags, but model.onnx gives 13 answers. Take both files from the same place.")


def test_answers_whose_number_shows_in_the_run_only(tmp_path):
    small_taggers.write_tags(tmp_path, "WD")
    model = tagger_model("WD")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 448, 448, "c"]))
    model.graph.node.append(helper.make_node("Concat", ["answers", "means"], ["more"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", "tags"]))
    onnx.save(model, tmp_path / "model.onnx")
    tagger = Tagger(tmp_path / "model.onnx")
    with pytest.raises(FileError, match="selected_tags.csv lists 11 tags, but model.onnx gives 14 answers"):
        tagger.predict([tagger.prepare(RED)])


@pytest.mark.parametrize(("text", "said"), [
    ("tag_id,tag,category\n1,smile,0\n", "has no column 'name'"),
    ("tag_id,name,category\n", "holds no general tags"),
    ("tag_id,name,category\n1,mano,4\n", "holds no general tags"),
    ('tag_id,name,category\n1,"two\nlines",0\n', r"tag 0 is no tag: 'two\x0alines'"),
    (f"tag_id,name,category\n1,{'x' * 301},0\n", "tag 0 is no tag: 'xxx"),
    ("tag_id,name,category\n1,\u202esmile,0\n", r"tag 0 is no tag: '\u202esmile'"),
    ("", "has no column 'name'"),
    ("<html>", "has no column 'name'"),
    ("name,category\n" + '"' + "x" * 200_000 + '",0\n', "line 1: field larger than field limit"),
])
def test_a_csv_that_is_none(tmp_path, text, said):
    path = write_tagger(tmp_path)
    (tmp_path / "selected_tags.csv").write_text(text, encoding="utf-8", newline="")
    refused(path, "selected_tags.csv")
    refused(path, said)


@pytest.mark.parametrize(("data", "said"), [
    (b"\xff\xfe\x00", "selected_tags.csv is not UTF-8 (byte 0): save it as UTF-8."),
    (b"n\0a\0m\0e\0", "selected_tags.csv holds zero bytes, as UTF-16 does: save it as UTF-8."),
])
def test_tags_that_are_no_text(tmp_path, data, said):
    path = write_tagger(tmp_path)
    (tmp_path / "selected_tags.csv").write_bytes(data)
    refused(path, said)


def test_a_list_of_tags_beyond_all_measure(tmp_path):
    path = write_tagger(tmp_path)
    with open(tmp_path / "selected_tags.csv", "wb") as file:
        file.truncate((64 << 20) + 1)
    refused(path, "selected_tags.csv is over 64 MB, which no list of tags is.")


def test_a_byte_order_mark_and_an_unnamed_answer(tmp_path):
    (tmp_path / "model.onnx").touch()
    (tmp_path / "selected_tags.csv").write_text("\ufefftag_id,name,category\n1,smile,0\n2,,0\n", encoding="utf-8")
    labels = read_labels(recognise(tmp_path / "model.onnx"))
    assert labels.names == ("smile", "") and labels.of("general") == (0,)


@pytest.mark.parametrize(("layout", "found", "said"), [
    ("cl_tagger", [], "not the tags of cl_tagger"),
    ("cl_tagger", {}, "not the tags of cl_tagger"),
    ("cl_tagger", {"a": {"tag": "smile", "category": "General"}}, "not the tags of cl_tagger"),
    ("cl_tagger", {"0": {"tag": 3, "category": "General"}}, "not the tags of cl_tagger"),
    ("cl_tagger", {"999999999999": {"tag": "smile", "category": "General"}}, "not the tags of cl_tagger"),
    ("cl_tagger", {"-1": {"tag": "smile", "category": "General"}}, "not the tags of cl_tagger"),
    ("camie v2", {"idx_to_tag": {"0": "smile"}, "tag_to_category": {}}, "not the tags of camie v2"),
])
def test_a_json_that_holds_no_tags(tmp_path, layout, found, said):
    path = write_tagger(tmp_path, layout)
    recognise(path).labels.write_text(json.dumps(found), encoding="utf-8")
    refused(path, said)


def test_the_other_form_of_cl_taggers_tags(tmp_path):
    """With lists as with numbered names, and a gap between the numbers."""
    (tmp_path / "model.onnx").touch()
    mapping = {"idx_to_tag": {"0": "smile", "2": "mano"}, "tag_to_category": {"smile": "General", "mano": "Character"}}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    labels = read_labels(recognise(tmp_path / "model.onnx"))
    assert labels.names == ("smile", "", "mano") and labels.categories == ("general", "", "character")


@pytest.mark.parametrize("row", ["0,high", "0,1.5", "0"])
def test_thresholds_that_are_none(tmp_path, row):
    (tmp_path / "thresholds.csv").write_text(f"category,threshold\n{row}\n", encoding="utf-8")
    with pytest.raises(FileError, match="thresholds.csv, line 2: '.*' is no threshold from 0 to 1"):
        read_thresholds(tmp_path / "thresholds.csv")


@pytest.mark.parametrize(("data", "said"), [
    (b"<!DOCTYPE html>", "model.onnx is no ONNX model; it looks like a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "it looks like a git-LFS pointer"),
    (b"PK\x03\x04abc", "it looks like a zip archive"),
    (b"", "it holds only zero bytes"),
    (b"\x08\x08", "it is damaged or of another format"),  # a version and no graph
])
def test_a_model_that_is_none(tmp_path, data, said):
    path = write_tagger(tmp_path)
    path.write_bytes(data)
    refused(path, said)


def test_every_truncation_is_refused(tmp_path):
    path = write_tagger(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"^model.onnx"):
            Tagger(path)


def test_a_model_of_endless_small_fields(tmp_path, monkeypatch):
    path = write_tagger(tmp_path)
    path.write_bytes(path.read_bytes() + b"\x08\x08" * 2000)
    check_model(path)
    monkeypatch.setattr(onnx_file, "_MAX_FIELDS", 2000)
    refused(path, "model.onnx is no ONNX model")


def test_a_graph_that_onnxruntime_does_not_take(tmp_path):
    path = write_tagger(tmp_path)
    model = tagger_model("WD")
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    refused(path, "model.onnx: onnxruntime cannot open it (")


def test_a_model_that_takes_no_pictures(tmp_path):
    path = write_tagger(tmp_path)
    onnx.save(small_model([helper.make_node("Identity", ["input"], ["y"])], ["N", 11], {"y": 11}, {}), path)
    refused(path, "takes tensor(float) ['N', 11], no pictures; choose a tagger.")


@pytest.mark.parametrize(("layout", "shape"), [
    ("WD", ["N", 3, 448, 448]), ("cl_tagger", ["N", 448, 448, 3]), ("WD", ["N", 448, 224, 3]),
    ("WD", ["N", 4096, 4096, 3]), ("pixai", ["N", 3, 224, 224]), ("WD", ["N", 448, 448, 4])])
def test_a_model_that_is_fed_in_another_way(tmp_path, layout, shape):
    path = write_tagger(tmp_path, layout)
    nodes = [helper.make_node("ReduceMean", ["input"], ["means"], axes=[1, 2, 3], keepdims=0),
             helper.make_node("Reshape", ["means", "flat"], ["column"]),
             helper.make_node("MatMul", ["column", "ones"], ["answers"])]
    tensors = {"flat": np.int64([-1, 1]), "ones": np.ones((1, len(TAGS)), np.float32)}
    onnx.save(small_model(nodes, shape, {"answers": len(TAGS)}, tensors), path)
    refused(path, f"which is not how {layout} is fed")


def test_sides_that_the_model_leaves_open_are_the_layouts(tmp_path):
    path = write_tagger(tmp_path)
    model = tagger_model("WD")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", "h", "w", "c"]))
    onnx.save(model, path)
    assert Tagger(path).size == 448


def test_another_size_of_the_same_layout(tmp_path):
    path = write_tagger(tmp_path)
    model = tagger_model("WD")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 320, 320, 3]))
    onnx.save(model, path)
    tagger = Tagger(path)
    assert tagger.size == 320 and tagger.prepare(RED).shape == (320, 320, 3)


@pytest.mark.parametrize("bias", [np.nan, 7.0, -7.0])
def test_answers_that_are_no_probabilities(tmp_path, bias):
    path = write_tagger(tmp_path)
    nodes = [helper.make_node("ReduceMean", ["input"], ["means"], axes=[1, 2], keepdims=0),
             helper.make_node("Gemm", ["means", "weights", "bias"], ["answers"])]
    tensors = {"weights": np.zeros((3, len(TAGS)), np.float32), "bias": np.full(len(TAGS), bias, np.float32)}
    onnx.save(small_model(nodes, ["N", 448, 448, 3], {"answers": len(TAGS)}, tensors), path)
    tagger = Tagger(path)
    with pytest.raises(FileError, match="its answers are no probabilities, as those of WD are. It is damaged, or of"):
        tagger.predict([tagger.prepare(RED)])


def test_a_model_that_fails_in_the_run(tmp_path):
    """It says that it takes any number of pictures, and does not."""
    path = write_tagger(tmp_path)
    model = tagger_model("WD")
    reshape = [helper.make_node("Reshape", ["means", "one"], ["single"])]
    nodes = [model.graph.node[0], *reshape, model.graph.node[1]]
    nodes[2].input[0] = "single"
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    tensors["one"] = np.int64([1, 3])
    path.write_bytes(small_model(nodes, ["N", 448, 448, 3], {"answers": len(TAGS)}, tensors).SerializeToString())
    tagger = Tagger(path)
    with pytest.raises(FileError, match=r"model.onnx: onnxruntime cannot run it \(.*Lower batch_size if memory is"):
        tagger.predict([tagger.prepare(RED)] * 2)


def test_onnxruntime_is_not_there(tmp_path, monkeypatch):
    path = write_tagger(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)  # an import then fails as where it is missing
    refused(path, "Install it into ComfyUI's own Python, `python -m pip install onnxruntime` (onnxruntime-gpu",
            SettingsError)


def test_onnxruntime_does_not_load(tmp_path, monkeypatch):
    path = write_tagger(tmp_path / "model")
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "onnxruntime", raising=False)
    refused(path, "onnxruntime is installed and cannot be loaded (libcudnn.so.9: cannot open shared object file)",
            SettingsError)


def test_a_model_beyond_all_measure(tmp_path):
    path = write_tagger(tmp_path)
    with open(path, "r+b") as file:
        file.truncate(onnx_file.MAX_BYTES + 1)
    refused(path, "model.onnx has 2.1 GB; an .onnx file holds at most 2 GB.")


def test_a_model_that_is_a_folder(tmp_path):
    path = write_tagger(tmp_path)
    path.unlink()
    path.mkdir()
    refused(path, "model.onnx is a folder")


def test_stages_of_another_size_than_the_model(tmp_path):
    path = write_tagger(tmp_path, "pixai")
    stages = [{**STAGES[0], "size": [224, 224]}, *STAGES[1:]]
    (tmp_path / "preprocess.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    refused(path, "which is not how pixai is fed")
