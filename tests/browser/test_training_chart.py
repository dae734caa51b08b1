"""The live loss chart of Train LoHa, and what the training nodes said, on a run from the page."""

from __future__ import annotations

import json

import pytest
from kit.workspace import CHECKPOINT, ROOT

GRAPH = ROOT / "workflows" / "train-shinymas-v2.0.json"
_CONFIG = """network_dim = 2
max_train_epochs = 3
max_token_length = 75
save_every_n_epochs = 0
output_name = "chart"
"""
_UPLOAD = """async () => {
    for (const [name, colour] of [["1.png", "#144384"], ["2.png", "#ffbad6"]]) {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [64, 64];
        const pen = canvas.getContext("2d");
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 64, 64);
        const form = new FormData();
        form.append("image", await new Promise((made) => canvas.toBlob(made)), name);
        form.append("subfolder", "cards");
        form.append("overwrite", "true");
        const answer = await app.api.fetchApi("/upload/image", { method: "POST", body: form });
        if (!answer.ok) throw new Error(await answer.text());
    }
}"""
# The chart of the only Train LoHa, on the canvas or in a subgraph of it.
_CHART = """() => {
    const all = (graph) => graph.nodes.flatMap((node) => node.subgraph ? all(node.subgraph) : [node]);
    const node = all(app.rootGraph ?? app.graph).find((node) => node.type === "ShinyMasTrainLoha");
    if (!node?.shinymasLoss) return null;
    const { canvas, points, total } = node.shinymasLoss;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let drawn = 0;
    for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0;
    return { steps: points.map(([step]) => step), losses: points.map(([, loss]) => loss), total, drawn };
}"""
_INTO_SUBGRAPH = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    return app.graph.convertToSubgraph(new Set([node])).node.id;
}"""
# What the server would say of a run; the picture of the chart afterwards.
_TELL = """(points) => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    const detail = { node: String(node.id), points, total: 5 };
    app.api.dispatchEvent(new CustomEvent("shinymas.training", { detail }));
    return node.shinymasLoss.canvas.toDataURL();
}"""
_BOXES = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    const { canvas } = node.shinymasLoss;
    const said = node.widgets.find((widget) => widget.name === "shinymas_said").element;
    const box = (element) => element.getBoundingClientRect().toJSON();
    return { chart: box(canvas), text: box(said), node: box(canvas.closest("[data-node-id]")),
             scale: app.canvas.ds.scale };
}"""
_IDLE = """async () => {
    const queue = await (await app.api.fetchApi("/queue")).json();
    return queue.queue_running.length + queue.queue_pending.length === 0;
}"""
_SAID = """(type) => app.graph.nodes.find((node) => node.type === type)
    .widgets.find((widget) => widget.name === "shinymas_said").value"""



def _drop_training(front_end, config: str) -> None:
    """The page's own graph with what a test machine has, as a person would set it."""
    front_end.page.evaluate(_UPLOAD)
    front_end.drop(GRAPH)
    for kind, values in {
        "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
        "ShinyMasTrainingData": {"folder": "cards", "resolution": 64, "bucket_min": 64, "bucket_max": 64,
                                 "batch_size": 1},
        "ShinyMasTrainingSettings": {"config": config},
        "ShinyMasSaveLoha": {"name": "from-the-page"},
        "EmptyLatentImage": {"width": 64, "height": 64},
        "KSampler": {"steps": 1},
    }.items():
        for name, value in values.items():
            front_end.set_widget(kind, name, value)


def _assert_drawn(chart, steps: int) -> None:
    assert chart["steps"] == list(range(1, steps + 1))
    assert all(0 < loss < 10 for loss in chart["losses"])
    assert chart["drawn"] > 300


def test_the_chart_shows_every_step_and_the_nodes_what_they_said(front_end):
    _drop_training(front_end, _CONFIG)
    front_end.run()
    chart = front_end.page.evaluate(_CHART)
    _assert_drawn(chart, 6)
    assert chart["total"] == 6
    for kind, first in (("ShinyMasTrainingData", "pictures: 2"),
                        ("ShinyMasTrainingSettings", "note: 5 settings below differ"),
                        ("ShinyMasTrainLoha", "modules: 129"), ("ShinyMasSaveLoha", "file: ")):
        assert front_end.page.evaluate(_SAID, kind).startswith(first), kind
    saved = json.dumps(front_end.graph())
    assert "shinymas_said" not in saved and "shinymas_loss" not in saved


def test_in_a_subgraph_and_on_a_page_loaded_anew_the_chart_is_whole(front_end, tmp_path):
    page = front_end.page
    _drop_training(front_end, _CONFIG.replace("epochs = 3", "epochs = 400") + "seed = 2\n")
    page.evaluate(_INTO_SUBGRAPH)
    saved = tmp_path / "subgraph.json"
    saved.write_text(json.dumps(front_end.graph()), encoding="utf-8")
    page.evaluate("app.queuePrompt(0)")
    try:
        page.wait_for_function(f"({_CHART})()?.steps.length > 1")
        page.reload()
        front_end.wait_until_loaded()
        front_end.drop(saved)
        page.wait_for_function(f"({_CHART})()?.steps.length > 2")
        chart = page.evaluate(_CHART)
    finally:
        page.evaluate("app.api.interrupt()")
        page.wait_for_function(_IDLE)
    _assert_drawn(chart, len(chart["steps"]))
    assert chart["total"] == 800


def test_the_chart_is_readable_in_nodes_2_0(front_end):
    if front_end.name == "pinned":
        pytest.skip("Nodes 2.0 is tried with the newest front end")
    front_end.set_setting("Comfy.VueNodes.Enabled", True)
    try:
        front_end.drop(GRAPH)
        front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1]])
        boxes = front_end.page.evaluate(_BOXES)
        chart, text, node = boxes["chart"], boxes["text"], boxes["node"]
        assert chart["width"] / boxes["scale"] > 150 and chart["height"] / boxes["scale"] > 100
        assert chart["bottom"] <= text["top"] + 1 or text["bottom"] <= chart["top"] + 1, "one covers the other"
        assert all(node["top"] <= box["top"] and box["bottom"] <= node["bottom"] + 1 for box in (chart, text))
    finally:
        front_end.set_setting("Comfy.VueNodes.Enabled", False)


def test_points_that_are_no_numbers_change_nothing(front_end):
    front_end.drop(GRAPH)
    plain = front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1], [5, 0.15]])
    assert front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1], [3, None], [4, None], [5, 0.15]]) == plain
    assert front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1], [5, 0.3]]) != plain
    assert front_end.page.evaluate(_TELL, [[1, None]]) != plain
