"""Pictures of the shipped graphs in ComfyUI's own page: the thumbnails in workflows/, and the read-me's.

    .tools/venv/bin/python dev/screenshots.py

Each graph is dropped on the canvas of the pinned front end and taken as it is; v2.1 is then run on the sample
models for the read-me's picture.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from kit.canvas import Canvas, canvas
from kit.comfyui_server import ComfyUIServer
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, ROOT, add_samples
from PIL import Image

README_PICTURE = ROOT / "web" / "shinymas-v2.1.jpg"
_VIEW = (2200, 1150)
_WIDTH = 1400  # of the pictures; text in the nodes is just legible
_MOST_BYTES = 150_000
_QUIET = {"Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Minimap.Visible": False,
          "Comfy.Graph.CanvasMenu": False, "Comfy.Graph.CanvasInfo": False,
          "LiteGraph.Canvas.MinFontSizeForLOD": 0, "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": 0.1}
# A sample run for a CPU: small, few steps.
_RUN = {("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT, ("ShinyMasLoadLoha", "lora_name"): LOHA,
        ("EmptyLatentImage", "width"): 256, ("EmptyLatentImage", "height"): 384, ("KSampler", "steps"): 6}

# Zooms so that all groups and nodes fill the window; returns what they cover on it.
_FIT = """([width, height]) => {
    const boxes = [...app.graph.groups.map((group) => [...group.pos, ...group.size]),
                   ...app.graph.nodes.map((node) => [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30])];
    const left = Math.min(...boxes.map((box) => box[0])) - 20, top = Math.min(...boxes.map((box) => box[1])) - 20;
    const right = Math.max(...boxes.map((box) => box[0] + box[2])) + 20;
    const bottom = Math.max(...boxes.map((box) => box[1] + box[3])) + 20;
    const scale = Math.min(width / (right - left), height / (bottom - top));
    Object.assign(app.canvas.ds, { scale });
    app.canvas.ds.offset[0] = -left;
    app.canvas.ds.offset[1] = -top;
    app.canvas.setDirty(true, true);
    return { x: 0, y: 0, width: (right - left) * scale, height: (bottom - top) * scale };
}"""


def take(page: Canvas, path: Path) -> None:
    """Save the graph on the canvas as a JPEG under 150 kB."""
    clip = page.page.evaluate(_FIT, _VIEW)
    page.page.wait_for_timeout(1500)  # text areas follow the canvas a frame or two later
    shot = Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")
    shot = shot.resize((_WIDTH, round(shot.height * _WIDTH / shot.width)), Image.Resampling.LANCZOS)
    for quality in range(90, 20, -5):
        packed = io.BytesIO()
        shot.save(packed, "JPEG", quality=quality, optimize=True)
        if packed.tell() < _MOST_BYTES:
            break
    path.write_bytes(packed.getvalue())
    print(f"{path.relative_to(ROOT)}: {shot.width}×{shot.height}, {packed.tell() // 1000} kB", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        add_samples(base, "demo")
        with ComfyUIServer(COMFYUI, base, python=PYTHON) as server, canvas(server, size=_VIEW) as page:
            for name, value in _QUIET.items():
                page.set_setting(name, value)
            page.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
            for path in sorted((ROOT / "workflows").glob("*.json")):
                page.drop(path)
                take(page, path.with_suffix(".jpg"))
            page.drop(ROOT / "workflows" / "shinymas-v2.1.json")
            for (kind, name), value in _RUN.items():
                page.set_widget(kind, name, value)
            page.run()
            take(page, README_PICTURE)


if __name__ == "__main__":
    main()
