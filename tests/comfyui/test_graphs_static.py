"""The shipped graphs as files: format 0.4, whole links, widgets as the nodes declare them, a clean layout."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
NOTE = "MarkdownNote"  # lives in the front end alone: the server does not know it
TITLE = 30  # height of a node's title, which stands above its position
FOLDERS = {"ckpt_name": "checkpoints", "lora_name": "loras"}
TAGGERS = {"model", "tagger"}
WIDGET_TYPES = {"COMBO": str, "STRING": str, "INT": int, "FLOAT": (int, float), "BOOLEAN": bool}


@pytest.fixture(params=GRAPHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def graph(path):
    return json.loads(path.read_text(encoding="utf-8"))


def declared(info):
    """Input name → (type, options) as the server declares them; a list of choices is a COMBO."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    for name, (kind, *rest) in inputs.items():
        options = dict(rest[0]) if rest else {}
        if isinstance(kind, list):
            kind, options = "COMBO", {**options, "options": kind}
        yield name, kind, options


def widgets(info):
    """(name, type, options) of each entry of widgets_values, the control below a seed included."""
    for name, kind, options in declared(info):
        if kind in WIDGET_TYPES and not options.get("forceInput"):
            yield name, kind, options
            if options.get("control_after_generate"):
                choices = ["fixed", "increment", "decrement", "randomize"]
                yield "control_after_generate", "COMBO", {"options": choices}


def test_all_versions_are_shipped():
    assert [path.stem for path in GRAPHS] == [
        "pictures-to-character", "shinymas-hook", "shinymas-scene", "shinymas-sheet", "shinymas-v1.0", "shinymas-v2.0",
        "shinymas-v2.1", "train-shinymas-v2.0", "train-shinymas-v2.1",
    ]  # fmt: skip


def test_the_files_are_what_the_script_writes(tmp_path):
    subprocess.run([sys.executable, ROOT / "dev" / "write_workflows.py", tmp_path], check=True)
    for path in (*GRAPHS, *BLUEPRINTS):
        assert (tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_ids_are_unique_and_counted(graph):
    nodes, links = [node["id"] for node in graph["nodes"]], [link[0] for link in graph["links"]]
    assert graph["version"] == 0.4
    assert len(set(nodes)) == len(nodes) and max(nodes) == graph["last_node_id"]
    assert len(set(links)) == len(links) and max(links) == graph["last_link_id"]


def test_both_ends_of_every_link_know_it(graph):
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, source, output, target, slot, kind in graph["links"]:
        assert nodes[source]["outputs"][output]["type"] == kind
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["type"] in (kind, "*")
        assert nodes[target]["inputs"][slot]["link"] == link
    ends = [link for node in nodes.values() for output in node["outputs"] for link in output["links"]]
    ends += [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    assert sorted(ends) == sorted(2 * [link[0] for link in graph["links"]])


def test_sockets_are_those_of_the_nodes(graph, object_info):
    for node in graph["nodes"]:
        if node["type"] == NOTE:
            continue
        info = object_info[node["type"]]
        known = {name: kind for name, kind, _ in declared(info)}
        assert {slot["name"]: slot["type"] for slot in node["inputs"]}.items() <= known.items()
        outputs = [(slot["name"], slot["type"]) for slot in node["outputs"]]
        there = list(zip(info["output_name"], info["output"], strict=True))
        # ComfyUI's own nodes get outputs behind those of 0.3.75: SaveImage hands its pictures on since.
        assert outputs == (there if node["type"].startswith("ShinyMas") else there[:len(outputs)])
        required = {
            name
            for name, (kind, *_) in info["input"].get("required", {}).items()
            if not isinstance(kind, list) and kind not in WIDGET_TYPES
        }
        assert required <= {slot["name"] for slot in node["inputs"] if slot["link"] is not None}


def test_every_widget_has_a_value_that_its_node_takes(graph, object_info):
    for node in graph["nodes"]:
        if node["type"] == NOTE:
            continue
        expected = list(widgets(object_info[node["type"]]))
        assert len(node["widgets_values"]) == len(expected), node["type"]
        for value, (name, kind, options) in zip(node["widgets_values"], expected, strict=True):
            assert isinstance(value, WIDGET_TYPES[kind]), (node["type"], name)
            if kind == "COMBO" and name not in {*FOLDERS, *TAGGERS}:  # what is in the folders is up to the person
                assert value in options["options"], (node["type"], name)
            if "min" in options:
                assert options["min"] <= value <= options["max"], (node["type"], name)


def test_a_missing_pack_can_be_found(graph):
    for node in graph["nodes"]:
        ours = node["type"].startswith("ShinyMas")
        properties = node["properties"]
        assert properties["cnr_id"] == ("shinymas-loha" if ours else "comfy-core")
        assert properties["ver"] == ("0.1.0" if ours else "0.3.75")
        assert properties["Node name for S&R"] == node["type"]


def test_linked_models_can_be_offered_for_download(graph, object_info):
    for node in graph["nodes"]:
        for model in node["properties"].get("models", ()):
            names = [name for name, *_ in widgets(object_info[node["type"]])]
            (widget,) = set(names) & set(FOLDERS)
            assert model["name"] == node["widgets_values"][names.index(widget)]
            assert model["name"].endswith(".safetensors")
            assert model["directory"] == FOLDERS[widget]
            assert model["url"].startswith(("https://civitai.com/api/download/models/", "https://huggingface.co/"))


def test_nothing_overlaps(graph):
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in graph["nodes"]}
    boxes = {key: (x, y - TITLE, x + width, y + height) for key, (x, y, width, height) in boxes.items()}
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one, other)
    for group in graph["groups"]:
        x, y, width, height = group["bounding"]
        for key, (left, top, right, bottom) in boxes.items():
            inside = x <= left and right <= x + width and y <= top and bottom <= y + height
            outside = right <= x or x + width <= left or bottom <= y or y + height <= top
            assert inside or outside, (group["title"], key)


def test_a_thumbnail_lies_beside_it(path):
    picture = path.with_suffix(".jpg").read_bytes()
    assert picture[:3] == b"\xff\xd8\xff"
    assert len(picture) < 150_000
