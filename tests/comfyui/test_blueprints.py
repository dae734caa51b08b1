"""The blueprints: offered by a real server, whole, and drawn from, as they are dropped into a graph."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import pytest
from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import PACK_NAME

ROOT = Path(__file__).resolve().parents[2]
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
INPUTS, OUTPUTS = -10, -20  # the ends of a subgraph's own inputs and outputs
WIDGETS = ("COMBO", "STRING", "INT", "FLOAT", "BOOLEAN")
SMALL = {"width": 64, "height": 64, "steps": 1, "seed": 3}


@pytest.fixture(params=BLUEPRINTS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def document(path):
    return json.loads(path.read_text(encoding="ascii"))  # ComfyUI reads it in the system's encoding


def inside(document):
    (subgraph,) = document["definitions"]["subgraphs"]
    return subgraph


def declared(info):
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def test_the_server_offers_all_three(server):
    offered = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()
               if entry["info"]["node_pack"] == f"custom_nodes.{PACK_NAME}"}
    assert sorted(offered) == ["ShinyMas Draw one", "ShinyMas Draw two", "ShinyMas Sheet of the cast"]
    for path in BLUEPRINTS:
        assert server.get(f"/global_subgraphs/{offered[path.stem]}")["data"] == path.read_text(encoding="ascii")


def test_it_is_one_node_of_its_own_subgraph(path, document):
    (node,) = document["nodes"]
    subgraph = inside(document)
    assert node["type"] == subgraph["id"] and subgraph["name"] == node["title"] == path.stem
    assert document["extra"]["BlueprintDescription"] == subgraph["description"]
    assert node["id"] not in {one["id"] for one in subgraph["nodes"]}
    for mine, its in ((node["inputs"], subgraph["inputs"]), (node["outputs"], subgraph["outputs"])):
        assert [(one["name"], one["type"]) for one in mine] == [(one["name"], one["type"]) for one in its]


def test_both_ends_of_every_link_know_it(document):
    subgraph = inside(document)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for link in subgraph["links"]:
        source, target = link["origin_id"], link["target_id"]
        gives = (subgraph["inputs"][link["origin_slot"]] if source == INPUTS else
                 nodes[source]["outputs"][link["origin_slot"]])
        takes = (subgraph["outputs"][link["target_slot"]] if target == OUTPUTS else
                 nodes[target]["inputs"][link["target_slot"]])
        assert gives["type"] == link["type"] and takes["type"] == link["type"]
        assert link["id"] in (gives["linkIds"] if source == INPUTS else gives["links"])
        assert (link["id"] in takes["linkIds"]) if target == OUTPUTS else takes["link"] == link["id"]
    numbers = [link["id"] for link in subgraph["links"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)) and subgraph["state"]["lastLinkId"] == len(numbers)


def test_every_input_has_its_socket_where_the_page_puts_it(document, object_info):
    """Widgets below the others: 1.32 does not mend where a subgraph's links lead. A later widget is no harm."""
    for node in inside(document)["nodes"]:
        there = [(name, "COMBO" if isinstance(kind, list) else kind, dict(*rest).get("forceInput"))
                 for name, (kind, *rest) in declared(object_info[node["type"]]).items()]
        is_widget = [kind in WIDGETS and not forced for _, kind, forced in there]
        sockets = [one[:2] for one, widget in zip(there, is_widget, strict=True) if not widget]
        widgets = [one[:2] for one, widget in zip(there, is_widget, strict=True) if widget]
        mine = [(slot["name"], slot["type"]) for slot in node["inputs"]]
        assert mine == (sockets + widgets)[:len(mine)] and len(mine) >= len(sockets), node["type"]
        assert [(slot["name"], slot["type"]) for slot in node["inputs"] if "widget" in slot] == mine[len(sockets):]


def test_what_it_shows_outside_is_a_widget_inside(document, object_info):
    subgraph = inside(document)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for number, shown in enumerate(subgraph["inputs"]):
        links = [link for link in subgraph["links"] if link["id"] in shown["linkIds"]]
        assert links and all(link["origin_id"] == INPUTS and link["origin_slot"] == number for link in links)
        for link in links:
            slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            kind = declared(object_info[nodes[link["target_id"]]["type"]])[slot["widget"]["name"]][0]
            assert shown["type"] == ("COMBO" if isinstance(kind, list) else kind)


def test_it_draws(path, document, object_info, run_graph, server, checkpoint, sample_loha):
    graph = copy.deepcopy(document)
    (node,) = graph["nodes"]
    saved = {"id": 900, "type": "SaveImage", "pos": [400, 0], "size": [300, 200], "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [], "properties": {},
             "widgets_values": ["blueprint"]}
    node["outputs"][0]["links"] = [1]
    graph["nodes"].append(saved)
    graph["links"] = [[1, node["id"], 0, 900, 0, "IMAGE"]]
    values = {"ckpt_name": checkpoint, "lora_name": sample_loha, "strength": 0.9, **SMALL,
              "names": "Kazano Hiori\nSakuragi Mano"}
    its_own = {"character": "Kazano Hiori", "model_version": "v2.1", "before": "masterpiece", "after": "smile",
               "people": "Kazano Hiori | left\nSakuragi Mano", "shared": "outdoors", "method": "attention couple",
               "feather": 8.0, "unit": "every unit", "strengths": "", "cfg": 7.0}
    node["widgets_values"] = [(values | its_own)[shown["name"]] for shown in node["inputs"]]
    prompt = convert_ui_to_api(graph, object_info)
    for api in prompt.values():
        if api["class_type"] == "ShinyMasApplyLoha" and "strength" in (one["name"] for one in node["inputs"]):
            assert api["inputs"]["strength_model"] == api["inputs"]["strength_clip"] == 0.9
    outputs = run_graph(prompt)
    ((image,),) = [output["images"] for output in outputs.values() if output.get("images", [{}])[0].get("filename", "")
                   .startswith("blueprint")]
    wide, high = struct.unpack(">II", server.picture(image)[16:24])
    assert (wide, high) == (64, 64) if "Sheet" not in path.stem else wide > high > 64
