"""Pictures of the shipped graphs in ComfyUI's own page: the thumbnails in workflows/, and the read-me's.

    .tools/venv/bin/python dev/screenshots.py

The graphs are run on the sample models, whose pictures are noise: a thumbnail shows what does not depend on them, the
prompt that is written, the plan of a scene, the sheet with plain colours for pictures, the curve of a training.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
from kit import cards
from kit.canvas import Canvas, canvas
from kit.comfyui_server import ComfyUIServer
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, ROOT, add_samples, library
from PIL import Image

WORKFLOWS = ROOT / "workflows"
README_PICTURE = ROOT / "web" / "shinymas-v2.1.jpg"
_NOBODYS = WORKFLOWS  # a user directory without casts
VIEW = (2200, 1250)
_WIDTH = 1400  # of the read-me's picture; text in the nodes is just legible
_MOST_BYTES = 150_000
SETTINGS = {"Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Minimap.Visible": False,
             "Comfy.Graph.CanvasMenu": False, "Comfy.Graph.CanvasInfo": False,
             "LiteGraph.Canvas.MinFontSizeForLOD": 0, "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": 0.1}
# A sample run for a CPU: small, few steps.
_MODELS = {("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT, ("ShinyMasLoadLoha", "lora_name"): LOHA}
DRAWING = _MODELS | {("EmptyLatentImage", "width"): 256, ("EmptyLatentImage", "height"): 384,
                      ("KSampler", "steps"): 6}
TRAINING = _MODELS | {
    ("EmptyLatentImage", "width"): 64, ("EmptyLatentImage", "height"): 64, ("KSampler", "steps"): 1,
    ("ShinyMasTrainingData", "folder"): "shinymas", ("ShinyMasTrainingData", "resolution"): 64,
    ("ShinyMasTrainingData", "bucket_min"): 64, ("ShinyMasTrainingData", "batch_size"): 2,
    ("ShinyMasTrainingSettings", "config"): "network_dim = 2\nnetwork_train_unet_only = true\n"
                                            "max_train_epochs = 12\nsave_every_n_epochs = 0\nmax_token_length = 75\n"}

# Zooms so that a box of the graph fills the window; returns what it covers there, in pixels.
_FIT = """([[left, top, right, bottom], [width, height]]) => {
    const scale = Math.min(width / (right - left), height / (bottom - top));
    Object.assign(app.canvas.ds, { scale });
    app.canvas.ds.offset[0] = -left;
    app.canvas.ds.offset[1] = -top;
    app.canvas.setDirty(true, true);
    return { x: 0, y: 0, width: (right - left) * scale, height: (bottom - top) * scale };
}"""
_WHOLE = """() => {
    const boxes = [...app.graph.groups.map((group) => [...group.pos, ...group.size]),
                   ...app.graph.nodes.map((node) => [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30])];
    return [Math.min(...boxes.map((box) => box[0])) - 20, Math.min(...boxes.map((box) => box[1])) - 20,
            Math.max(...boxes.map((box) => box[0] + box[2])) + 20,
            Math.max(...boxes.map((box) => box[1] + box[3])) + 20];
}"""
# The box of a node, from the top of one of its widgets to the foot of another; null is the node's own top or foot.
_PART = """([type, from, to]) => {
    const node = app.graph.nodes.find((node) => node.type === type);
    const at = (name) => node.widgets.find((widget) => widget.name === name);
    const [x, y] = node.pos;
    const foot = (widget) => widget.y + (widget.computedHeight ?? 20);
    return [x, from ? y + at(from).y - 4 : y - 30, x + node.size[0], y + (to ? foot(at(to)) + 4 : node.size[1])];
}"""


def shot(page: Canvas, box: list[float]) -> Image.Image:
    """The part of the graph in this box."""
    clip = page.page.evaluate(_FIT, [box, VIEW])
    page.page.wait_for_timeout(1500)  # text areas follow the canvas a frame or two later
    return Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")


def parts(page: Canvas, kind: str, *spans: tuple[str | None, str | None]) -> list[Image.Image]:
    """Pictures of parts of the only node of this type; see _PART."""
    return [shot(page, page.page.evaluate(_PART, [kind, *span])) for span in spans]


def save(picture: Image.Image, path: Path) -> None:
    """As a JPEG under 150 kB."""
    for quality in range(90, 20, -5):
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=quality, optimize=True)
        if packed.tell() < _MOST_BYTES:
            break
    path.write_bytes(packed.getvalue())
    print(f"{path.relative_to(ROOT)}: {picture.width}×{picture.height}, {packed.tell() // 1000} kB", flush=True)


def run(page: Canvas, name: str, values: dict) -> None:
    page.drop(WORKFLOWS / f"{name}.json")
    for (kind, widget), value in values.items():
        page.set_widget(kind, widget, value)
    page.run()


def around(name: str, *kinds: str) -> list[float]:
    """The box of all nodes of these types in a shipped graph, titles included."""
    boxes = [(*node["pos"], *node["size"]) for node in _nodes(name) if node["type"] in kinds]
    return [min(x for x, *_ in boxes), min(y for _, y, *_ in boxes) - 30,
            max(x + width for x, _, width, _ in boxes), max(y + height for _, y, _, height in boxes)]


def plan() -> Image.Image:
    """Who stands where in the scene's graph: the node's own drawing."""
    characters, scene = library("characters"), library("characters.scene")
    (node,) = (node for node in _nodes("shinymas-scene") if node["type"] == "ShinyMasScene")
    people, shared = node["widgets_values"][:2]
    casts = characters.load_casts(_NOBODYS)
    planned = scene.plan(people, shared, lambda name: casts.find(characters.DEFAULT_CAST, name))
    return Image.fromarray(scene.draw(planned.people, 384, 256, 8.0))


def sheet() -> Image.Image:
    """The whole cast, with her colour for each one's picture."""
    characters, drawing, roster = library("characters"), library("characters.sheet"), library("characters.roster")
    everyone = roster.choose(characters.load_casts(_NOBODYS).get(characters.DEFAULT_CAST), "v2.1")
    labels = [drawing.parse_label(roster.picture_label(who, "romaji", "", "", True)) for who in everyone]

    def colour(index: int) -> np.ndarray:
        return np.full((96, 96, 3), list(bytes.fromhex(everyone[index].colour)), dtype=np.uint8)

    drawn = drawing.draw(drawing.plan(labels, 9), colour, (96, 96), "shinymas v2.1")
    return Image.fromarray((drawn * 255).round().astype(np.uint8))


def likeness() -> Image.Image:
    """Whose looks are alike: the report's heat map, as if everything of everybody's came back."""
    characters, recognition = library("characters"), library("characters.recognition")
    cast = characters.load_casts(_NOBODYS).get(characters.DEFAULT_CAST)
    seen = [recognition.Seen(who.name, 1.0, who.identity) for who in cast.characters]
    drawn = Image.fromarray(recognition.draw(recognition.Recognition(cast, seen)))
    return drawn.crop((0, drawn.height - 666, drawn.width, drawn.height - 50))


def _nodes(name: str) -> list[dict]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))["nodes"]


def pictures(folder: Path) -> None:
    """Something to train on: plain pictures, each with a caption."""
    folder.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 90, 160)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"colour {number}", encoding="utf-8")


def main() -> None:
    got = {"shinymas-scene": [plan()], "shinymas-sheet": [sheet()], "pictures-to-character": [likeness()]}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        add_samples(base, "tests")
        pictures(base / "input" / "shinymas")
        with ComfyUIServer(COMFYUI, base, python=PYTHON) as server, canvas(server, size=VIEW) as page:
            for name, value in SETTINGS.items():
                page.set_setting(name, value)
            page.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
            for version in ("v1.0", "v2.0", "v2.1"):
                run(page, f"shinymas-{version}", DRAWING)
                widgets, said = parts(page, "ShinyMasCharacterPrompt", ("character", "model_version"),
                                      ("shinymas_said", "shinymas_said"))
                got[f"shinymas-{version}"] = [widgets, said.crop((0, 0, said.width, said.height * 4 // 10))]
            whole = shot(page, page.page.evaluate(_WHOLE))
            save(whole.resize((_WIDTH, round(whole.height * _WIDTH / whole.width)), Image.Resampling.LANCZOS),
                 README_PICTURE)
            page.drop(WORKFLOWS / "shinymas-hook.json")
            got["shinymas-hook"] = [shot(page, around("shinymas-hook", "CreateHookKeyframe", "SetHookKeyframes"))]
            run(page, "train-shinymas-v2.0", TRAINING)
            for version in ("v2.0", "v2.1"):
                got[f"train-shinymas-{version}"] = parts(page, "ShinyMasTrainLoha", ("shinymas_loss", "shinymas_loss"))
            for name, card in cards.CARDS.items():
                save(cards.draw(page.page, card, got[name]), WORKFLOWS / f"{name}.jpg")


if __name__ == "__main__":
    main()
