"""The live loss chart of Train LoHa, and what the training nodes said, on a run from the page."""

from __future__ import annotations

import json

from workspace import CHECKPOINT, ROOT

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
_STATE = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasTrainLoha");
    const { canvas, points, total } = node.shinymasLoss;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let drawn = 0;
    for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0;
    return { steps: points.map(([step]) => step), losses: points.map(([, loss]) => loss), total, drawn };
}"""
_SAID = """(type) => app.graph.nodes.find((node) => node.type === type)
    .widgets.find((widget) => widget.name === "shinymas_said").value"""


def test_the_chart_shows_every_step_and_the_nodes_what_they_said(front_end):
    front_end.page.evaluate(_UPLOAD)
    front_end.drop(ROOT / "workflows" / "train-shinymas-v2.0.json")
    for kind, values in {
        "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
        "ShinyMasTrainingData": {"folder": "cards", "resolution": 64, "bucket_min": 64, "bucket_max": 64,
                                 "batch_size": 1},
        "ShinyMasTrainingSettings": {"config": _CONFIG},
        "ShinyMasSaveLoha": {"name": "from-the-page"},
        "EmptyLatentImage": {"width": 64, "height": 64},
        "KSampler": {"steps": 1},
    }.items():
        for name, value in values.items():
            front_end.set_widget(kind, name, value)
    front_end.run()

    chart = front_end.page.evaluate(_STATE)
    assert chart["steps"] == [1, 2, 3, 4, 5, 6]
    assert chart["total"] == 6
    assert all(0 < loss < 10 for loss in chart["losses"])
    assert chart["drawn"] > 300
    for kind, first in (("ShinyMasTrainingData", "pictures: 2"), ("ShinyMasTrainingSettings", "network_rank: 2"),
                        ("ShinyMasTrainLoha", "modules: 129"), ("ShinyMasSaveLoha", "file: ")):
        assert front_end.page.evaluate(_SAID, kind).startswith(first), kind
    saved = json.dumps(front_end.graph())
    assert "shinymas_said" not in saved and "shinymas_loss" not in saved
