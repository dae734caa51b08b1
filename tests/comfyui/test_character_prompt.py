"""The Character Prompt on a real server: what it refuses, and how often; casts of a person's own; the seed."""

from __future__ import annotations

import json

import pytest
from kit.comfyui_server import PromptFailed
from safetensors.torch import load_file, save_file

HANAKO = """version: 1
models:
  hanako-v1: {trigger: "{name}"}
characters:
  - name: Hanako
    unit: Green
    cards: 30
    tags: [1girl, solo, green hair]
"""


@pytest.fixture
def casts(base):
    """Cast files of a person: a good one, two broken ones."""
    folder = base / "user" / "shinymas"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"mine.yaml": HANAKO, "mine.yml": HANAKO, "bad.yaml": "version: 1\ncharacters: 5\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    yield folder
    for name in files:
        (folder / name).unlink(missing_ok=True)


@pytest.fixture
def graph(node):
    """A Character Prompt and two nodes after it."""

    def make(**inputs):
        settings = {"character": "Kazano Hiori", "model_version": "v2.1", "tag_set": "identity", "pick": "selected"}
        return {"who": node("ShinyMasCharacterPrompt", **(settings | inputs)),
                "shown": {"class_type": "PreviewAny", "inputs": {"source": ["who", 0]}},
                "name": {"class_type": "PreviewAny", "inputs": {"source": ["who", 2]}}}

    return make


BROKEN = ["cast file left out: bad.yaml, line 2: characters: must be a list, such as [one, two]",
          "cast file left out: mine.yml: mine.yaml is the cast 'mine' already; rename one"]


@pytest.mark.parametrize(
    ("inputs", "widget", "message"),
    [
        ({"character": "Nobody"}, "character",
         "character - 'Nobody' is not in the cast 'shinymas'; see the list of the node"),
        ({"character": "Kazano Hiory"}, "character", "did you mean Kazano Hiori"),
        ({"character": "Ikaruga Luca", "model_version": "v1.0"}, "character",
         "character - v1.0 does not know Ikaruga Luca: v1.0 was trained on 594 Produce cards of 25 characters, none of "
         "them hers. Choose another model version or another character"),
        ({"cast": "gone"}, "cast", "cast: 'gone' "),
        ({"cast": "gone", "character": "Nobody"}, "cast", "cast: 'gone' "),
        ({"cast": "gone", "pick": "random"}, "cast", "cast: 'gone' "),
        ({"model_version": "v9"}, "model_version", "model_version: 'v9' "),
        ({"pick": "all"}, "pick", "pick: 'all' "),
        ({"tag_set": "best"}, "tag_set", "tag_set: 'best' "),
        ({"max_tags": -1}, "max_tags", "max_tags"),
    ],
)
def test_a_mistake_is_told_once_at_its_widget(run_graph, graph, inputs, widget, message):
    with pytest.raises(PromptFailed) as refused:
        run_graph(graph(**inputs))
    (where, told), = refused.value.details["node_errors"].items()
    error, = told["errors"]
    assert where == "who"
    # ComfyUI 0.3.75 holds no choice of such nodes against its list: it is told beside the character there.
    assert error["extra_info"]["input_name"] in (widget, "character")
    assert message in error["details"]


@pytest.mark.usefixtures("casts")
def test_a_broken_cast_that_is_asked_for_says_why(run_graph, graph):
    # Newer ComfyUI refuses it by its list; the reason is what the node says of its lists then, see below.
    with pytest.raises(PromptFailed, match="(?s)'bad' (not in|.*bad.yaml, line 2: characters: must be a list)"):
        run_graph(graph(cast="bad"))


def test_notes_stand_apart_from_the_text(run_graph, graph):
    said = run_graph(graph(character="ルカ", after="<lora:x:1>, (hat:1.2), (hat:0.8)"))["who"]
    (text,) = said["text"]
    assert text.startswith("masterpiece, best quality, Ikaruga Luca, ") and text.endswith("<lora:x:1>, (hat:0.8)")
    assert said["notes"] == [
        "warning: Ikaruga Luca was learnt from 4 cards only; expect a poor likeness",
        "twice: 'hat' is typed with the weights 1.2 and 0.8; the last counts",
        "lora: '<lora:x:1>' does nothing in ComfyUI; load that file with a node, such as Load LoHa",
    ]


def test_a_unit_finds_its_first_and_that_is_noted(run_graph, graph):
    outputs = run_graph(graph(character="SHHis"))
    assert outputs["name"]["text"] == ["Nanakusa Nichika"]
    assert outputs["who"]["notes"] == [
        "character: 'SHHis' is Nanakusa Nichika, Aketa Mikoto; the first of them stands in the prompt"]


@pytest.mark.usefixtures("casts")
def test_a_character_brings_her_cast_and_her_version(run_graph, graph):
    said = run_graph(graph(character="Hanako", model_version="hanako-v1", before=""))["who"]
    assert said["text"] == ["Hanako, green hair, 1girl, solo"] or said["text"] == ["Hanako, 1girl, solo, green hair"]
    assert said["notes"] == ["cast: Hanako is from the cast 'mine', which is used"]
    assert said["problems"] == BROKEN
    # The other way round too.
    said = run_graph(graph(character="Mano", cast="mine", before=""))["who"]
    assert said["text"][0].startswith("Sakuragi Mano, brown hair")
    # In a picture with another, and by chance.
    both = graph(character="Hanako", cast="mine", model_version="hanako-v1", pick="random", before="")
    both["first"] = graph(character="Sakuragi Mano", before="")["who"]
    both["who"]["inputs"]["previous"] = ["first", 0]
    assert ", 2girls, Hanako, green hair" in run_graph(both)["who"]["text"][0]


@pytest.mark.usefixtures("casts")
def test_the_lists_offer_what_casts_bring_and_tell_of_broken_ones(server):
    inputs = server.get("/object_info/ShinyMasCharacterPrompt")["ShinyMasCharacterPrompt"]["input"]
    versions, *_ = inputs["required"]["model_version"]
    offered = versions if isinstance(versions, list) else inputs["required"]["model_version"][1]["options"]
    assert offered == ["v2.1", "v2.0", "v1.0", "hanako-v1"]
    assert server.get("/shinymas/casts")["problems"] == BROKEN


def ran(server, run_graph, prompt):
    """The nodes that a run did not take from an earlier one."""
    run_graph(prompt)
    (run,) = server.get("/history?max_items=1").values()
    cached = dict(run["status"]["messages"])["execution_cached"]["nodes"]
    return set(prompt) - set(cached)


def test_a_seed_that_chooses_nobody_makes_nothing_run_again(server, run_graph, graph):
    assert ran(server, run_graph, graph(seed=1, after="first seed")) == {"who", "shown", "name"}
    assert ran(server, run_graph, graph(seed=2**40, after="first seed")) == set()
    assert ran(server, run_graph, graph(seed=1, after="first seed", pick="random")) == {"who", "shown", "name"}
    assert ran(server, run_graph, graph(seed=2, after="first seed", pick="random")) == {"who", "shown", "name"}


@pytest.mark.parametrize("sent", [[], {"prompt": None}, {"prompt": {"1": None}}, {"prompt": {"1": {"class_type": 5}}}, {
    "prompt": {"1": {"class_type": "ShinyMasCharacterPrompt", "inputs": []}}}])
def test_a_malformed_prompt_is_comfyuis_to_refuse(server, sent):
    with pytest.raises(OSError, match="HTTP Error (400|500)"):
        server.post("/prompt", sent)
    assert "on_prompt_handler" not in server.log_tail().splitlines()[-1]


@pytest.mark.parametrize(
    ("cast", "reason"),
    [
        (None, "this LoHa carries no cast; only files trained by Train LoHa do"),
        ({"version": 1, "characters": []}, "its pictures name nobody. A character is a folder called N_name, such as "
         "10_Kazano Hiori, or the first tag of each caption where keep_tokens is 1 or more"),
        ({"version": 1, "characters": [{"name": "a, b", "tags": ["c"]}]},
         "line 3: characters[0].name: holds a comma, which would make two tags of it"),
        ({"version": 1}, "shinymas_cast in the LoHa's metadata is not what Train LoHa writes"),
        ("\\ud800", "shinymas_cast in the LoHa's metadata is not what Train LoHa writes"),
    ],
)
def test_a_cast_that_cannot_be_written_loses_no_loha(run_graph, node, base, sample_loha, request, cast, reason):
    loras = base / "models" / "loras"
    name = f"cast {request.node.callspec.indices['cast']}"
    tensors = load_file(loras / sample_loha)
    save_file(tensors, loras / f"source {name}.safetensors", {"shinymas_cast": json.dumps(cast)} if cast else None)
    outputs = run_graph({"loha": node("ShinyMasLoadLoha", lora_name=f"source {name}.safetensors"),
                         "save": node("ShinyMasSaveLoha", loha=["loha", 0], name=name, write_cast=True)})
    (said,) = outputs["save"]["text"]
    assert load_file(loras / f"{name}.safetensors").keys() == tensors.keys()
    assert [line for line in said.splitlines() if line.startswith("cast: not written: ")][0].endswith(reason)
    assert not list((base / "user").glob("shinymas/cast*"))
