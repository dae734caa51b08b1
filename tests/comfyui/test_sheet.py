"""Character List and Sheet in a real server: lists that run one by one, a sheet that grows, thumbnails."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import PromptFailed
from PIL import Image

GRAPH = Path(__file__).resolve().parents[2] / "workflows" / "shinymas-sheet.json"

CHOICES = {"unit": "every unit", "model_version": "v2.1", "tag_set": "identity", "label_script": "kanji",
           "run": "whole cast"}


@pytest.fixture
def graph(node, checkpoint, sample_loha):
    """The cast on a sheet: one step of 64 × 64 pixels for each picture."""

    def make(listed, sheet):
        return {
            "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "loha": node("ShinyMasLoadLoha", lora_name=sample_loha),
            "list": node("ShinyMasCharacterList", **CHOICES | listed),
            "apply": node("ShinyMasApplyLoha", model=["checkpoint", 0], clip=["checkpoint", 1], loha=["loha", 0],
                          strength_model=["list", 4], strength_clip=["list", 4]),
            "text": node("CLIPTextEncode", clip=["apply", 1], text=["list", 0]),
            "latent": node("EmptyLatentImage", width=64, height=64),
            "sampler": node("KSampler", model=["apply", 0], positive=["text", 0], negative=["text", 0], seed=1,
                            latent_image=["latent", 0], steps=1, sampler_name="euler", scheduler="normal"),
            "decode": node("VAEDecode", samples=["sampler", 0], vae=["checkpoint", 2]),
            "sheet": node("ShinyMasSheet", images=["decode", 0], labels=["list", 2], title=["list", 5],
                          characters=["list", 1], **sheet),
            "save": node("SaveImage", images=["sheet", 0]),
        }

    return make


def _picture(server, outputs):
    return np.asarray(Image.open(io.BytesIO(server.picture(outputs["save"]["images"][0]))).convert("RGB"))


def test_the_shipped_graph_draws_the_whole_cast(run_graph, server, object_info, checkpoint, sample_loha):
    """As it is but for the files, the size and the number of steps."""
    shipped = json.loads(GRAPH.read_text(encoding="utf-8"))
    prompt = convert_ui_to_api(shipped, object_info)
    for node in prompt.values():
        node["inputs"] |= {
            "CheckpointLoaderSimple": {"ckpt_name": checkpoint}, "ShinyMasLoadLoha": {"lora_name": sample_loha},
            "EmptyLatentImage": {"width": 16, "height": 24}, "KSampler": {"steps": 1},
        }.get(node["class_type"], {})
    said = {prompt[key]["class_type"]: output for key, output in run_graph(prompt).items()}
    assert said["ShinyMasCharacterList"]["text"][0].splitlines()[0] == "26 characters, 26 pictures"
    assert said["ShinyMasSheet"]["text"] == ["pictures: 26"]
    sheet = Image.open(io.BytesIO(server.picture(said["SaveImage"]["images"][0])))
    assert sheet.width > 4 * 171 and sheet.height > 4 * 256
    # A new run draws the same noise, and whose turn it would be goes on by one at most: never at random.
    controls = [node["widgets_values"][slot] for node in shipped["nodes"] for kind, slot in (
        ("KSampler", 1), ("ShinyMasCharacterList", 14)) if node["type"] == kind]
    assert sorted(controls) == ["fixed", "increment"]


def test_a_unit_at_strengths(graph, run_graph, server):
    outputs = run_graph(graph({"unit": "SHHis", "strengths": "none, 1"}, {"cell_size": 0}))
    assert outputs["sheet"]["text"][0].splitlines()[0] == "pictures: 4"
    assert outputs["list"]["text"][0].splitlines()[0] == "2 characters, 4 pictures"
    sheet = _picture(server, outputs)
    assert sheet.shape[1] > 2 * 64 and sheet.shape[0] > 2 * 64


def test_files_by_strength(graph, run_graph, server, sample_loha):
    """As for the epochs of a training run."""
    source = (server.base / "models" / "loras" / sample_loha).resolve()
    for epoch in (2, 10):
        (server.base / "models" / "loras" / f"epochs-{epoch}.safetensors").symlink_to(source)
    prompt = graph({"names": "Mano", "strengths": "0.5, 1", "lora_files": "epochs-*"}, {})
    prompt["loha"]["inputs"]["lora_name"] = ["list", 6]
    outputs = run_graph(prompt)
    assert outputs["sheet"]["text"] == ["pictures: 4"]


def test_a_file_that_came_is_drawn_at_the_next_run(node, run_graph, server, sample_loha):
    """An epoch that was trained meanwhile: the node kept the files that it had found before."""
    folder = server.base / "models" / "loras"
    nodes = {"list": node("ShinyMasCharacterList", **CHOICES | {"names": "Mano", "lora_files": "later-*"}),
             "said": node("PreviewAny", source=["list", 6])}
    for epoch in (1, 2):
        (folder / f"later-{epoch}.safetensors").symlink_to((folder / sample_loha).resolve())
        assert f"later-{epoch}.safetensors" in str(run_graph(nodes)["said"]["text"])


def test_one_idol_a_run_fills_the_sheet(graph, run_graph, server):
    """In any order, and after a cancelled batch: what was drawn is there."""
    sizes = []
    for number, index in enumerate((1, 0, 1)):
        outputs = run_graph(graph({"unit": "SHHis", "run": "one idol a run", "index": index},
                                  {"keep_in": "sheets/growing"}))
        kept = min(number + 1, 2)
        said = outputs["sheet"]["text"][0].splitlines()
        assert said[0] == f"pictures: {kept}" and said[1].startswith(f"kept: {kept} pictures in ")
        sizes.append(_picture(server, outputs).shape)
    assert sizes[1] == sizes[2] != sizes[0]
    assert len(list((server.base / "output" / "sheets" / "growing").glob("*.png"))) == 2
    # Of another model version: another title, and its pictures are not mixed in.
    outputs = run_graph(graph({"unit": "SHHis", "model_version": "v2.0"}, {"keep_in": "sheets/growing"}))
    assert outputs["sheet"]["text"][0].splitlines()[-1] == (
        "note: 2 pictures there are under another title and not shown")


def test_an_index_that_chooses_nobody_makes_nothing_run_again(graph, run_graph, server):
    run_graph(graph({"names": "Mikoto", "index": 1}, {}))
    run_graph(graph({"names": "Mikoto", "index": 2}, {}))
    (run,) = server.get("/history?max_items=1").values()
    assert "sampler" in dict(run["status"]["messages"])["execution_cached"]["nodes"]


def test_thumbnails_are_where_the_browser_finds_them(graph, run_graph, server):
    run_graph(graph({"names": "Mikoto\nNichika", "strengths": "none, 1"}, {"write_thumbnails": True}))
    for name in ("Aketa Mikoto", "Nanakusa Nichika"):
        address = f"shinymas/thumbnails/shinymas/{name}.webp".replace("/", "%2F").replace(" ", "%20")
        assert Image.open(io.BytesIO(server.get_bytes(f"/userdata/{address}"))).size == (192, 192)


@pytest.mark.parametrize(("listed", "sheet", "text"), [
    ({"names": "Hiory"}, {}, "did you mean Kazano Hiori"),
    ({"unit": "favourites"}, {}, "mark some in the character picker"),
    ({"strengths": "strong"}, {}, "'strong' is no number"),
    ({}, {"keep_in": "../elsewhere"}, "it leads out of its folder"),
    ({}, {"keep_in": "/tmp/x"}, "it is absolute"),
])
def test_a_mistake_is_a_sentence(graph, run_graph, listed, sheet, text):
    with pytest.raises(PromptFailed) as refused:
        run_graph(graph(listed, sheet))
    assert text in json.dumps(refused.value.details)


def test_labels_and_pictures_that_do_not_go_together(graph, run_graph):
    prompt = graph({"unit": "SHHis"}, {})
    prompt["sheet"]["inputs"]["labels"] = "one label"
    with pytest.raises(PromptFailed, match="2 pictures and 1 labels: each picture needs its own"):
        run_graph(prompt)
