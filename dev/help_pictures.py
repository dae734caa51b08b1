"""Pictures of the nodes for their help pages, in each language, after a run: `python dev/help_pictures.py`.

Taken with the newest front end: 1.32 shows no translations of a pack's nodes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import screenshots
from kit.canvas import Canvas, canvas
from kit.comfyui_server import ComfyUIServer
from kit.workspace import COMFYUI, PYTHON, ROOT, TOOLS, add_samples
from PIL import Image

DOCS = ROOT / "web" / "docs"
_FRONT_END = TOOLS / "frontend-newest" / "comfyui_frontend_package" / "static"
_LANGUAGES = sorted(folder.name for folder in (ROOT / "locales").iterdir() if folder.is_dir())
_WIDTH = 420  # of a picture
_COLOURS = 48
_SMALL = screenshots.DRAWING | {("EmptyLatentImage", "width"): 64, ("EmptyLatentImage", "height"): 64,
                                ("KSampler", "steps"): 1}
# Graph → what is set for the run, and the nodes that it shows best.
_SHOWN = {
    "shinymas-v2.1": (_SMALL, ("ShinyMasLoadLoha", "ShinyMasApplyLoha", "ShinyMasCharacterPrompt")),
    "shinymas-hook": (_SMALL, ("ShinyMasHookLoha",)),
    "shinymas-scene": (_SMALL, ("ShinyMasScene",)),
    "shinymas-sheet": (_SMALL | {("ShinyMasCharacterList", "unit"): "SHHis"},
                       ("ShinyMasCharacterList",)),
    "train-shinymas-v2.0": (screenshots.TRAINING, (
        "ShinyMasTrainingData", "ShinyMasTrainingSettings", "ShinyMasTrainLoha", "ShinyMasSaveLoha")),
    "pictures-to-character": ({key: value for key, value in screenshots.TRAINING.items()
                               if key[0] != "ShinyMasLoadLoha" and key[1] != "folder"} | {
        ("ShinyMasTrainingData", "bucket_max"): 64,
        ("ShinyMasTrainingSettings", "config"): "network_dim = 2\nnetwork_train_unet_only = true\n"
                                                "max_train_epochs = 1\nsave_every_n_epochs = 0\n"
                                                "max_token_length = 75\noutput_name = \"my-characters\"\n"},
        ("ShinyMasTagImages", "ShinyMasTagStatistics", "ShinyMasRecognition")),
}
_BOX = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type);
    if (node.flags.collapsed) { // opened where nothing lies over it
        node.collapse();
        node.pos = [9000, 0];
        node.setSize([330, node.computeSize()[1] + 160]);
    }
    return [node.pos[0] - 6, node.pos[1] - 36, node.pos[0] + node.size[0] + 6, node.pos[1] + node.size[1] + 6];
}"""


# The folder of these runs is nobody's: what was said names it ComfyUI.
_NAME = """(folder) => {
    for (const node of app.graph.nodes) {
        const said = node.widgets?.find((widget) => widget.name === "shinymas_said");
        if (said) said.value = said.value.replaceAll(folder, "ComfyUI");
    }
}"""


def colours(base: Path) -> None:
    """What the graph of a person's own pictures needs: two characters of one colour each, and a tagger that sees it."""
    sys.path.append(str(ROOT / "tests" / "support"))
    from small_taggers import write_tagger

    for name, colour in (("3_Red One", (200, 0, 0)), ("2_Green One", (0, 200, 0))):
        folder = base / "input" / "my-characters" / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    write_tagger(base / "models" / "taggers" / "wd-v1-4-convnextv2-tagger-v2")


def take(page: Canvas, kind: str, path: Path) -> None:
    """The only node of this type."""
    save(screenshots.shot(page, page.page.evaluate(_BOX, kind)), path)


def save(picture: Image.Image, path: Path) -> None:
    """As a PNG of few colours."""
    picture = picture.resize((_WIDTH, round(picture.height * _WIDTH / picture.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(exist_ok=True)
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {picture.width}×{picture.height}, {path.stat().st_size // 1000} kB", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--graph", nargs="+", choices=_SHOWN, default=list(_SHOWN), dest="graphs")
    options.add_argument("--language", nargs="+", choices=_LANGUAGES, default=_LANGUAGES, dest="languages")
    chosen = options.parse_args()
    for language in chosen.languages:  # what it makes says more than the node
        save(screenshots.sheet(), DOCS / "ShinyMasSheet" / f"node.{language}.png")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        add_samples(base, "tests")
        screenshots.pictures(base / "input" / "shinymas")
        colours(base)
        front_end = ("--front-end-root", str(_FRONT_END))
        with ComfyUIServer(COMFYUI, base, python=PYTHON, options=front_end) as server, \
                canvas(server, size=screenshots.VIEW) as page:
            for language in chosen.languages:
                for name, value in (screenshots.SETTINGS | {"Comfy.Locale": language}).items():
                    page.set_setting(name, value)
                page.page.reload()
                page.wait_until_loaded()
                page.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
                for graph, (values, kinds) in ((graph, _SHOWN[graph]) for graph in chosen.graphs):
                    if ("ShinyMasTrainingData", "batch_size") in values:  # then Save LoHa, which writes over nothing
                        name = "my-loha" if "ShinyMasSaveLoha" in kinds else graph
                        values = values | {("ShinyMasSaveLoha", "name"): f"{name}-{language}"}
                    screenshots.run(page, graph, values)
                    page.page.wait_for_timeout(2000)  # what was said in an earlier run is asked for
                    page.page.evaluate(_NAME, str(base))
                    for kind in kinds:
                        take(page, kind, DOCS / kind / f"node.{language}.png")


if __name__ == "__main__":
    main()
