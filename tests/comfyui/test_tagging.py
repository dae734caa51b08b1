"""Tag Images in a real server: captions beside the pictures, what is seen at the next run, cancelling, and words."""

from __future__ import annotations

import re
import struct
import threading
import time

import pytest
import websocket  # comes with comfy-cli
from kit.comfyui_server import PromptFailed
from PIL import Image
from small_taggers import write_tagger

NODE = "ShinyMasTagImages"
CAPTION = b"sakuragi mano, red sky, long hair, ^_^, hair (style), smile\n"


@pytest.fixture(scope="module")
def models(base):
    """A tagger of each layout, in the two folders that ComfyUI looks into for us."""
    for layout, folder in (("WD", "wd14_tagger/wd-small"), ("pixai", "taggers/pixai-small"),
                           ("cl_tagger", "taggers/cl-small"), ("camie v2", "taggers/camie-small")):
        write_tagger(base / "models" / folder, layout)
    write_tagger(base / "models" / "taggers" / "wrong", extra=1)


@pytest.fixture
def tag(node, run_graph, models):
    """Run Tag Images; returns info and folder."""

    def run(folder, model="wd-small/model.onnx", **inputs):
        prompt = {"tag": node(NODE, folder=str(folder), model=model, **inputs),
                  "info": node("PreviewAny", source=["tag", 0]), "folder": node("PreviewAny", source=["tag", 1])}
        said = run_graph(prompt)
        if "tag" in said:
            assert said["tag"]["text"] == said["info"]["text"]
        return said["info"]["text"][0], said["folder"]["text"][0]

    return run


@pytest.fixture
def pictures(base, tmp_path):
    """Three red pictures in a folder in ComfyUI's input folder."""
    folder = base / "input" / tmp_path.name
    folder.mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (40, 60), "red").save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("model", "layout"), [
    ("wd-small/model.onnx", "WD"), ("pixai-small/model.onnx", "pixai"), ("cl-small/model.onnx", "cl_tagger"),
    ("camie-small/camie-tagger-v2.onnx", "camie v2")])
def test_every_layout(tag, pictures, model, layout):
    info, folder = tag(pictures.name, model)
    assert {path.name: path.read_bytes() for path in pictures.glob("*.txt")} == {f"{n}.txt": CAPTION for n in "abc"}
    assert info.splitlines()[:2] == [
        f"tagger: {model}", f"layout: {layout}, {512 if layout == 'camie v2' else 448} × "
        f"{512 if layout == 'camie v2' else 448} pixels, 11 tags"]
    assert "written: 3" in info and folder == str(pictures)


def test_the_three_inputs_that_are_promised_are_enough(object_info, run_graph, pictures, models):
    required = object_info[NODE]["input"]["required"]
    assert list(required) == ["folder", "model", "threshold"] and required["threshold"][1]["default"] == 0.35
    assert object_info[NODE]["output_name"][0] == "info"
    inputs = {"folder": str(pictures), "model": "wd-small/model.onnx", "threshold": 0.35}
    run_graph({"tag": {"class_type": NODE, "inputs": inputs}})
    assert (pictures / "a.txt").read_bytes() == CAPTION


def test_choices_reach_the_captions(tag, pictures):
    tag(pictures, threshold=0.55, character_tags=False, prefix="my girl", exclude="^_^", underscores=True)
    assert (pictures / "a.txt").read_bytes() == b"my girl, red_sky, long_hair\n"


def test_the_same_prompt_sees_what_changed(tag, pictures):
    """Captions and pictures are looked at anew, though no widget has changed."""
    assert "written: 3" in tag(pictures)[0]
    (pictures / "b.txt").unlink()
    (pictures / "a.txt").write_bytes(b"mine\n")
    Image.new("RGB", (40, 60), "red").save(pictures / "d.png")
    info = tag(pictures)[0]
    assert "written: 2\ncaptioned already: 2" in info
    assert (pictures / "a.txt").read_bytes() == b"mine\n" and (pictures / "d.txt").read_bytes() == CAPTION
    assert "written: 0\ncaptioned already: 4" in tag(pictures)[0]


def test_the_node_says_how_far_it_is(tag, pictures, server):
    said, seen = websocket.create_connection(f"{server.url.replace('http', 'ws')}/ws", timeout=60), []
    thread = threading.Thread(target=tag, args=(pictures,), daemon=True)
    thread.start()
    while not seen or not seen[-1].startswith("3/3"):
        event = said.recv()
        if isinstance(event, bytes) and event[:4] == struct.pack(">I", 3):  # text: its node's name, then the words
            (length,) = struct.unpack(">I", event[4:8])
            assert event[8:8 + length] == b"tag"
            seen.append(event[8 + length:].decode())
    thread.join(60)
    said.close()
    assert re.fullmatch(r"3/3 · \d+\.\d pictures/s · 00:00:00 left", seen[-1])


@pytest.mark.parametrize("model", [
    "no tagger found", "nowhere/model.onnx", "../outside.onnx", "wd-small/selected_tags.csv"])
def test_a_missing_model_says_what_to_fetch_and_where_to_put_it(tag, pictures, base, model):
    with pytest.raises(PromptFailed) as refused:
        tag(pictures, model)
    (error,) = refused.value.details["node_errors"]["tag"]["errors"]
    said = "there is no tagger." if model == "no tagger found" else f"'{model}' is not there."
    assert error["details"].endswith(
        f"{said} Nothing is downloaded by itself: get a tagger, for example model.onnx and selected_tags.csv of "
        "SmilingWolf/wd-v1-4-convnextv2-tagger-v2 on Hugging Face, which tagged the model page's pictures, put both "
        f"into a folder of their own in {base / 'models' / 'taggers'}, and press R to refresh the list.")


@pytest.mark.parametrize(("folder", "model", "text"), [
    ("", "wd-small/model.onnx", "folder: empty. Give the folder that holds the pictures."),
    ("not-there", "wd-small/model.onnx", "no such folder. Give the folder that holds the pictures."),
    ("..", "wd-small/model.onnx", "no pictures in it, nor in the folders in it (JPEG, PNG or WebP)"),
    (".", "wrong/model.onnx", "selected_tags.csv lists 11 tags, but model.onnx gives 12 answers. Take both files"),
])
def test_mistakes_are_sentences(tag, pictures, base, folder, model, text, tmp_path):
    if folder == "..":
        (tmp_path / "empty").mkdir()
        folder = str(tmp_path / "empty")
    elif folder == ".":
        folder = str(pictures)
    with pytest.raises(PromptFailed) as refused:
        tag(folder, model)
    assert text in str(refused.value)
    assert not list(pictures.glob("*.txt"))


def test_cancelling_keeps_whole_captions_and_the_next_run_goes_on(tag, pictures, server):
    for number in range(400):
        Image.new("RGB", (900, 700), "red").save(pictures / f"{number:03d}.png", compress_level=1)

    def interrupt():
        while not (pictures / "008.txt").exists():
            time.sleep(0.01)
        server.post("/interrupt", {})

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(PromptFailed, match="interrupted"):
        tag(pictures)
    thread.join()
    captions = list(pictures.glob("*.txt"))
    assert 9 <= len(captions) < 403 and {path.read_bytes() for path in captions} == {CAPTION}
    log = server.log.read_text(encoding="utf-8")
    assert "stopped: run again to go on\ntagger: wd-small/model.onnx" in log and f"written: {len(captions)}\n" in log
    for path in sorted(pictures.glob("*.png"))[40:]:
        path.unlink()
    assert f"captioned already: {min(40, len(captions))}" in tag(pictures)[0]
