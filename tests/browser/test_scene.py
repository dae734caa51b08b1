"""The Scene's editor in the page: rows, boxes and keys write the lines of `people`, whatever stands in them."""

from __future__ import annotations

import pytest
from kit.workspace import ROOT

GRAPH = ROOT / "workflows" / "shinymas-scene.json"
_NODE = "app.graph.nodes.find((node) => node.type === 'ShinyMasScene')"
_PEOPLE = f"() => {_NODE}.widgets.find((widget) => widget.name === 'people').value"
_CENTRE = f"() => {{ app.canvas.ds.scale = 1; app.canvas.centerOnNode({_NODE}); app.canvas.setDirty(true, true); }}"
_HEAD = f"""() => {_NODE}.widgets.find((widget) => widget.name === "shinymas_said").element
    .querySelector(".shinymas-head").textContent"""


@pytest.fixture(params=["classic", "Nodes 2.0"])
def scene(front_end, request):
    if request.param == "Nodes 2.0" and front_end.name == "pinned":
        pytest.skip("Nodes 2.0 is tried with the newest front end")
    front_end.set_setting("Comfy.Workflow.ShowMissingModelsWarning", False)
    front_end.set_setting("Comfy.VueNodes.Enabled", request.param == "Nodes 2.0")
    front_end.drop(GRAPH)
    front_end.page.evaluate(_CENTRE)
    front_end.page.locator(".shinymas-box").nth(1).wait_for()
    front_end.page.wait_for_timeout(500)  # what is drawn on the canvas follows it a frame or two later
    yield front_end
    front_end.page.keyboard.press("Escape")
    front_end.set_setting("Comfy.VueNodes.Enabled", False)


def people(front_end):
    return front_end.page.evaluate(_PEOPLE).splitlines()


def wait_for_text(front_end, text):
    front_end.page.wait_for_function(f"text => {_NODE}.shinymasAnswer.positive?.includes(text)", arg=text)


def drag(front_end, number, start, by):
    """From a point in a box, in fractions of it, by fractions of the picture."""
    box = front_end.page.locator(".shinymas-box").nth(number).bounding_box()
    stage = front_end.page.locator(".shinymas-stage").bounding_box()
    x, y = box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"]
    mouse = front_end.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + by[0] * stage["width"], y + by[1] * stage["height"], steps=4)
    mouse.up()


def test_everyone_has_a_row_a_box_and_her_text(scene):
    page = scene.page
    assert page.locator(".shinymas-box-name").all_inner_texts() == ["Kazano Hiori", "Sakuragi Mano"]
    texts = page.locator(".shinymas-person .shinymas-said-of").all_inner_texts()
    assert texts[0].startswith("40 / 75 tokens · masterpiece, best quality, outdoors, blue sky, 2girls, 1girl, Kazano")
    assert "Sakuragi Mano" in texts[1] and "Kazano" not in texts[1]
    left, right = (page.locator(".shinymas-box").nth(number).bounding_box() for number in (0, 1))
    assert abs(left["x"] + left["width"] - right["x"]) < 2 and abs(left["width"] - right["width"]) < 2


def test_a_dragged_box_is_written_and_no_other_line_changes(scene):
    drag(scene, 0, (0.5, 0.5), (0.2, 0.3))
    line, other = people(scene)
    assert line == "Kazano Hiori | 20-70 | school uniform" and other == "Sakuragi Mano | right | smile, sweater"
    wait_for_text(scene, "Kazano Hiori (20-70, 0-100)")
    drag(scene, 1, (0.99, 0.99), (-0.2, -0.4))
    assert people(scene)[1] == "Sakuragi Mano | 50-80, 0-60 | smile, sweater"
    wait_for_text(scene, "elsewhere: masterpiece, best quality, outdoors")
    drag(scene, 1, (0.5, 0.5), (-3, 3))
    assert people(scene)[1] == "Sakuragi Mano | 0-30, 40-100 | smile, sweater", "it stays in the picture"


def test_boxes_are_moved_and_resized_by_keys(scene):
    box = scene.page.locator(".shinymas-box").first
    box.focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp", "Shift+ArrowLeft"):
        scene.page.keyboard.press(key)
    assert people(scene)[0] == "Kazano Hiori | 2-51, 0-99 | school uniform"
    assert box.get_attribute("aria-label").startswith("Box of Kazano Hiori: arrows")


def test_rows_write_names_tags_and_weights(scene):
    page = scene.page
    page.locator(".shinymas-person .shinymas-button").nth(1).press("Enter")
    page.locator("dialog .shinymas-search").fill("凛世")
    page.keyboard.press("Enter")
    wait_for_text(scene, "Morino Rinze")
    assert people(scene)[1] == "Morino Rinze | right | smile, sweater"
    page.locator(".shinymas-person .shinymas-search").nth(1).fill("")
    page.locator(".shinymas-person .shinymas-weight").nth(1).fill("1.2")
    page.locator(".shinymas-person .shinymas-weight").nth(1).press("Tab")
    wait_for_text(scene, "(Morino Rinze:1.2)")
    assert people(scene)[1] == "Morino Rinze | right |  | 1.2"
    page.locator(".shinymas-editor > .shinymas-button").press("Enter")
    page.locator("dialog .shinymas-search").fill("Amana")
    page.keyboard.press("Enter")
    page.locator(".shinymas-person .shinymas-close").nth(2).wait_for()
    assert people(scene)[2] == "Osaki Amana"
    page.locator(".shinymas-person .shinymas-close").first.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.shinymas-person').length === 2")
    assert people(scene) == ["Morino Rinze | right |  | 1.2", "Osaki Amana"]


def test_a_mistake_is_told_and_the_editor_stays_of_use(scene):
    scene.set_widget("ShinyMasScene", "people", "Kazano Hiori | nowhere\n\nSakuragi Mano")
    scene.page.wait_for_function(f"() => ({_HEAD})().startsWith(\"line 1: 'nowhere' is no box\")")
    assert scene.page.locator(".shinymas-person").count() == 2
    drag(scene, 0, (0.5, 0.5), (0.1, 0))
    scene.page.wait_for_function(f"() => ({_HEAD})() === ''")
    assert people(scene)[1:] == ["", "Sakuragi Mano"] and people(scene)[0].startswith("Kazano Hiori | 10-")
    scene.set_widget("ShinyMasScene", "people", "")
    scene.page.wait_for_function(f"() => ({_HEAD})().startsWith('people: nobody is in the scene')")
    assert scene.page.locator(".shinymas-person").count() == 0
    assert scene.page.locator(".shinymas-editor > .shinymas-button").inner_text() == "+ Add a person"


def test_many_people_leave_the_button_whole(scene):
    names = ["Kazano Hiori", "Sakuragi Mano", "Hachimiya Meguru", "Morino Rinze", "Osaki Amana", "Arisugawa Natsuha"]
    scene.set_widget("ShinyMasScene", "people", "\n".join(names))
    scene.page.wait_for_function("() => document.querySelectorAll('.shinymas-person').length === 6")
    editor, add = (scene.page.locator(where).bounding_box() for where in (
        ".shinymas-editor", ".shinymas-editor > .shinymas-button"))
    scale = scene.page.evaluate("app.canvas.ds.scale")
    assert add["height"] >= 18 * scale
    assert editor["y"] <= add["y"] and add["y"] + add["height"] <= editor["y"] + editor["height"] + 1
