"""Recognition Report in a real ComfyUI: pictures whose tags are known, and so the table."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from kit.comfyui_server import PromptFailed
from PIL import Image, PngImagePlugin
from small_identity import write_identity
from small_taggers import write_tagger

CAST = """
version: 1
characters:
  - {name: Red One, tags: [red sky], identity: [red sky], cards: 4}
  - {name: Green One, tags: [green grass, long hair], identity: [green grass, long hair], cards: 52}
"""  # the tagger finds long hair everywhere


@pytest.fixture(scope="module", autouse=True)
def _tagger_and_cast(base):
    write_tagger(base / "models" / "taggers" / "small")
    (base / "user" / "shinymas").mkdir(parents=True, exist_ok=True)
    (base / "user" / "shinymas" / "looks.yaml").write_text(CAST, encoding="utf-8")


@pytest.fixture
def report(node, object_info):
    def make(**inputs):
        return {"report": node("ShinyMasRecognition", **{
            "tagger": "small/model.onnx", "threshold": 0.5, "cast": "looks", "folder": "", **inputs})}

    return make


def _drawn(node, names="Red One\nGreen One", strengths=""):
    """Two pictures, red and green, and whom the list says they are."""
    return {
        "red": node("EmptyImage", width=64, height=64, batch_size=1, color=0xC80000),
        "green": node("EmptyImage", width=64, height=64, batch_size=1, color=0x00C800),
        "both": node("ImageBatch", image1=["red", 0], image2=["green", 0]),
        "list": node("ShinyMasCharacterList", cast="looks", names=names, strengths=strengths, unit="every unit",
                     model_version="v2.1", tag_set="identity", label_script="romaji", run="whole cast"),
    }


CONNECTED = {"images": ["both", 0], "characters": ["list", 1], "strengths": ["list", 4]}


def test_what_came_back_is_counted_and_drawn(run_graph, node, report, server, base):
    nodes = _drawn(node) | report(**CONNECTED)
    nodes["csv"] = node("PreviewAny", source=["report", 2])
    nodes["map"] = node("PreviewImage", images=["report", 1])
    said = run_graph(nodes)
    lines = said["report"]["text"][0].splitlines()
    assert lines[:4] == [
        "pictures: 2 of 2 characters",
        "strength 1: 100% of the identity tags came back, 100% of the pictures look most like who was asked for",
        "Red One (4 cards): 1: 100%; at 1 then Green One 50%",
        "Green One: 1: 100%; at 1 then Red One 0%",
    ]
    assert "tagger: small/model.onnx, threshold 0.5" in lines
    rows = list(csv.DictReader(io.StringIO(said["csv"]["text"][0])))
    assert [(row["drawn"], row["identity_of"], row["share"]) for row in rows] == [
        ("Red One", "Red One", "1.0000"), ("Red One", "Green One", "0.5000"),
        ("Green One", "Red One", "0.0000"), ("Green One", "Green One", "1.0000")]
    assert Image.open(io.BytesIO(server.picture(said["map"]["images"][0]))).width > 100
    ledgers = (base / "user" / "shinymas" / "recognition").glob("*.jsonl")
    assert any("red sky" in ledger.read_text(encoding="utf-8") for ledger in ledgers)


def test_two_side_by_side_are_looked_at_one_by_one(run_graph, node, report):
    nodes = {
        "red": node("EmptyImage", width=32, height=64, batch_size=1, color=0xC80000),
        "green": node("EmptyImage", width=32, height=64, batch_size=1, color=0x00C800),
        "pair": node("ImageStitch", image1=["red", 0], image2=["green", 0], direction="right",
                     match_image_size=True, spacing_width=0, spacing_color="white"),
        "name": node("PrimitiveString", value="Red One + Green One"),
    } | report(images=["pair", 0], characters=["name", 0])
    lines = run_graph(nodes)["report"]["text"][0].splitlines()
    assert lines[0] == "pictures: 2 of 2 characters"
    assert lines[2].startswith("Red One (4 cards): 1: 100%") and lines[3].startswith("Green One: 1: 100%")


def test_pictures_of_a_sheet_and_of_folders_by_name_are_taken_from_the_output_folder(run_graph, report, base):
    folder = base / "output" / "recognised"
    (folder / "10_Green One").mkdir(parents=True)
    Image.new("RGB", (32, 32), (0, 200, 0)).save(folder / "10_Green One" / "a.webp", lossless=True)
    for number, (row, colour) in enumerate((("none", (0, 0, 0)), ("0.8", (200, 0, 0)))):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("sheet label", f"Red One (4 cards) | {row} | ")
        Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(folder / f"{number:04d}.png", pnginfo=text)
    lines = run_graph(report(folder="recognised"))["report"]["text"][0].splitlines()
    assert lines[0] == "pictures: 3 of 2 characters"
    assert "Red One (4 cards): 0: 0%, 0.8: 100% (+100%); at 0.8 then Green One 50%" in lines


def test_an_edited_cast_and_another_tagger_are_seen_at_the_next_run(run_graph, node, report, base):
    """Where nothing else before the report knows of casts, the table of before stood there."""
    cast, labels = base / "user" / "shinymas" / "edited.yaml", write_tagger(base / "models" / "taggers" / "changed")
    labels = labels.with_name("selected_tags.csv")
    nodes = {"red": node("EmptyImage", width=64, height=64, batch_size=1, color=0xC80000),
             "name": node("PrimitiveString", value="Red One")}
    nodes |= report(images=["red", 0], characters=["name", 0], cast="edited", tagger="changed/model.onnx")

    def share():
        return run_graph(nodes | {"csv": node("PreviewAny", source=["report", 2])})["csv"]["text"][0].splitlines()[1]

    cast.write_text(CAST, encoding="utf-8")
    assert share().startswith("1,Red One,4,1,1.0000,Red One,1.0000")
    cast.write_text(CAST.replace("[red sky]", "[red sky, green grass]"), encoding="utf-8")
    assert share().startswith("1,Red One,4,1,0.5000,Red One,0.5000")
    labels.write_text(labels.read_text(encoding="utf-8").replace("red_sky", "blue_sky"), encoding="utf-8")
    assert share().startswith("1,Red One,4,1,0.0000,Red One,0.0000")


def test_pictures_of_several_files_and_sheets_are_said_to_count_together(run_graph, report, base):
    """A file that is called by a number is no strength: 000016 was read as one of 16."""
    folder = base / "output" / "mixed"
    folder.mkdir()
    rows = (("000016", "v2.0"), ("epochs/two, 0.8", "v2.1"), ("nan", "v2.1"))
    for number, (row, title) in enumerate(rows):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("sheet label", f"Red One | {row} | ")
        text.add_itxt("sheet title", title)
        Image.new("RGB", (32, 32), (200, number, 0)).save(folder / f"{number:04d}.png", pnginfo=text)
    lines = run_graph(report(folder="mixed"))["report"]["text"][0].splitlines()
    assert "Red One (4 cards): 0.8: 100%, 1: 100%; at 1 then Green One 50%" in lines
    assert "note: pictures of several files count together: 000016, epochs/two, nan" in lines
    assert "note: pictures of several sheets count together: v2.0, v2.1" in lines


def test_a_cast_that_is_not_on_disk_yet_is_taken_from_its_text(run_graph, node, report):
    nodes = _drawn(node) | report(**CONNECTED, cast="shinymas", cast_yaml=["text", 0])
    nodes["list"]["inputs"] |= {"cast": "shinymas", "cast_yaml": ["text", 0]}
    nodes["text"] = node("PrimitiveStringMultiline", value=CAST.replace("Green One", "Blue One"))
    lines = run_graph(nodes | {"list": nodes["list"] | {"inputs": nodes["list"]["inputs"] | {"names": ""}}})[
        "report"]["text"][0].splitlines()
    assert lines[2].startswith("Red One (4 cards): 1: 100%") and lines[3].startswith("Blue One: 1: 100%")


@pytest.fixture(scope="module")
def counting(base):
    """A tagger that sees one person on every picture, and two where it is blue; an identity model; references."""
    tags = write_tagger(base / "models" / "taggers" / "counting").with_name("selected_tags.csv")
    text = tags.read_text(encoding="utf-8").replace("long_hair", "solo").replace("blue_eyes", "2girls")
    tags.write_text(text, encoding="utf-8")
    write_identity(base / "models" / "identity" / "small")
    for name, colour in (("10_Red One", (250, 0, 0)), ("Green One", (0, 250, 0)), ("Green One", (0, 0, 250))):
        folder = base / "input" / "looks" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(folder / f"{colour[2]}.png")
    return {"tagger": "counting/model.onnx", "identity_model": "small/model_feat.onnx", "references": "looks"}


def test_an_identity_model_is_a_second_measure(run_graph, node, report, server, base, counting):
    """Red One is drawn brown by the base model, red with the LoHa; of a scene and of two people nothing counts."""
    folder = base / "output" / "second"
    for number, (row, colour) in enumerate((("none", (120, 160, 0)), ("0.8", (200, 0, 0)), ("0.8", (0, 0, 200)))):
        folder.mkdir(exist_ok=True)
        text = PngImagePlugin.PngInfo()
        text.add_itxt("sheet label", f"Red One (4 cards) | {row} | ")
        Image.new("RGB", (32, 32), colour).save(folder / f"{number:04d}.png", pnginfo=text)
    nodes = {
        "red": node("EmptyImage", width=64, height=64, batch_size=1, color=0xC80000),
        "name": node("PrimitiveString", value="Red One + Green One"),
    } | report(images=["red", 0], characters=["name", 0], folder="second", **counting)
    nodes["csv"] = node("PreviewAny", source=["report", 2])
    nodes["map"] = node("PreviewImage", images=["report", 1])
    said = run_graph(nodes)
    lines = said["report"]["text"][0].splitlines()
    assert [line for line in lines if line.startswith("identity")] == [
        "identity, references: 2 pictures of 2 characters, 1 of each",
        "identity, strength 0 (the base model alone): 0% of the pictures are nearest to a reference of who was asked "
        "for, more similar by -0.200 than to the best other",
        "identity, strength 0.8: 100% (+100%) of the pictures are nearest to a reference of who was asked for, more "
        "similar by +1.000 (+1.200) than to the best other",
        "identity, Red One (4 cards): 0: 0% by -0.200, 0.8: 100% (+100%) by +1.000 (+1.200); at 0.8 then Green One",
        "identity model: small/model_feat.onnx",
        "identity, pictures: 2 of 5 count; left out: 2 parts of scenes, 1 others that do not show one person by the "
        "tagger's tags, 0 whose character has no references that count",
        "identity, references left out: 1 that do not show one person by the tagger's tags, 0 that are among the "
        "pictures themselves, 0 that cannot be read",
    ]
    rows = list(csv.DictReader(io.StringIO(said["csv"]["text"][0])))
    own = [row for row in rows if row["drawn"] == row["identity_of"] == "Red One"]
    assert [(row["strength"], row["one_person"], row["nearest"], row["similarity"], row["margin"],
             row["margin_change"]) for row in own] == [
        ("0", "1", "0.0000", "0.6000", "-0.2000", ""), ("0.8", "1", "1.0000", "1.0000", "1.0000", "1.2000"),
        ("1", "0", "", "", "", "")]
    assert Image.open(io.BytesIO(server.picture(said["map"]["images"][0]))).height > 300
    again = run_graph(nodes | {"red": nodes["red"] | {"inputs": nodes["red"]["inputs"] | {"width": 66}}})
    assert again["report"]["text"][0].splitlines()[-10:] == lines[-10:]


@pytest.mark.parametrize(("inputs", "said"), [
    ({"references": "looks"}, "identity: left out, for references are looked at by an identity_model, and none is"),
    ({"identity_model": "small/model_feat.onnx"}, "identity: left out, for identity_model needs a folder of reference"),
    ({"identity_model": "small/model_feat.onnx", "references": "looks"},
     "identity: left out, for the tagger knows none of the tags solo, 1girl, 1boy, 1other"),
    ({}, ""),
])
def test_half_of_a_second_measure_is_none(run_graph, node, report, counting, inputs, said):
    nodes = _drawn(node) | report(**CONNECTED, **inputs)
    nodes["csv"] = node("PreviewAny", source=["report", 2])
    found = run_graph(nodes)
    lines = [line for line in found["report"]["text"][0].splitlines() if line.startswith("identity: ")]
    assert len(lines) == bool(said) and all(line.startswith(said) for line in lines)
    assert "margin" not in found["csv"]["text"][0]


@pytest.mark.parametrize(("inputs", "message"), [
    ({"identity_model": "gone.onnx"}, "identity_model: 'gone.onnx' is not there. Nothing is downloaded by itself: get"),
    ({"identity_model": "small/text.onnx"}, "text.onnx is no ONNX model"),
    ({"references": "nowhere"}, "references: .*nowhere: no such folder"),
    ({"references": "looks/Green One"}, "has pictures of nobody of the cast 'looks'"),
])
def test_what_no_second_measure_is_made_of(run_graph, node, report, base, counting, inputs, message):
    (base / "models" / "identity" / "small" / "text.onnx").write_text("sign in first")
    with pytest.raises(PromptFailed, match=message):
        run_graph(_drawn(node) | report(**CONNECTED, **(counting | inputs)))


def test_a_missing_tagger_is_said_once(run_graph, node, report, counting):
    """Not as an error of the folder and of the identity model too."""
    nodes = _drawn(node) | report(**CONNECTED, **(counting | {"tagger": "gone.onnx"}))
    with pytest.raises(PromptFailed) as refused:
        run_graph(nodes)
    (error,) = refused.value.details["node_errors"]["report"]["errors"]
    assert error["details"].startswith("'gone.onnx' is not there. Nothing is downloaded by itself")


@pytest.mark.parametrize(("inputs", "names", "message"), [
    ({}, None, "no pictures: connect `images` and `characters`, or give a folder"),
    ({"tagger": "no tagger found"}, None, "there is no tagger. Nothing is downloaded by itself: get a tagger"),
    ({"folder": "../input"}, None, "cannot be a file name: it leads out of its folder"),
    ({"folder": "nowhere"}, None, "there is no 'nowhere' in ComfyUI's output folder"),
    ({"folder": "/".join(["x" * 150] * 40)}, None, "there is no 'xxx"),
    (CONNECTED, "Red One", "2 pictures and 1 characters: each picture needs its own"),
    ({"images": ["both", 0], "characters": ["list", 1], "cast": "shinymas"}, "Red One\nGreen One",
     "'Red One' is not in the cast 'shinymas'"),
])
def test_what_cannot_be_reported_on(run_graph, node, report, inputs, names, message):
    nodes = (_drawn(node, names) if names else {}) | report(**inputs)
    with pytest.raises(PromptFailed, match=message):
        run_graph(nodes)
