"""Load LoHa draws what the file is, Apply LoHa what became of it: on a file of which not everything fits."""

from __future__ import annotations

import json
import time

import pytest
import torch
from kit.workspace import CHECKPOINT, LOHA, ROOT
from safetensors.torch import save_file

GRAPH = ROOT / "workflows" / "shinymas-v2.1.json"
SETTINGS = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT, ("ShinyMasLoadLoha", "lora_name"): LOHA,
    ("EmptyLatentImage", "width"): 64, ("EmptyLatentImage", "height"): 64, ("KSampler", "steps"): 1,
}

_NODES = [("CheckpointLoaderSimple", 0, [CHECKPOINT]), ("ShinyMasLoadLoha", 350, ["partial.safetensors"]),
          ("ShinyMasApplyLoha", 700, [1.0, 1.0, False, ""]), ("PreviewAny", 1100, [])]
_LINKS = [[1, 1, 0, 3, 0, "MODEL"], [2, 2, 0, 3, 1, "SHINYMAS_LOHA"], [3, 3, 2, 4, 0, "*"]]
_SOCKETS = {1: ([], ["MODEL", "CLIP", "VAE"]), 2: ([], ["SHINYMAS_LOHA", "STRING"]),
            3: (["MODEL", "SHINYMAS_LOHA", "CLIP"], ["MODEL", "CLIP", "STRING"]), 4: (["*"], [])}
_NAMES = {"MODEL": "model", "CLIP": "clip", "VAE": "vae", "SHINYMAS_LOHA": "loha", "STRING": "report", "*": "source"}
_HOSTILE = "<img src=x onerror='window.attacked = 1'>"
_FITS = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
_TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"

_DRAWN = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type);
    const said = node?.widgets.find((widget) => widget.name === "shinymas_said").element;
    const drawn = said?.querySelector(".shinymas-loha");
    if (!drawn) return null;
    const texts = (where) => [...drawn.querySelectorAll(where)].map((one) => one.textContent);
    return {
        facts: Object.fromEntries(texts(":scope > dl > dt").map((what, at) => [what, texts(":scope > dl > dd")[at]])),
        words: texts("details dd"), summary: texts("summary"),
        bars: [...drawn.querySelectorAll(".parts i")].map((bar) => [bar.className, bar.title]),
        blocks: [...drawn.querySelectorAll(".bars i")].map((bar) => bar.title),
        labels: [...drawn.querySelectorAll("[role=img]")].map((one) => one.getAttribute("aria-label")),
        strangers: drawn.querySelectorAll("img, script").length,
    };
}"""
# Texts and bars against the ground that they stand on; what lies far off the view is not in the page at all.
_LOOK_AT = """(type) => {
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === type));
}"""
_CONTRASTS = """() => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    const light = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255).map(
            (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const drawn = [...document.querySelectorAll(".shinymas-loha")];
    const against = (one, colour) => {
        const ground = light(getComputedStyle(one.closest(".shinymas-loha")).backgroundColor);
        const [more, less] = [light(colour), ground].sort((a, b) => b - a);
        return (more + 0.05) / (less + 0.05);
    };
    const each = (where, what) => drawn.flatMap((one) => [...one.querySelectorAll(where)]).map(
        (one) => against(one, getComputedStyle(one)[what]));
    return { grounds: drawn.map((one) => light(getComputedStyle(one).backgroundColor)),
             texts: each("dt, dd, summary, figcaption, .blocks > div", "color"),
             bars: each(".bars i, .parts .applied, .parts .skipped", "backgroundColor") };
}"""


def _sockets(types, key, empty):
    return [{"name": _NAMES[kind], "type": kind, key: empty} for kind in types]


@pytest.fixture
def partly(front_end, tmp_path):
    """Checkpoint, Load LoHa, Apply LoHa without CLIP, and a node that shows the report."""
    loras = front_end.user.parent / "models" / "loras"
    tensors = {}
    for name, (out, in_) in {_FITS: (320, 320), "stranger": (4, 4), _TEXT: (3072, 768),
                             _FITS.replace("to_q", "to_k"): (320, 3)}.items():
        for half in ("hada_w1", "hada_w2"):
            tensors |= {f"{name}.{half}_a": torch.ones(out, 2), f"{name}.{half}_b": torch.ones(2, in_)}
    own = {"version": 1, "characters": [{"name": _HOSTILE, "cards": 1, "tags": []}]}
    save_file(tensors, loras / "partial.safetensors", {
        "ss_sd_model_name": _HOSTILE, "ss_epoch": "14", "ss_num_epochs": "20", "shinymas_cast": json.dumps(own)})
    nodes = []
    for number, (kind, x, values) in enumerate(_NODES, 1):
        inputs, outputs = _SOCKETS[number]
        node = {"id": number, "type": kind, "pos": [x, 100], "size": [320, 420], "flags": {}, "order": number,
                "mode": 0, "properties": {}, "widgets_values": values,
                "inputs": _sockets(inputs, "link", None), "outputs": _sockets(outputs, "links", [])}
        nodes.append(node)
    for link, source, output, target, slot, _ in _LINKS:
        nodes[source - 1]["outputs"][output]["links"] = [link]
        nodes[target - 1]["inputs"][slot]["link"] = link
    graph = {"id": "5817a5c0-10fa-4000-8000-0000000000dd", "revision": 0, "nodes": nodes, "links": _LINKS,
             "groups": [], "last_node_id": 4, "last_link_id": 3, "config": {}, "extra": {}, "version": 0.4}
    path = tmp_path / "partly.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    front_end.drop(path)
    front_end.path = path
    return front_end


def drawn(front_end, kind):
    return front_end.page.evaluate(_DRAWN, kind)


def test_the_file_and_what_became_of_it_are_drawn(partly):
    partly.run()
    file, outcome = drawn(partly, "ShinyMasLoadLoha"), drawn(partly, "ShinyMasApplyLoha")
    assert file["facts"] | {"version": "not recognised", "modules": "3 U-Net, 1 text encoder", "ranks": "2 × 4",
                            "training": "epoch 14 of 20", "trained on": _HOSTILE} == file["facts"]
    assert file["summary"] == ["trigger words: 1"] and file["words"] == [_HOSTILE]
    assert file["blocks"] == ["BASE 6144", "MID 1286"]  # of ones: 4 a number, √(3072 · 768) and so on
    assert file["labels"] == ["‖ΔW‖ by block, about: BASE 6144, MID 1286"]
    assert file["strangers"] == 0 and partly.page.evaluate("window.attacked") is None

    parts, blocks = outcome["labels"]
    assert [name for name, _ in outcome["bars"]] == ["applied", "skipped", "unknown"]
    applied, skipped, unknown = (title for _, title in outcome["bars"])
    assert applied == "applied: 1" and unknown == (
        "unknown: 1\nleft off 1: no weight of this model has that name (stranger)")
    assert skipped.startswith("skipped: 2\nleft off 1: ") and "does not fit the weight" in skipped
    assert all(title in parts for title in (applied, skipped, unknown))
    assert blocks.startswith("‖ΔW‖ by block: ") and len(outcome["blocks"]) == 1


_HEAD = """() => {
    const node = app.graph.nodes.find((node) => node.type === "ShinyMasApplyLoha");
    const head = node.widgets.find((widget) => widget.name === "shinymas_said").element.querySelector(".shinymas-head");
    return [head.textContent, head.style.background];
}"""
_ALARM = "rgb(154, 52, 18)"


def test_what_a_person_left_off_is_no_alarm(partly):
    """A strength of 0, as of the pictures without a LoHa on a sheet, and a block's weight of 0."""
    partly.run()
    assert partly.page.evaluate(_HEAD) == ["applied 1 of 4 · skipped 2 · unknown 1", _ALARM]
    partly.drop(GRAPH)
    for (kind, name), value in SETTINGS.items():
        partly.set_widget(kind, name, value)
    for widget, value in (("strength_clip", 0), ("block_weights", "INS"), ("strength_model", 0)):
        partly.set_widget("ShinyMasApplyLoha", widget, value)
        partly.run()
        text, ground = partly.page.evaluate(_HEAD)
        assert "skipped 0" not in text and text.endswith("unknown 0") and ground == "transparent", text


def _answer_late(route):
    answer = route.fetch()
    time.sleep(2)  # the run is over by then, and a tab does not keep what came before the answer
    route.fulfill(response=answer)


def test_it_comes_back_after_another_tab_a_reload_and_a_run_in_which_nothing_runs(partly):
    page = partly.page
    partly.set_widget("ShinyMasApplyLoha", "strength_model", 0.5)
    page.route("**/prompt", _answer_late)
    try:
        partly.run()
    finally:
        page.unroute("**/prompt")
    for kind in ("ShinyMasLoadLoha", "ShinyMasApplyLoha"):
        page.wait_for_function(f"() => ({_DRAWN})('{kind}')")
    file, outcome = drawn(partly, "ShinyMasLoadLoha"), drawn(partly, "ShinyMasApplyLoha")
    page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("!app.graph.nodes.some((node) => node.type === 'ShinyMasApplyLoha')")
    page.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.wait_for_function(f"() => ({_DRAWN})('ShinyMasApplyLoha')")
    assert (drawn(partly, "ShinyMasLoadLoha"), drawn(partly, "ShinyMasApplyLoha")) == (file, outcome)

    page.reload()
    partly.wait_until_loaded()
    partly.drop(partly.path)
    partly.set_widget("ShinyMasApplyLoha", "strength_model", 0.5)
    partly.run()
    page.wait_for_function(f"() => ({_DRAWN})('ShinyMasApplyLoha')")
    assert (drawn(partly, "ShinyMasLoadLoha"), drawn(partly, "ShinyMasApplyLoha")) == (file, outcome)


@pytest.mark.parametrize(("theme", "is_dark"), [("light", False), ("dark", True)])
@pytest.mark.parametrize("nodes_2_0", [False, True], ids=["canvas", "nodes 2.0"])
def test_it_is_readable(partly, theme, is_dark, nodes_2_0):
    if nodes_2_0 and partly.name == "pinned":
        pytest.skip("Nodes 2.0 is tried with the newest front end")
    partly.set_setting("Comfy.VueNodes.Enabled", nodes_2_0)
    try:
        partly.set_setting("Comfy.ColorPalette", theme)
        partly.set_widget("ShinyMasApplyLoha", "strength_model", 0.7 + 0.1 * is_dark)
        partly.run()
        partly.page.evaluate(_LOOK_AT, "ShinyMasApplyLoha")
        partly.page.wait_for_function("() => document.querySelectorAll('.shinymas-loha .parts').length")
        partly.page.wait_for_timeout(300)  # the page takes the theme's colours
        seen = partly.page.evaluate(_CONTRASTS)
    finally:
        partly.set_setting("Comfy.VueNodes.Enabled", False)
        partly.set_setting("Comfy.ColorPalette", "dark")
    assert seen["grounds"] and all((ground < 0.2) == is_dark for ground in seen["grounds"])
    assert min(seen["texts"]) >= 4.5 and min(seen["bars"]) >= 3
