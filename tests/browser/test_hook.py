"""The shipped graph of LoHa Hook, run from the page: what its node says before and after the model is known."""

from __future__ import annotations

import re

from kit.workspace import CHECKPOINT, LOHA, ROOT

SETTINGS = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT, ("ShinyMasLoadLoha", "lora_name"): LOHA,
    ("EmptyLatentImage", "width"): 64, ("EmptyLatentImage", "height"): 64, ("KSampler", "steps"): 2,
}
_SAYS = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasHookLoha");
    const view = node.widgets.find((widget) => widget.name === "shinymas_said");
    return [view.value, view.element.lastChild.textContent];
}"""


def test_a_hooked_graph_runs_and_its_node_says_what_was_bound(front_end):
    front_end.drop(ROOT / "workflows" / "shinymas-hook.json")
    for (kind, name), value in SETTINGS.items():
        front_end.set_widget(kind, name, value)
    shown = front_end.run()
    assert [image for output in shown.values() for image in output.get("images", ())]
    report, below = front_end.page.evaluate(_SAYS)
    lines = report.splitlines()
    assert re.fullmatch(r"modules: \d{3}", lines[0]) and lines[1] == f"file: {LOHA}"
    assert "bound: when the model is known; what does not fit is said under this node and in the log" in lines
    assert re.fullmatch(r"LoHa Hook: \d{2} modules on the text encoder\nLoHa Hook: \d{2,3} modules on the U-Net", below)
