"""The blueprints on the canvas: found by name, put there, set and run; and dropped as files."""

from __future__ import annotations

import json

import pytest
from kit.workspace import CHECKPOINT, LOHA, ROOT

BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
SETTINGS = {"ckpt_name": CHECKPOINT, "lora_name": LOHA, "width": 64, "height": 64, "steps": 1}
OWN = {"ShinyMas Draw one": {"character": "Sakuragi Mano", "after": "smile", "strength": 0.5},
       "ShinyMas Draw two": {"people": "Kazano Hiori | left\nSakuragi Mano", "feather": 4, "strength": 0.5},
       "ShinyMas Sheet of the cast": {"names": "Kazano Hiori\nSakuragi Mano", "strengths": "0.5"}}

_BLANK = """() => {
    for (const close of document.querySelectorAll(".p-dialog-close-button")) close.click();
    return app.extensionManager.command.execute("Comfy.NewBlankWorkflow");
}"""
_NODE = "app.graph.nodes.find((node) => node.subgraph)"
_SHOWN = f"() => Object.fromEntries({_NODE}.widgets.map((widget) => [widget.name, widget.value]))"
_SET = f"""(values) => {{
    for (const widget of {_NODE}.widgets) if (widget.name in values) {{
        widget.value = values[widget.name];
        widget.callback?.(widget.value, app.canvas, {_NODE});
    }}
}}"""
_SAVE = f"""() => {{
    const save = LiteGraph.createNode("SaveImage");
    app.graph.add(save);
    {_NODE}.connect(0, save, 0);
}}"""
_PROMPT = "async () => Object.values((await app.graphToPrompt()).output)"


def inside(path):
    (subgraph,) = json.loads(path.read_text(encoding="ascii"))["definitions"]["subgraphs"]
    return subgraph


def values_inside(path):
    """What each widget that is shown outside says in the file."""
    subgraph = inside(path)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    links = {link["id"]: link for link in subgraph["links"]}
    found = {}
    for shown in subgraph["inputs"]:
        link = links[shown["linkIds"][0]]
        node = nodes[link["target_id"]]
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        widget = node["inputs"][link["target_slot"]]["name"]
        place = widgets.index(widget)
        # The control below a seed counts as one more.
        place += "seed" in widgets[:place] or "index" in widgets[:place]
        found[shown["name"]] = node["widgets_values"][place]
    return found


@pytest.fixture
def quiet(front_end):
    """No dialog about the files that a test machine does not have: it would take the clicks."""
    front_end.set_setting("Comfy.Workflow.ShowMissingModelsWarning", False)
    yield front_end
    front_end.set_setting("Comfy.Workflow.ShowMissingModelsWarning", True)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_dropped_it_shows_what_the_file_says(quiet, path):
    quiet.drop(path)
    assert quiet.page.evaluate(_SHOWN) == values_inside(path)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_found_by_its_name_it_is_put_on_the_canvas_and_draws(quiet, path):
    page = quiet.page
    page.evaluate(_BLANK)
    page.wait_for_function("() => !app.graph.nodes.length")
    # As a double click does: on a busy machine two clicks are too far apart.
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.locator("input:focus").fill(path.stem)
    page.locator("li, [role=option], [id^=result-item]").filter(has_text=path.stem).first.click()
    page.wait_for_function(f"() => {_NODE}?.widgets?.length")
    page.mouse.click(200, 700)  # newer front ends hold the node at the pointer
    page.evaluate(_SET, SETTINGS | OWN[path.stem])
    page.evaluate(_SAVE)
    sent = {node["class_type"]: node["inputs"] for node in page.evaluate(_PROMPT)}
    for name, value in (SETTINGS | OWN[path.stem]).items():
        wanted = ("strength_model", "strength_clip") if name == "strength" else (name,)
        kinds = [inputs for inputs in sent.values() if wanted[0] in inputs]
        assert kinds and all(value in [inputs[one] for inputs in kinds] for one in wanted), name
    shown = quiet.run()
    assert [image for output in shown.values() for image in output.get("images", ()) if image["type"] == "output"]
