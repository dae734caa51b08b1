"""Tag Statistics in a real server: counted, written as a cast that the Character Prompt draws, refused in words."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from kit.comfyui_server import PromptFailed
from PIL import Image
from safetensors.numpy import save_file
from shinymas_loha.characters import EMBEDDED, read

CAST = read(EMBEDDED, "shinymas")
TAGS = {"10_Arai Yume": ["arai yume, brown hair, long hair, glasses, breasts, smile"] * 4,
        "10_Baba Sora": ["black hair, short hair, smile"] * 2}


@pytest.fixture
def folder(server):
    """Captioned pictures in ComfyUI's input folder, a name of their own for each test: its name there."""
    def make(name, captions=TAGS):
        for label, texts in captions.items():
            place = server.base / "input" / name / label
            place.mkdir(parents=True, exist_ok=True)
            for number, text in enumerate(texts):
                (place / f"{number}.txt").write_text(text, encoding="utf-8")
                Image.new("RGB", (64, 64)).save(place / f"{number}.png")
        return name

    return make


@pytest.fixture
def graph(node):
    def make(**inputs):
        prompt = {"statistics": node("ShinyMasTagStatistics", **{"told_apart_by": "folder"} | inputs),
                  "chart": node("SaveImage", images=["statistics", 2])}
        return prompt | {name: node("PreviewAny", source=["statistics", output]) for output, name in (
            (0, "yaml"), (1, "table"), (3, "report"), (4, "balance"))}

    return make


def said(outputs, name):
    return outputs[name]["text"][0]


def test_captions_become_a_cast_that_the_prompt_node_draws(server, run_graph, graph, node, folder):
    outputs = run_graph(graph(folder=folder("counted"), write_cast="counted", write_dataset="balanced"))
    assert said(outputs, "table") == (
        "Arai Yume,\nbreasts, brown hair, glasses, long hair, smile\n\nBaba Sora,\nblack hair, short hair, smile\n\n"
        "Data distribution:\n   character  cards\n1  Arai Yume      4\n2  Baba Sora      2")
    report = said(outputs, "report").splitlines()
    assert report[0].startswith("cast: ") and report[0].endswith("counted.yaml; press R in ComfyUI, then it is in the "
                                                                 "lists")
    assert report[1].endswith("balanced.toml; folders with other repeats: 1, none renamed")
    assert report[2].endswith("10_Baba Sora: 10 → 20")
    assert "Arai Yume, identity: brown hair, long hair, glasses" in report
    assert "Baba Sora: 2 × 20 = 40, before 20" in said(outputs, "balance")
    assert (server.base / "user" / "shinymas" / "counted.yaml").read_text(encoding="utf-8") == said(outputs, "yaml")
    assert said(outputs, "statistics") == f"{said(outputs, 'report')}\n{said(outputs, 'balance')}"
    chart = Image.open(io.BytesIO(server.picture(outputs["chart"]["images"][0])))
    assert len(np.unique(np.asarray(chart).reshape(-1, 3), axis=0)) > 4

    prompt = node("ShinyMasCharacterPrompt", character="Arai Yume", cast="counted", before="", model_version="v2.1",
                  tag_set="identity", pick="selected")
    shown = run_graph({"prompt": prompt, "said": node("PreviewAny", source=["prompt", 0])})
    assert said(shown, "said") == "Arai Yume, brown hair, long hair, glasses"
    prompt["inputs"]["tag_set"] = "top"
    shown = run_graph({"prompt": prompt, "said": node("PreviewAny", source=["prompt", 0])})
    assert said(shown, "said") == "Arai Yume, brown hair, glasses, long hair, smile"

    data = node("ShinyMasTrainingData", dataset=str(server.base / "input" / "counted" / "balanced.toml"))
    info = run_graph({"data": data, "said": node("PreviewAny", source=["data", 1])})
    assert "pictures: 6" in said(info, "said")


def test_nothing_is_written_over(server, run_graph, graph, folder):
    name = folder("kept")
    inputs = {"folder": name, "write_cast": "kept", "write_dataset": "kept"}
    run_graph(graph(**inputs))
    cast, dataset = server.base / "user" / "shinymas" / "kept.yaml", server.base / "input" / name / "kept.toml"
    before = cast.read_bytes(), dataset.read_bytes()
    # As counted before, by a graph that runs again.
    report = said(run_graph(graph(**inputs, top_n=19)), "report").splitlines()
    assert report[0] == f"cast: {cast} is as counted"
    folder("kept", {"10_Baba Sora": ["black hair"] * 9})
    report = said(run_graph(graph(**inputs)), "report").splitlines()
    assert report[:2] == [
        "cast: not written: kept.yaml: exists already and is not replaced; choose another name.",
        "dataset: not written: kept.toml: exists already and is not replaced; choose another name."]
    assert (cast.read_bytes(), dataset.read_bytes()) == before
    (cast.parent / "other.yml").write_bytes(cast.read_bytes())
    report = said(run_graph(graph(folder=name, write_cast="other")), "report")
    assert report.startswith("cast: not written: other.yml: exists already and is this cast; choose another name.")
    (cast.parent / "other.yml").unlink()


def test_changed_captions_are_counted_anew(run_graph, graph, folder):
    name = folder("changing")
    assert "captions: 6" in said(run_graph(graph(folder=name)), "report")
    folder("changing", {"10_Baba Sora": ["black hair"] * 3})
    assert "captions: 7" in said(run_graph(graph(folder=name)), "report")


def test_names_of_the_casts_among_the_tags(run_graph, graph, folder):
    name = folder("named", {"all": ["kazano hiori, mole", "Hiori Kazano, 1girl", "sakuragi_mano, smile", "tree"]})
    outputs = run_graph(graph(folder=name, told_apart_by="name in tags", write_dataset="named"))
    assert said(outputs, "table").endswith("1   Kazano Hiori      2\n2  Sakuragi Mano      1")
    assert "all holds pictures of 2 characters, and repeats are a folder's: give each" in said(outputs, "report")
    typed = run_graph(graph(folder=name, told_apart_by="name in tags", names="Tree"))
    assert said(typed, "table").startswith("Tree,\n\nData distribution:")


def test_a_lohas_own_counts(server, run_graph, graph, node, folder, sample_loha):
    from safetensors import safe_open

    path = server.base / "models" / "loras" / "counted-tags.safetensors"
    with safe_open(server.base / "models" / "loras" / sample_loha, "np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    frequency = {"1_Kazano Hiori": {"mole": 40, "purple eyes": 30}, "13_Ikaruga Luca": {"yellow eyes": 4}}
    save_file(tensors, path, {"ss_tag_frequency": json.dumps(frequency)})
    loha = {"loha": node("ShinyMasLoadLoha", lora_name="counted-tags.safetensors")}
    outputs = run_graph(loha | graph(loha=["loha", 0], folder="somewhere", write_dataset="x"))
    assert said(outputs, "table").startswith("Kazano Hiori,\nmole, purple eyes\n\nIkaruga Luca,\nyellow eyes\n\n")
    report = said(outputs, "report")
    assert "dataset: not written: a LoHa does not say where its pictures are; give the folder instead" in report
    assert "note: the folder is not looked into: a LoHa is connected" in report
    with pytest.raises(PromptFailed, match="does not say which tag came first"):
        run_graph(loha | graph(loha=["loha", 0], told_apart_by="first tag"))
    path.unlink()


@pytest.mark.parametrize(("inputs", "text"), [
    ({}, "folder: empty. Give the folder that holds the captions, or connect a LoHa"),
    ({"folder": "nowhere"}, "nowhere: no such folder"),
    ({"folder": "counted", "write_cast": "../x"}, "it leads out of its folder"),
    ({"folder": "counted", "write_cast": "a/b"}, "take the folder out of the name"),
    ({"folder": "counted", "write_dataset": "a/b"}, "the file lies beside the captions; take the folder out"),
    ({"folder": "counted", "write_dataset": "/x"}, "it is absolute"),
])
def test_a_mistake_is_a_sentence(run_graph, graph, inputs, text):
    with pytest.raises(PromptFailed) as refused:
        run_graph(graph(**inputs))
    assert text in json.dumps(refused.value.details) + str(refused.value)


def test_a_cancelled_count_ends(server, graph):
    many = server.base / "input" / "many"
    many.mkdir()
    for number in range(20_000):
        (many / f"{number}.txt").write_text("smile")
    prompt_id = server.queue(graph(folder="many"))
    ended = {}
    while not ended:
        server.post("/interrupt", {})
        time.sleep(0.1)
        ended = server.get(f"/history/{prompt_id}")
    assert "execution_interrupted" in dict(ended[prompt_id]["status"]["messages"])
