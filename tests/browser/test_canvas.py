"""The shipped graphs dropped on the canvas: whole, and run from there to a picture."""

from __future__ import annotations

import json

import pytest
from kit.workspace import CHECKPOINT, LOHA, ROOT

GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
# The same graph with what a test machine has, as a person would set it in the nodes.
SETTINGS = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT, ("ShinyMasLoadLoha", "lora_name"): LOHA,
    ("EmptyLatentImage", "width"): 64, ("EmptyLatentImage", "height"): 64, ("KSampler", "steps"): 2,
}
_DIALOGS = """() => [...document.querySelectorAll("[role=dialog], .p-dialog")].map(
    (dialog) => dialog.innerText).join("\\n")"""
_UNKNOWN = """() => app.graph.nodes.map((node) => node.type).filter(
    (type) => !(type in LiteGraph.registered_node_types))"""
_SAID = """() => app.graph.nodes.find((node) => node.type === "ShinyMasCharacterPrompt")
    .widgets.find((widget) => widget.name === "shinymas_said").value"""


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_a_dropped_graph_is_whole(front_end, path):
    front_end.drop(path)
    shipped, there = json.loads(path.read_text(encoding="utf-8")), front_end.graph()
    assert "issing node" not in front_end.page.evaluate(_DIALOGS).replace("Missing Node", "Missing node")
    assert front_end.page.evaluate(_UNKNOWN) == []
    nodes = {node["id"]: node for node in there["nodes"]}
    assert {node["id"]: node["type"] for node in shipped["nodes"]} == {key: nodes[key]["type"] for key in nodes}
    for node in shipped["nodes"]:
        assert nodes[node["id"]].get("widgets_values", []) == node["widgets_values"], node["type"]
    assert sorted(map(tuple, there["links"])) == sorted(map(tuple, shipped["links"]))


def test_a_missing_node_would_be_noticed(front_end, tmp_path):
    """What the test above finds nothing with does find something: newer front ends show no dialog."""
    graph = json.loads(GRAPHS[0].read_text(encoding="utf-8"))
    graph["id"] = "5817a5c0-10fa-4000-8000-00000000ffff"
    graph["nodes"][0]["type"] = "ShinyMasNoSuchNode"
    path = tmp_path / "unknown.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    front_end.drop(path)
    assert front_end.page.evaluate(_UNKNOWN) == ["ShinyMasNoSuchNode"]
    if front_end.name == "pinned":
        dialog = front_end.page.get_by_role("dialog").filter(has_text="missing nodes")
        dialog.wait_for(state="visible")
        dialog.locator(".p-dialog-close-button").click()
        dialog.wait_for(state="hidden")


def test_run_from_the_page_gives_a_picture_and_says_the_prompt(front_end):
    front_end.drop(ROOT / "workflows" / "shinymas-v2.1.json")
    for (kind, name), value in SETTINGS.items():
        front_end.set_widget(kind, name, value)
    shown = front_end.run()
    (image,) = [image for output in shown.values() for image in output.get("images", ())]
    size = front_end.page.evaluate("""(image) => new Promise((resolve, reject) => {
        const picture = new Image();
        picture.onload = () => resolve([picture.naturalWidth, picture.naturalHeight]);
        picture.onerror = () => reject(new Error("the picture does not load"));
        picture.src = app.api.apiURL("/view?" + new URLSearchParams(image));
    })""", image)
    assert size == [64, 64]
    assert front_end.page.evaluate(_SAID).startswith("masterpiece, best quality, Kazano Hiori, black hair")
    assert "shinymas_said" not in json.dumps(front_end.graph())


def test_the_view_is_of_use_in_nodes_2_0(front_end):
    """Nodes drawn by Vue: the view of the last run is there and large enough to read."""
    if front_end.name == "pinned":
        pytest.skip("Nodes 2.0 is tried with the newest front end")
    front_end.set_setting("Comfy.VueNodes.Enabled", True)
    try:
        front_end.drop(ROOT / "workflows" / "shinymas-v2.1.json")
        view = front_end.page.locator("textarea.shinymas-said").first
        view.wait_for(state="visible")
        scale = front_end.page.evaluate("app.canvas.ds.scale")
        box = view.bounding_box()
        assert box["width"] / scale > 150 and box["height"] / scale > 50
    finally:
        front_end.set_setting("Comfy.VueNodes.Enabled", False)
