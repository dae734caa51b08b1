"""The shipped graphs dropped on the canvas: whole, and run from there to a picture."""

from __future__ import annotations

import json
from itertools import combinations

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


# Between, the control below a seed has a `disabled` that nobody may set, and no graph with one could be opened.
@pytest.mark.parametrize("front_end", ["pinned", "between", "newest"], indirect=True)
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
    assert _links(there) == _links(shipped)


_SIZES = "() => Object.fromEntries(app.graph.nodes.map((node) => [node.id, [...node.size]]))"


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_no_node_outgrows_the_place_it_was_given(front_end, path):
    """A node takes the height that it needs: it would hang out of its group, over what lies below."""
    front_end.drop(path)
    front_end.page.wait_for_timeout(300)
    sizes = front_end.page.evaluate(_SIZES)
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
        if not node["flags"].get("collapsed"):
            assert sizes[str(node["id"])][1] <= node["size"][1] + 1, node["type"]


def _links(graph):
    """By the names of the inputs: the page gives every widget a socket, which shifts the others."""
    names = {node["id"]: [slot["name"] for slot in node.get("inputs", ())] for node in graph["nodes"]}
    return sorted((*link[:4], names[link[3]][link[4]], link[5]) for link in graph["links"])


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


# Each node's box in Nodes 2.0, in pixels; the notes' text against their own ground.
_BOXES = """() => [...document.querySelectorAll("[data-node-id]")].map((element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return [app.graph.getNodeById(element.dataset.nodeId).title, [left, top, right, bottom]];
})"""
_NOTES = """() => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    const light = (colours) => {
        for (const colour of colours) {
            pen.fillStyle = colour;
            pen.fillRect(0, 0, 1, 1);
        }
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255).map(
            (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return [...document.querySelectorAll("[data-node-id] p, [data-node-id] p code, [data-node-id] p a")].map((text) => {
        const grounds = [];
        for (let at = text; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
        const ground = light(grounds);
        const [more, less] = [light([...grounds, getComputedStyle(text).color]), ground].sort((a, b) => b - a);
        return [text.textContent, (more + 0.05) / (less + 0.05)];
    });
}"""
_CANVAS = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset]"
_SMALLEST = 0.58  # below it the canvas draws no text, at its standard settings


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [(1600, 900), (1366, 768)], ids=lambda size: str(size[0]))
def test_the_first_view_is_whole_and_readable(front_end, path, size):
    """As dropped, and as fitted into the window, which is what a template gets."""
    before = front_end.page.viewport_size
    front_end.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    try:
        front_end.drop(path)
        scale, left, top = front_end.page.evaluate(_CANVAS)
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        wide = max(node["pos"][0] + node["size"][0] for node in nodes)
        high = max(node["pos"][1] + node["size"][1] for node in nodes)
        assert scale >= _SMALLEST and left >= 0 and top >= 30
        assert (wide + left) * scale <= size[0] and (high + top) * scale <= size[1]
        assert 0.75 * size[0] / wide >= _SMALLEST and 0.75 * (size[1] - 60) / high >= _SMALLEST
    finally:
        front_end.page.set_viewport_size(before)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_nothing_overlaps_in_nodes_2_0_and_notes_have_contrast(front_end, path):
    """With the marks for the missing files, which make nodes taller."""
    if front_end.name == "pinned":
        pytest.skip("Nodes 2.0 is tried with the newest front end")
    front_end.set_setting("Comfy.VueNodes.Enabled", True)
    try:
        front_end.drop(path)
        front_end.page.locator("[data-node-id] p").nth(10).wait_for(state="attached")
        front_end.page.wait_for_timeout(500)  # the nodes take their sizes
        boxes = front_end.page.evaluate(_BOXES)
        assert len(boxes) > 10
        for (one, a), (other, b) in combinations(boxes, 2):
            apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
            assert apart, (one, other)
        for text, contrast in front_end.page.evaluate(_NOTES):
            assert contrast >= 4.5, text
    finally:
        front_end.set_setting("Comfy.VueNodes.Enabled", False)


_LABELS = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasCharacterPrompt");
    const said = [];
    const pen = { save() {}, restore() {}, fillText: (text, x, y) => said.push([text, y]) };
    node.onDrawForeground(pen);
    return [said, ["before", "after"].map((name) => {
        const widget = node.widgets.find((widget) => widget.name === name);
        return [name, widget.y, widget.y + widget.margin];
    })];
}"""


def test_a_filled_box_of_text_has_its_name_above_it(front_end):
    """On the canvas, which names a box only while it is empty."""
    front_end.drop(ROOT / "workflows" / "shinymas-v2.1.json")
    said, places = front_end.page.evaluate(_LABELS)
    assert [text for text, _ in said] == [name for name, *_ in places]
    for (_, foot), (_, top, box) in zip(said, places, strict=True):
        assert top < foot - 8 and foot < box


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
