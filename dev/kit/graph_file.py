"""A graph as the front end saves and reads it: format 0.4.

Values stand by widget name here and by position in the file, where the canvas-only control below a seed
counts as one more widget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

LANGUAGES = ("en", "ja", "zh")
_NOTES = Path(__file__).with_name("notes")
CORE = {"cnr_id": "comfy-core", "ver": "0.3.75"}
PACK = {"cnr_id": "shinymas-loha", "ver": "0.1.0"}


@dataclass(frozen=True)
class Kind:
    """A node type: its input sockets, output sockets (name, type) and widgets, in ComfyUI's order.

    A widget that a link feeds gets a socket in the graph.
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
        inputs=[("previous", "STRING"), ("loha", "SHINYMAS_LOHA")],
        outputs=[("positive", "STRING"), ("negative", "STRING"), ("character", "STRING"), ("cards", "INT")],
        widgets=["character", "model_version", "tag_set", "max_tags", "weight", "before", "after", "exclude",
                 "pick", "seed", "control_after_generate", "cast", "tags"], origin=PACK),
    "ShinyMasScene": Kind(
        inputs=[("model", "MODEL"), ("clip", "CLIP"), ("loha", "SHINYMAS_LOHA"), ("latent", "LATENT")],
        outputs=[("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("text", "STRING"),
                 ("layout", "IMAGE")],
        widgets=["people", "shared", "negative", "model_version", "tag_set", "method", "feather", "width", "height",
                 "cast"], origin=PACK),
    "ShinyMasCharacterList": Kind(
        inputs=[("cast_yaml", "STRING")],
        outputs=[("positive", "STRING"), ("character", "STRING"), ("label", "STRING"), ("cards", "INT"),
                 ("strength", "FLOAT"), ("title", "STRING"), ("lora_name", "COMBO")],
        widgets=["unit", "minimum_cards", "model_version", "tag_set", "max_tags", "weight", "before", "after",
                 "exclude", "names", "strengths", "label_script", "run", "index", "control_after_generate", "cast",
                 "lora_files"], origin=PACK),
    "ShinyMasSheet": Kind(
        inputs=[("images", "IMAGE"), ("labels", "STRING"), ("characters", "STRING")],
        outputs=[("sheet", "IMAGE")],
        widgets=["columns", "cell_size", "title", "keep_in", "write_thumbnails"], origin=PACK),
    "CLIPSetLastLayer": Kind([("clip", "CLIP")], [("CLIP", "CLIP")], ["stop_at_clip_layer"]),
    "CLIPTextEncode": Kind([("clip", "CLIP")], [("CONDITIONING", "CONDITIONING")], ["text"]),
    "EmptyLatentImage": Kind(outputs=[("LATENT", "LATENT")], widgets=["width", "height", "batch_size"]),
    "KSampler": Kind(
        [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent_image", "LATENT")],
        [("LATENT", "LATENT")],
        ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"]),
    "VAEDecode": Kind([("samples", "LATENT"), ("vae", "VAE")], [("IMAGE", "IMAGE")]),
    "SaveImage": Kind([("images", "IMAGE")], widgets=["filename_prefix"]),
    "PreviewImage": Kind([("images", "IMAGE")]),
    "MarkdownNote": Kind(widgets=["text"]),
}


TITLE = 30  # above a node's own box
_GAP = 16
# The first view: whole at 1366 × 768, beside the page's bars, and large enough to read.
_SCALE, _OFFSET = 0.71, (95, 235)
_BYPASSED = 4  # the front end's mode for a node that is switched off


@dataclass
class Column:
    """Boxes for nodes, from top to bottom."""

    x: int
    width: int
    height: int
    _y: int = 0

    def box(self, height: int | None = None) -> tuple[int, int, int, int]:
        """The next node's: of this height, 0 for a collapsed one; without a height all that is left."""
        height = self.height - TITLE - self._y if height is None else height
        box = (self.x, self._y, self.width, height)
        self._y += height + _GAP + TITLE
        return box


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

    def notes(self, name: str, words: Callable[[str], Mapping[str, str]], x: int, width: int, height: int) -> None:
        """Add a note for each language, one below the other: notes/`name`.LANGUAGE.md, filled in with `words`."""
        each = (height + _GAP) // len(LANGUAGES)
        for number, language in enumerate(LANGUAGES):
            title, _, text = (_NOTES / f"{name}.{language}.md").read_text(encoding="utf-8").strip().partition("\n")
            self.node("MarkdownNote", (x, number * each, width, each - _GAP - TITLE), title=title.removeprefix("# "),
                      widgets={"text": Template(text).substitute(words(language))})

    def column(self, title: str, colour: str, x: int, width: int, height: int) -> Column:
        """Add a frame with room for nodes, and return what puts them there."""
        self.group(title, colour, (x - 10, -TITLE - 50, width + 20, height + 60))
        return Column(x, width, height)

    def node(self, kind: str, box: tuple[int, int, int, int], *, title: str | None = None, widgets: dict | None = None,
             links: dict[str, tuple[int, str]] | None = None, models: Sequence[dict] = (), is_off: bool = False,
             is_small: bool = False) -> int:
        """Add a node and return its id. `links` maps an input to (id of the source, name of its output)."""
        spec, node_id, widgets = KINDS[kind], len(self._nodes) + 1, widgets or {}
        if list(widgets) != list(spec.widgets):
            raise ValueError(f"{kind}: widgets {list(widgets)}, expected {list(spec.widgets)}")
        node = {
            "id": node_id, "type": kind, "pos": list(box[:2]), "size": list(box[2:]),
            "flags": {"collapsed": True} if is_small else {},
            "order": node_id - 1, "mode": _BYPASSED if is_off else 0,
            "inputs": [{"name": name, "type": socket, "link": None} for name, socket in spec.inputs],
            "outputs": [{"name": name, "type": socket, "links": []} for name, socket in spec.outputs],
            "properties": {**spec.origin, "Node name for S&R": kind},
            "widgets_values": list(widgets.values()),
        }
        if title:
            node["title"] = title
        if kind == "MarkdownNote":
            # None of its own: on the front end's brown its text has 2.8 : 1 in Nodes 2.0. (Code has 4.2 on a
            # plain node: the notes write names in bold.)
            node |= {"color": "", "bgcolor": ""}
        if models:
            node["properties"]["models"] = list(models)
        self._nodes.append(node)
        for name, source in (links or {}).items():
            self._link(node, name, *source)
        return node_id

    def _link(self, node: dict, name: str, source_id: int, output: str) -> None:
        source = self._nodes[source_id - 1]
        from_slot = [slot["name"] for slot in source["outputs"]].index(output)
        if name in KINDS[node["type"]].widgets:
            node["inputs"].append({"name": name, "type": source["outputs"][from_slot]["type"], "link": None,
                                   "widget": {"name": name}})
        slot = [slot["name"] for slot in node["inputs"]].index(name)
        link_id = len(self._links) + 1
        self._links.append([link_id, source_id, from_slot, node["id"], slot, source["outputs"][from_slot]["type"]])
        source["outputs"][from_slot]["links"].append(link_id)
        node["inputs"][slot]["link"] = link_id

    def document(self, graph_id: str) -> dict:
        return {
            "id": graph_id, "revision": 0,
            "last_node_id": len(self._nodes), "last_link_id": len(self._links),
            "nodes": self._nodes, "links": self._links, "groups": self._groups,
            "config": {}, "extra": {"ds": {"scale": _SCALE, "offset": list(_OFFSET)}}, "version": 0.4,
        }
