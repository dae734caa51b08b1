"""A graph as the front end saves and reads it: format 0.4.

Values stand by widget name here and by position in the file, where the canvas-only control below a seed
counts as one more widget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from uuid import UUID, uuid5

LANGUAGES = ("en", "ja", "zh")
# Widgets of the nodes that blueprints hold, by type; one name has one type in all of them.
_WIDGET_TYPES = {
    "COMBO": "cast character ckpt_name label_script lora_name method model_version pick run sampler_name scheduler "
             "tag_set unit",
    "STRING": "after before block_weights exclude keep_in lora_files names negative people shared strengths tags text "
              "title",
    "INT": "batch_size cell_size columns height index max_tags minimum_cards seed steps stop_at_clip_layer width",
    "FLOAT": "cfg denoise feather strength_clip strength_model weight",
    "BOOLEAN": "strict write_thumbnails",
}
TYPE_OF = {name: kind for kind, names in _WIDGET_TYPES.items() for name in names.split()}
_NOTES = Path(__file__).with_name("notes")
CORE = {"cnr_id": "comfy-core", "ver": "0.3.75"}
PACK = {"cnr_id": "shinymas-loha", "ver": "0.1.0"}
_OURS = UUID("5817a5c0-10fa-4000-8000-000000000000")


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
    "ShinyMasHookLoha": Kind(
        inputs=[("loha", "SHINYMAS_LOHA"), ("prev_hooks", "HOOKS")], outputs=[("hooks", "HOOKS"), ("report", "STRING")],
        widgets=["strength_model", "strength_clip", "block_weights"], origin=PACK),
    "CreateHookKeyframe": Kind([("prev_hook_kf", "HOOK_KEYFRAMES")], [("HOOK_KF", "HOOK_KEYFRAMES")],
                               ["strength_mult", "start_percent"]),
    "SetHookKeyframes": Kind([("hooks", "HOOKS"), ("hook_kf", "HOOK_KEYFRAMES")], [("HOOKS", "HOOKS")]),
    "SetClipHooks": Kind([("clip", "CLIP"), ("hooks", "HOOKS")], [("CLIP", "CLIP")],
                         ["apply_to_conds", "schedule_clip"]),
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


# The ends of a subgraph's own inputs and outputs, as links name them.
_INPUTS, _OUTPUTS = -10, -20


@dataclass(frozen=True)
class Promoted:
    """A widget that a blueprint shows outside: its name there, and (node, widget) for each that it sets."""

    name: str
    sets: Sequence[tuple[int, str]]

    @property
    def type(self) -> str:
        return TYPE_OF[self.sets[0][1]]


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
        kind = source["outputs"][from_slot]["type"]
        source["outputs"][from_slot]["links"].append(self._feed(node, name, source_id, from_slot, kind))

    def _feed(self, node: dict, name: str, source_id: int, from_slot: int, kind: str) -> int:
        """A link to this input of `node`; its id."""
        if name not in [slot["name"] for slot in node["inputs"]]:
            node["inputs"].append({"name": name, "type": kind, "link": None, "widget": {"name": name}})
        slot = [slot["name"] for slot in node["inputs"]].index(name)
        link_id = len(self._links) + 1
        self._links.append([link_id, source_id, from_slot, node["id"], slot, kind])
        node["inputs"][slot]["link"] = link_id
        return link_id

    def document(self, graph_id: str) -> dict:
        return {
            "id": graph_id, "revision": 0,
            "last_node_id": len(self._nodes), "last_link_id": len(self._links),
            "nodes": self._nodes, "links": self._links, "groups": self._groups,
            "config": {}, "extra": {"ds": {"scale": _SCALE, "offset": list(_OFFSET)}}, "version": 0.4,
        }

    def blueprint(self, name: str, description: str, widgets: Sequence[Promoted],
                  outputs: Sequence[tuple[int, str, str]], height: int) -> dict:
        """The graph as a subgraph that is offered under `name`: a document that holds one node of it.

        Args:
            widgets: what that node shows.
            outputs: (node, its output, name outside) of each of that node's outputs.
            height: of that node.
        """
        for node in self._nodes:
            self._show_all_inputs(node)
        inside, node_id = str(uuid5(_OURS, name)), len(self._nodes) + 1
        takes = [self._input(number, widget, inside) for number, widget in enumerate(widgets)]
        gives = [self._output(number, *output, inside) for number, output in enumerate(outputs)]
        left, right = min(node["pos"][0] for node in self._nodes), max(
            node["pos"][0] + node["size"][0] for node in self._nodes)
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        subgraph = {
            "id": inside, "version": 1, "revision": 0, "config": {}, "name": name,
            "state": {"lastNodeId": len(self._nodes), "lastLinkId": len(self._links),
                      "lastGroupId": len(self._groups), "lastRerouteId": 0},
            "inputNode": {"id": _INPUTS, "bounding": [left - 240, 0, 160, 40 + 20 * len(takes)]},
            "outputNode": {"id": _OUTPUTS, "bounding": [right + 80, 0, 120, 40 + 20 * len(gives)]},
            "inputs": takes, "outputs": gives, "widgets": [], "nodes": self._nodes, "groups": self._groups,
            "links": [dict(zip(keys, link, strict=True)) for link in self._links], "extra": {},
            "category": "ShinyMas", "description": description,
        }
        node = {
            "id": node_id, "type": inside, "title": name, "pos": [0, 0], "size": [340, height], "flags": {}, "order": 0,
            "mode": 0, "properties": dict(PACK), "widgets_values": [],
            "inputs": [{"name": one["name"], "type": one["type"], "link": None, "widget": {"name": one["name"]}}
                       for one in takes],
            "outputs": [{"name": one["name"], "type": one["type"], "links": []} for one in gives],
        }
        return {"id": str(uuid5(_OURS, f"{name}, its file")), "revision": 0, "last_node_id": node_id,
                "last_link_id": 0, "nodes": [node], "links": [], "groups": [], "config": {},
                "definitions": {"subgraphs": [subgraph]}, "extra": {"BlueprintDescription": description},
                "version": 0.4}

    def _show_all_inputs(self, node: dict) -> None:
        """Every widget of `node` gets a socket, below the others and in their order.

        So does the page; where links lead then it mends in graphs, but in 1.32 not in subgraphs.
        """
        spec, there = KINDS[node["type"]], {slot["name"]: slot for slot in node["inputs"]}
        node["inputs"] = [there[name] for name, _ in spec.inputs] + [
            there.get(name) or {"name": name, "type": TYPE_OF[name], "link": None, "widget": {"name": name}}
            for name in spec.widgets if name != "control_after_generate"]
        places = {slot["link"]: place for place, slot in enumerate(node["inputs"])}
        for link in self._links:
            if link[3] == node["id"]:
                link[4] = places[link[0]]

    def _input(self, number: int, widget: Promoted, inside: str) -> dict:
        links = [self._feed(self._nodes[node - 1], name, _INPUTS, number, widget.type) for node, name in widget.sets]
        return {"id": str(uuid5(UUID(inside), f"input {widget.name}")), "name": widget.name, "type": widget.type,
                "linkIds": links}

    def _output(self, number: int, node: int, output: str, name: str, inside: str) -> dict:
        source = self._nodes[node - 1]
        slot = [slot["name"] for slot in source["outputs"]].index(output)
        kind, link_id = source["outputs"][slot]["type"], len(self._links) + 1
        self._links.append([link_id, node, slot, _OUTPUTS, number, kind])
        source["outputs"][slot]["links"].append(link_id)
        return {"id": str(uuid5(UUID(inside), f"output {name}")), "name": name, "type": kind, "linkIds": [link_id]}
