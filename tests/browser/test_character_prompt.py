"""The Character Prompt in the page: what it shows around a run and a refusal, and what a new one is set to."""

from __future__ import annotations

import json

import pytest
from kit.workspace import ROOT

GRAPH = ROOT / "workflows" / "shinymas-v2.1.json"
_BOX = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasCharacterPrompt");
    const { element } = node.widgets.find((widget) => widget.name === "shinymas_said");
    const text = (name) => element.querySelector(`.shinymas-${name}`).textContent;
    return { head: text("head"), text: element.querySelector("textarea").value, notes: text("notes") };
}"""
_QUEUE = "() => app.queuePrompt(0).then(() => Object.values(app.lastNodeErrors ?? {}).flatMap((node) => node.errors))"
_NEW = """(type) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    const value = node.widgets.find((widget) => widget.name === "control_after_generate").value;
    app.graph.remove(node);
    return value;
}"""
_CLOSE = """() => {
    for (const close of document.querySelectorAll(".p-dialog-close-button")) close.click();
}"""


@pytest.fixture
def prompt_alone(front_end, tmp_path):
    """A Character Prompt and a node that shows its text."""
    graph = json.loads(GRAPH.read_text(encoding="utf-8"))
    node = next(node for node in graph["nodes"] if node["type"] == "ShinyMasCharacterPrompt")
    link = [1, node["id"], 0, 900, 0, "*"]
    for output in node["outputs"]:
        output["links"] = [1] if output["name"] == "positive" else []
    for one in node["inputs"]:
        one["link"] = None
    shown = {"id": 900, "type": "PreviewAny", "pos": [900, 100], "size": [300, 200], "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "source", "type": "*", "link": 1}], "outputs": [], "properties": {},
             "widgets_values": []}
    graph |= {"id": "5817a5c0-10fa-4000-8000-0000000000cc", "nodes": [node, shown], "links": [link], "groups": [],
              "last_node_id": 900, "last_link_id": 1}
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    front_end.drop(path)
    yield front_end
    front_end.page.evaluate(_CLOSE)


def box(front_end):
    return front_end.page.evaluate(_BOX)


def test_a_run_says_what_stood_there_and_a_refusal_too(prompt_alone):
    prompt_alone.set_widget("ShinyMasCharacterPrompt", "character", "Ikaruga Luca")
    prompt_alone.set_widget("ShinyMasCharacterPrompt", "after", "<lora:x:1>")
    prompt_alone.page.wait_for_function(f"() => ({_BOX})().text.endsWith('<lora:x:1>')")
    said = box(prompt_alone)
    assert said["text"].startswith("masterpiece, best quality, Ikaruga Luca, ")
    assert said["notes"].splitlines()[0].startswith("warning: Ikaruga Luca was learnt from 4 cards only")
    assert said["notes"].splitlines()[1].startswith("lora: '<lora:x:1>' does nothing in ComfyUI")

    (shown,) = [one["text"] for one in prompt_alone.run().values() if "notes" in one]
    assert shown == [said["text"]] and box(prompt_alone) == said

    prompt_alone.set_widget("ShinyMasCharacterPrompt", "model_version", "v1.0")
    error, = prompt_alone.page.evaluate(_QUEUE)
    assert error["details"].startswith("character - v1.0 does not know Ikaruga Luca")
    prompt_alone.page.wait_for_function(f"() => ({_BOX})().text === ''")
    refused = box(prompt_alone)
    assert error["details"] == f"character - {refused['head']}" and refused["notes"] == ""

    prompt_alone.set_widget("ShinyMasCharacterPrompt", "model_version", "v2.1")
    prompt_alone.page.wait_for_function(f"text => ({_BOX})().text === text", arg=said["text"])


@pytest.mark.parametrize(("node", "control"), [("ShinyMasCharacterPrompt", "fixed"),
                                               ("ShinyMasCharacterList", "increment")])
def test_what_a_new_node_does_after_each_run(prompt_alone, node, control):
    assert prompt_alone.page.evaluate(_NEW, node) == control


def test_a_broken_cast_is_told_when_the_lists_are_read(prompt_alone, front_end):
    folder = front_end.user / "shinymas"
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder / "bad.yaml"
    broken.write_text("version: 1\ncharacters: 5\n", encoding="utf-8")
    try:
        prompt_alone.page.evaluate("() => app.refreshComboInNodes()")
        prompt_alone.page.wait_for_function(f"text => ({_BOX})().head === text", arg=(
            "cast file left out: bad.yaml, line 2: characters: must be a list, such as [one, two]"))
    finally:
        broken.unlink()
    prompt_alone.page.evaluate("() => app.refreshComboInNodes()")
    prompt_alone.page.wait_for_function(f"() => ({_BOX})().head === ''")
