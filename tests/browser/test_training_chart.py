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
    const { chart, line, points, total } = node.shinymasLoss;
    return {
        steps: points.map(([step]) => step), losses: points.map(([, loss]) => loss), total, line: line.textContent,
        mean: [...chart.querySelectorAll(".mean")].flatMap(
            (line) => line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number))),
        marks: [...chart.querySelectorAll("text")].map(
            (text) => [text.textContent, Number(text.getAttribute("x")), Number(text.getAttribute("y"))]) };
}"""
_INTO_SUBGRAPH = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    return app.graph.convertToSubgraph(new Set([node])).node.id;
}"""
# What the server would say of a run; the picture of the chart afterwards.
_TELL = """(told) => {
    const [points, validation] = Array.isArray(told) ? [told] : [told.points, told.validation];
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    const detail = { node: String(node.id), points, total: 5, validation };
    app.api.dispatchEvent(new CustomEvent("shinymas.training", { detail }));
    return node.shinymasLoss.chart.innerHTML;
}"""
_BOXES = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    const canvas = node.shinymasLoss.chart;
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
    across, down = zip(*chart["mean"], strict=True)
    assert len(across) > 1 and max(down) > min(down)
    assert max(across) - min(across) == pytest.approx(346 * (steps - 1) / (chart["total"] - 1), abs=0.5)
    said = [text for text, *_ in chart["marks"]]
    assert said[3] == "step 1" and said[-1] == str(chart["total"])
    assert float(said[0]) < float(said[1]) < float(said[2])
    for text, right, foot in chart["marks"]:  # those of the losses end at their x
        assert right < min(across) or foot - 10 > max(down), f"{text} lies over the curve"


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


# Centres of the validations' dots, and of the ring about the best.
_VALIDATIONS = """() => {
    const { chart, validation } = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha").shinymasLoss;
    const centres = (kind) => [...chart.querySelectorAll(`circle.${kind}`)].map(
        (circle) => [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))]);
    return { validation, dots: centres("dot"), best: centres("best") };
}"""


def test_validations_are_drawn_and_the_best_is_ringed(front_end):
    _drop_training(front_end, _CONFIG)
    front_end.set_widget("ShinyMasTrainingData", "validation_split", 0.5)
    front_end.set_widget("ShinyMasSaveLoha", "name", f"validated-{front_end.name}")
    front_end.run()
    seen = front_end.page.evaluate(_VALIDATIONS)
    assert [step for step, _ in seen["validation"]] == [1, 2, 3]
    losses = [loss for _, loss in seen["validation"]]
    best = losses.index(min(losses))
    assert len(seen["dots"]) == 3 and seen["best"] == [seen["dots"][best]]
    assert seen["best"][0][1] == max(y for _, y in seen["dots"]), "down is less"
    said = front_end.page.evaluate(_SAID, "ShinyMasTrainLoha")
    assert f"best: after epoch {best + 1} (step {best + 1}), validation loss " in said
    front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1]])
    assert front_end.page.evaluate(_VALIDATIONS)["dots"] == [], "of the run before"


# What lies far off the view, or is tiny, is not in the page at all.
_LOOK_AT = """() => {
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha"));
}"""
_CONTRAST = """() => {
    const { chart } = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha").shinymasLoss;
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    const light = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const parts = [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
        const [r, g, b] = parts.map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(chart.parentElement).backgroundColor);
    const against = (colour) => {
        const [more, less] = [light(colour), ground].sort((one, other) => other - one);
        return (more + 0.05) / (less + 0.05);
    };
    return { ground, text: against(getComputedStyle(chart.querySelector("text")).fill),
             mean: against(getComputedStyle(chart.querySelector(".mean")).stroke),
             validation: against(getComputedStyle(chart.querySelector(".validation")).stroke) };
}"""
_IN_PAGE = """() => document.contains(
    app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha").shinymasLoss.chart)"""


@pytest.mark.parametrize(("theme", "is_dark"), [("light", False), ("dark", True)])
def test_the_chart_is_of_the_theme(front_end, theme, is_dark):
    front_end.drop(GRAPH)
    front_end.page.evaluate(_TELL, {"points": [[1, 0.2], [2, 0.1], [5, 0.15]], "validation": [[2, 0.2], [5, 0.1]]})
    try:
        front_end.set_setting("Comfy.ColorPalette", theme)
        front_end.page.evaluate(_LOOK_AT)
        front_end.page.wait_for_function(_IN_PAGE)
        seen = front_end.page.evaluate(_CONTRAST)
    finally:
        front_end.set_setting("Comfy.ColorPalette", "dark")
    assert (seen["ground"] < 0.2) == is_dark
    assert seen["text"] >= 4.5 and seen["mean"] >= 3 and seen["validation"] >= 3


def test_cancel_says_what_is_kept_and_how_to_go_on(front_end):
    """At once, in the node, with the curve; still there after a look at another tab; gone with the next run."""
    page = front_end.page
    _drop_training(front_end, _CONFIG.replace("epochs = 3", "epochs = 400") + "seed = 3\n")
    page.evaluate("app.queuePrompt(0)")
    try:
        page.wait_for_function(f"({_CHART})()?.steps.length > 2")
        assert "left" in page.evaluate(_CHART)["line"]
    finally:
        page.evaluate("app.api.interrupt()")
        page.wait_for_function(_IDLE)
    page.wait_for_function(f"({_SAID})('ShinyMasTrainLoha').startsWith('stopped: after step ')")
    said = page.evaluate(_SAID, "ShinyMasTrainLoha").splitlines()
    step = int(said[0].split()[3])
    assert said[0].endswith("of 800") and said[1].startswith(f"kept: step {step}, in ")
    assert f"/chart-step{step:08d}.safetensors in Load LoHa" in said[2]
    chart = page.evaluate(_CHART)
    assert chart["line"] == "" and len(chart["steps"]) > 2
    page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("!app.graph.nodes.some((node) => node.type === 'ShinyMasTrainLoha')")
    page.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.wait_for_function(f"({_CHART})()?.steps.length === {len(chart['steps'])}")
    assert page.evaluate(_SAID, "ShinyMasTrainLoha").splitlines() == said
    front_end.set_widget("ShinyMasTrainingSettings", "config", "no_such = [")
    page.evaluate("app.queuePrompt(0)")
    page.wait_for_function(_IDLE)
    assert page.evaluate(_SAID, "ShinyMasTrainLoha").splitlines() == said, "a refused prompt is no run"


def test_a_run_that_fails_before_its_first_step_leaves_nothing_of_the_one_before(front_end):
    _drop_training(front_end, _CONFIG)
    front_end.page.evaluate(_TELL, [[1, 0.2], [2, 0.1], [5, 0.15]])
    front_end.set_widget("ShinyMasTrainingSettings", "config",
                         _CONFIG + 'lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 900\n')
    with pytest.raises(RuntimeError, match="warm"):
        front_end.run()
    assert front_end.page.evaluate(_SAID, "ShinyMasTrainLoha") == "stopped: before the first step\nkept: nothing"
    chart = front_end.page.evaluate(_CHART)
    assert chart["steps"] == [] and chart["line"] == ""


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
