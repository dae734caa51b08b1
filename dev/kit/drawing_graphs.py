"""The drawing graphs: one graph, drawn once, for each version of the model.

Format 0.4, as the front end saves and reads it. Values stand by widget name here and by position in the
file, where the canvas-only control below a seed counts as one more widget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CORE = {"cnr_id": "comfy-core", "ver": "0.3.75"}
PACK = {"cnr_id": "shinymas-loha", "ver": "0.1.0"}

# A stand-in that may be linked: CreativeML Open RAIL-M, and the file that ComfyUI's own templates link.
CHECKPOINT = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
           "v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}


@dataclass(frozen=True)
class Version:
    """What differs between the versions. `url` is an address of the file itself, None where only a page is known."""

    name: str
    file: str
    trigger: str
    where: str
    about: str
    url: str | None = None

    @property
    def lora(self) -> dict[str, str] | None:
        return self.url and {"name": self.file, "url": self.url, "directory": "loras"}


VERSIONS = (
    Version(
        "v1.0", "shiny-sd1-v1.safetensors", "Given Family (`Hiori Kazano`)",
        "[Civitai](https://civitai.com/api/download/models/21248)",
        "trained on 594 cards, 25 characters (no Ikaruga Luca)",
        "https://civitai.com/api/download/models/21248",
    ),
    Version(
        "v2.0", "shinymas-v2.0-000028.safetensors", "Family Given (`Kazano Hiori`)",
        "[Hugging Face](https://huggingface.co/gustproof/sd-models/tree/main/shinymas), one of the `shinymas-v2.0` "
        "files",
        "trained on 966 cards, 26 characters, at 640 px",
    ),
    Version(
        "v2.1", "shinymas-v2.1.safetensors", "Family Given (`Kazano Hiori`)",
        "[Civitai](https://civitai.com/api/download/models/44963)",
        "v2.0 tuned further at 768 px",
        "https://civitai.com/api/download/models/44963",
    ),
)


@dataclass(frozen=True)
class Kind:
    """A node type: its input sockets, output sockets (name, type) and widgets, in ComfyUI's order.

    An input socket whose name is also a widget's is that widget, fed by a link.
    """

    inputs: Sequence[tuple[str, str]] = ()
    outputs: Sequence[tuple[str, str]] = ()
    widgets: Sequence[str] = ()
    origin: Mapping[str, str] = field(default_factory=lambda: CORE)


KINDS = {
    "CheckpointLoaderSimple": Kind(
        outputs=[("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")], widgets=["ckpt_name"]),
    "ShinyMasLoadLoha": Kind(
        outputs=[("loha", "SHINYMAS_LOHA"), ("info", "STRING")], widgets=["lora_name"], origin=PACK),
    "ShinyMasApplyLoha": Kind(
        inputs=[("model", "MODEL"), ("loha", "SHINYMAS_LOHA"), ("clip", "CLIP")],
        outputs=[("model", "MODEL"), ("clip", "CLIP"), ("report", "STRING")],
        widgets=["strength_model", "strength_clip", "strict", "block_weights"], origin=PACK),
    "ShinyMasCharacterPrompt": Kind(
        inputs=[("previous", "STRING")],
        outputs=[("positive", "STRING"), ("negative", "STRING"), ("character", "STRING"), ("cards", "INT")],
        widgets=["character", "model_version", "tag_set", "max_tags", "weight", "before", "after", "exclude",
                 "pick", "seed", "control_after_generate", "cast"], origin=PACK),
    "ShinyMasScene": Kind(
        inputs=[("model", "MODEL"), ("clip", "CLIP"), ("loha", "SHINYMAS_LOHA"), ("latent", "LATENT")],
        outputs=[("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("text", "STRING"),
                 ("layout", "IMAGE")],
        widgets=["people", "shared", "negative", "model_version", "tag_set", "method", "feather", "width", "height",
                 "cast"], origin=PACK),
    "CLIPSetLastLayer": Kind([("clip", "CLIP")], [("CLIP", "CLIP")], ["stop_at_clip_layer"]),
    "CLIPTextEncode": Kind([("clip", "CLIP"), ("text", "STRING")], [("CONDITIONING", "CONDITIONING")], ["text"]),
    "EmptyLatentImage": Kind(outputs=[("LATENT", "LATENT")], widgets=["width", "height", "batch_size"]),
    "KSampler": Kind(
        [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent_image", "LATENT")],
        [("LATENT", "LATENT")],
        ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"]),
    "VAEDecode": Kind([("samples", "LATENT"), ("vae", "VAE")], [("IMAGE", "IMAGE")]),
    "SaveImage": Kind([("images", "IMAGE")], widgets=["filename_prefix"]),
    "PreviewImage": Kind([("images", "IMAGE")]),
    "PreviewAny": Kind([("source", "*")]),
    "MarkdownNote": Kind(widgets=["text"]),
}


class Graph:
    """Collects nodes, links and groups, and writes them in format 0.4."""

    def __init__(self) -> None:
        self._nodes: list[dict] = []
        self._links: list[list] = []
        self._groups: list[dict] = []

    def group(self, title: str, colour: str, box: tuple[int, int, int, int]) -> None:
        """Add a frame; `box` is x, y, width, height."""
        self._groups.append({"id": len(self._groups) + 1, "title": title, "bounding": list(box),
                             "color": colour, "font_size": 24, "flags": {}})

    def node(self, kind: str, box: tuple[int, int, int, int], *, title: str | None = None, widgets: dict | None = None,
             links: dict[str, tuple[int, str]] | None = None, models: Sequence[dict] = (), note: bool = False) -> int:
        """Add a node and return its id. `links` maps an input to (id of the source, name of its output)."""
        spec, node_id, widgets = KINDS[kind], len(self._nodes) + 1, widgets or {}
        if list(widgets) != list(spec.widgets):
            raise ValueError(f"{kind}: widgets {list(widgets)}, expected {list(spec.widgets)}")
        node = {
            "id": node_id, "type": kind, "pos": list(box[:2]), "size": list(box[2:]), "flags": {},
            "order": node_id - 1, "mode": 0,
            "inputs": [{"name": name, "type": socket, "link": None} for name, socket in spec.inputs],
            "outputs": [{"name": name, "type": socket, "links": []} for name, socket in spec.outputs],
            "properties": {**spec.origin, "Node name for S&R": kind},
            "widgets_values": list(widgets.values()),
        }
        for slot in node["inputs"]:
            if slot["name"] in spec.widgets:
                slot["widget"] = {"name": slot["name"]}
        if title:
            node["title"] = title
        if models:
            node["properties"]["models"] = list(models)
        if note:
            node |= {"color": "#432", "bgcolor": "#653"}  # the front end's own colours for notes
        self._nodes.append(node)
        for name, source in (links or {}).items():
            self._link(node, name, *source)
        return node_id

    def _link(self, node: dict, name: str, source_id: int, output: str) -> None:
        source = self._nodes[source_id - 1]
        slot = [slot["name"] for slot in node["inputs"]].index(name)
        from_slot = [slot["name"] for slot in source["outputs"]].index(output)
        link_id = len(self._links) + 1
        self._links.append([link_id, source_id, from_slot, node["id"], slot, source["outputs"][from_slot]["type"]])
        source["outputs"][from_slot]["links"].append(link_id)
        node["inputs"][slot]["link"] = link_id

    def document(self, graph_id: str) -> dict:
        return {
            "id": graph_id, "revision": 0,
            "last_node_id": len(self._nodes), "last_link_id": len(self._links),
            "nodes": self._nodes, "links": self._links, "groups": self._groups,
            "config": {}, "extra": {}, "version": 0.4,
        }


def build(version: Version) -> dict:
    """The graph of one version: checkpoint and LoHa, character prompt, sampler, picture, report."""
    graph = Graph()
    graph.group("Model", "#b58b2a", (400, 0, 400, 890))
    graph.group("Character", "#c0629b", (820, 0, 440, 890))
    graph.group("Sampling", "#4f9a5f", (1280, 0, 360, 890))
    graph.group("Picture and report", "#3f8fc4", (1660, 0, 480, 890))

    graph.node("MarkdownNote", (0, 30, 380, 480), title="Start here", note=True, widgets={"text": _files_note(version)})
    graph.node("MarkdownNote", (0, 560, 380, 330), title="Prompts", note=True, widgets={"text": _prompt_note(version)})

    checkpoint = graph.node("CheckpointLoaderSimple", (420, 80, 360, 100), models=[CHECKPOINT],
                            title="Checkpoint: any SD 1.5 anime model",
                            widgets={"ckpt_name": CHECKPOINT["name"]})
    loha = graph.node("ShinyMasLoadLoha", (420, 230, 360, 210), models=[version.lora] if version.lora else (),
                      widgets={"lora_name": version.file})
    apply = graph.node(
        "ShinyMasApplyLoha", (420, 490, 360, 380),
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": False, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (loha, "loha"), "clip": (checkpoint, "CLIP")})

    prompt = graph.node(
        "ShinyMasCharacterPrompt", (840, 80, 400, 680),
        widgets={"character": "Kazano Hiori", "model_version": version.name, "tag_set": "identity", "max_tags": 20,
                 "weight": 1.0, "before": "masterpiece, best quality", "after": "looking at viewer, outdoors, blue sky",
                 "exclude": "", "pick": "selected", "seed": 0, "control_after_generate": "fixed",
                 "cast": "shinymas"})
    skip = graph.node("CLIPSetLastLayer", (840, 810, 400, 60), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})

    positive, negative = (
        graph.node("CLIPTextEncode", (1300, y, 320, 90), title=f"{name.capitalize()} prompt",
                   widgets={"text": ""}, links={"clip": (skip, "CLIP"), "text": (prompt, name)})
        for name, y in (("positive", 80), ("negative", 220)))
    size = graph.node("EmptyLatentImage", (1300, 360, 320, 110),
                      widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", (1300, 520, 320, 350),
        widgets={"seed": 1, "control_after_generate": "randomize", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})

    decode = graph.node("VAEDecode", (1680, 80, 440, 50),
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    graph.node("SaveImage", (1680, 180, 440, 360), widgets={"filename_prefix": f"shinymas-{version.name}"},
               links={"images": (decode, "IMAGE")})
    graph.node("PreviewAny", (1680, 590, 440, 280), title="Report: what was applied",
               links={"source": (apply, "report")})
    # Any fixed UUID serves: the front end keeps one per graph to tell its tabs apart.
    return graph.document(f"5817a5c0-10fa-4000-8000-0000000000{version.name[1]}{version.name[3]}")


def _files_note(version: Version) -> str:
    return f"""## ShinyMas {version.name}

Unofficial fan work, not affiliated with the owners of THE iDOLM@STER.

1. **Checkpoint** into `ComfyUI/models/checkpoints`: any SD 1.5 *anime* checkpoint of yours. The plain SD 1.5 that is \
filled in makes the graph run, but it is no anime model.

2. **LoHa** into `ComfyUI/models/loras`: `{version.file}` from {version.where}; {version.about}. Licence of the \
weights: Fair AI Public License 1.0-SD.

3. Press **R** to refresh the lists and choose both files. Pick a character. **Run.**

The report tells how many modules of the LoHa were applied, and why any was not."""


def _prompt_note(version: Version) -> str:
    return f"""- {version.name} knows names as {version.trigger}. With `model_version` at **{version.name}** the \
node writes them so.

- `tag_set`: *identity* is hair, eyes and whatever else makes her; *top* is the model page's list.

- Your own words go into `before` and `after`.

- Clip skip 2, Euler a, 28 steps, CFG 11 and 512×768 are usual for SD 1.5 anime models.

- Style too strong? Try `strength_model` 0.7."""


def write(folder: Path) -> None:
    for version in VERSIONS:
        text = json.dumps(build(version), indent=2, ensure_ascii=False)
        (folder / f"shinymas-{version.name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")
