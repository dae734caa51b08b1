"""ShinyMas Scene on a real server: the shipped graph, API prompts, and what a person reads when something is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import PromptFailed
from shinymas_loha.loha import Loha, files

GRAPH = Path(__file__).resolve().parents[2] / "workflows" / "shinymas-scene.json"
SIZE = (96, 64)


def the(prompt, kind):
    (found,) = [key for key, node in prompt.items() if node["class_type"] == kind]
    return found


@pytest.fixture
def graph(object_info, checkpoint, sample_loha):
    """The shipped graph as an API prompt, small and short; widgets of the scene by keyword."""

    def make(**scene):
        prompt = convert_ui_to_api(json.loads(GRAPH.read_text(encoding="utf-8")), object_info)
        for node in prompt.values():
            node["inputs"] |= {
                "CheckpointLoaderSimple": {"ckpt_name": checkpoint}, "ShinyMasLoadLoha": {"lora_name": sample_loha},
                "EmptyLatentImage": dict(zip(("width", "height"), SIZE, strict=True)), "KSampler": {"steps": 1},
                "ShinyMasScene": scene,
            }.get(node["class_type"], {})
        return prompt

    return make


def test_the_shipped_graph_draws_and_says_what(graph, run_graph, server):
    prompt = graph()
    outputs = run_graph(prompt)
    for kind in ("SaveImage", "PreviewImage"):
        (image,) = outputs[the(prompt, kind)]["images"]
        assert struct.unpack(">II", server.picture(image)[16:24]) == SIZE
    said = outputs[the(prompt, "ShinyMasScene")]["text"][0].splitlines()
    assert said[0] == ("Kazano Hiori (0-50, 0-100): masterpiece, best quality, outdoors, blue sky, 2girls, 1girl, "
                       "Kazano Hiori, black hair, long hair, ponytail, purple eyes, mole, mole under mouth, "
                       "school uniform")
    assert said[1].startswith("Sakuragi Mano (50-100, 0-100): masterpiece, best quality, outdoors, blue sky, 2girls, ")


def test_the_other_method_and_what_no_box_covers(graph, run_graph):
    prompt = graph(method="masked conditioning", people="Hiori | 0-40\nMano | 50-100 | | 1.2", shared="sky")
    said = run_graph(prompt)[the(prompt, "ShinyMasScene")]["text"][0].splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "Kazano Hiori (0-40, 0-100)", "Sakuragi Mano (50-100, 0-100)", "elsewhere"]
    assert "(Sakuragi Mano:1.2)" in said[1] and said[2] == "elsewhere: sky, 2girls"


def test_the_names_as_the_file_has_them(graph, run_graph, base, sample_loha, node):
    """A file whose tags contradict model_version: said under both nodes, and written as the file has it."""
    loras = base / "models" / "loras"
    loha = files.read(loras / sample_loha)
    metadata = {"ss_tag_frequency": json.dumps({"1_a": {"hiori kazano": 30, "1girl": 40}})}
    files.save(Loha(loha.modules, metadata=metadata), loras / "given-first.safetensors", overwrite=True)
    prompt = graph(people="Hiori\nMano")
    prompt[the(prompt, "ShinyMasLoadLoha")]["inputs"]["lora_name"] = "given-first.safetensors"
    prompt["who"] = node("ShinyMasCharacterPrompt", character="Kazano Hiori", model_version="v2.1", tag_set="identity",
                         pick="selected", loha=[the(prompt, "ShinyMasLoadLoha"), 0])
    prompt["text"] = {"class_type": "PreviewAny", "inputs": {"source": ["who", 0]}}
    outputs = run_graph(prompt)
    note = ("note: the file's tags (ss_tag_frequency) write the names given first; model_version v2.1 would write them "
            "family first and is not followed")
    for key, names in ((the(prompt, "ShinyMasScene"), ("hiori kazano", "Mano Sakuragi")), ("who", ("hiori kazano",))):
        (said,) = outputs[key]["text"]
        assert all(name.lower() in said.lower() for name in names) and note in outputs[key]["notes"]


@pytest.mark.parametrize(("scene", "message"), [
    ({"people": "Kazano Hiory"}, "line 1: 'Kazano Hiory' is not in the cast 'shinymas'; did you mean Kazano Hiori"),
    ({"people": "Hiori | smile"}, "line 1: 'smile' is no box; write left, right"),
    ({"people": "Hiori | 50-150"}, "line 1: the box '50-150' reaches beyond the picture"),
    ({"people": "\n".join("abcdefghij")}, "people: 10 lines; a scene holds at most 6 people"),
    ({"people": "Hiori\nHiori"}, "line 2: Kazano Hiori stands in line 1 already"),
    ({"people": " \n"}, "people: nobody is in the scene; write a line for each"),
    ({"cast": "gone"}, "cast: 'gone' "),  # of a choice that is not listed newer ComfyUIs tell themselves
])
def test_what_is_wrong_is_said_once_before_anything_runs(graph, run_graph, scene, message):
    with pytest.raises(PromptFailed) as caught:
        run_graph(graph(**scene))
    (refused,) = caught.value.details["node_errors"].values()
    (error,) = refused["errors"]
    assert message in error["details"]


def test_what_comes_over_a_link_is_checked_at_the_run(graph, run_graph):
    prompt = graph()
    prompt["typed"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "Hiori | nowhere"}}
    prompt[the(prompt, "ShinyMasScene")]["inputs"]["people"] = ["typed", 0]
    with pytest.raises(PromptFailed, match="line 1: 'nowhere' is no box"):
        run_graph(prompt)
