"""The pack in a real ComfyUI: it is loaded, it draws, and it costs nothing until asked."""

import io
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.comfyui_server import PromptFailed
from PIL import Image
from shinymas_loha.characters.errors import CastError, PromptError
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.training.run.progress import TrainingError

PACK = Path(__file__).resolve().parents[2]


def picture_graph(checkpoint, sample_loha, strength):
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "loha": {"class_type": "ShinyMasLoadLoha", "inputs": {"lora_name": sample_loha}},
        "apply": {
            "class_type": "ShinyMasApplyLoha",
            "inputs": {
                "model": ["model", 0], "clip": ["model", 1], "loha": ["loha", 0],
                "strength_model": strength, "strength_clip": strength, "strict": True,
            },
        },
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["apply", 1], "text": "Kazano Hiori"}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["apply", 0], "positive": ["text", 0], "negative": ["text", 0],
                "latent_image": ["latent", 0], "seed": 1, "steps": 1, "cfg": 1.0, "denoise": 1.0,
                "sampler_name": "euler", "scheduler": "normal",
            },
        },
        "image": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["model", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["image", 0], "filename_prefix": "test"}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["apply", 2]}},
    }  # fmt: skip


def test_nodes_are_registered(object_info):
    assert {"ShinyMasLoadLoha", "ShinyMasApplyLoha", "ShinyMasCharacterPrompt"} <= set(object_info)


def test_a_loha_changes_the_picture_and_all_of_it_is_applied(server, run_graph, checkpoint, sample_loha):
    pictures = []
    for strength in (0.0, 1.0):
        outputs = run_graph(picture_graph(checkpoint, sample_loha, strength))
        pictures.append(server.picture(outputs["save"]["images"][0]))
    report = outputs["report"]["text"][0].splitlines()
    modules = int(report[0].removeprefix("modules: "))
    assert modules > 100
    assert report[1:4] == [f"applied: {modules}", "skipped: 0", "unknown: 0"]
    assert [struct.unpack(">II", picture[16:24]) for picture in pictures] == [(64, 64)] * 2
    assert pictures[0] != pictures[1]


def two_samplers(checkpoint, sample_loha, first, second):
    """One checkpoint and one LoHa, drawn with at two strengths in one graph."""
    nodes = picture_graph(checkpoint, sample_loha, first)
    others = {name: node for name, node in picture_graph(checkpoint, sample_loha, second).items()
              if name not in ("model", "loha")}
    for node in others.values():
        node["inputs"] = {name: [f"second {value[0]}", value[1]] if isinstance(value, list) and value[0] in others
                          else value for name, value in node["inputs"].items()}
    return nodes | {f"second {name}": node for name, node in others.items()}


def test_two_samplers_in_one_graph_draw_as_two_graphs_do(server, run_graph, checkpoint, sample_loha):
    def picture(outputs, name="save"):  # its file holds the graph as well
        return Image.open(io.BytesIO(server.picture(outputs[name]["images"][0]))).tobytes()

    alone = [picture(run_graph(picture_graph(checkpoint, sample_loha, strength))) for strength in (0.45, 0.95)]
    # Run again: a cached sampler would draw nothing.
    server.post("/free", {"unload_models": True, "free_memory": True})
    outputs = run_graph(two_samplers(checkpoint, sample_loha, 0.45, 0.95))
    assert [picture(outputs), picture(outputs, "second save")] == alone
    assert alone[0] != alone[1]


def test_a_cancelled_run_leaves_no_trace_in_the_next(server, run_graph, checkpoint, sample_loha):
    graph = picture_graph(checkpoint, sample_loha, 0.35)
    before = server.picture(run_graph(graph)["save"]["images"][0])
    long = picture_graph(checkpoint, sample_loha, 0.85)
    long["sample"]["inputs"] |= {"steps": 500, "seed": 2}
    prompt_id = server.queue(long)
    cancelled = {}
    while not cancelled:
        time.sleep(0.3)  # until the interrupt meets the sampler: one that comes too early is forgotten
        server.post("/interrupt", {})
        cancelled = server.get(f"/history/{prompt_id}")
    assert "execution_interrupted" in dict(cancelled[prompt_id]["status"]["messages"])
    graph["sample"]["inputs"]["seed"] = 3  # so that ComfyUI samples again
    run_graph(graph)
    graph["sample"]["inputs"]["seed"] = 1
    assert server.picture(run_graph(graph)["save"]["images"][0]) == before


def test_a_refused_prompt_raises(run_graph):
    with pytest.raises(PromptFailed, match="refused the prompt"):
        run_graph({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_an_error_is_named_without_the_packs_folder(run_graph, base, node):
    """ComfyUI names a class by its module, for a pack a whole path: front ends cut the message off behind it."""
    (base / "models" / "loras" / "page.safetensors").write_text("<!DOCTYPE html><title>Log in</title>" * 9)
    with pytest.raises(PromptFailed, match="it looks like a web page") as failed:
        run_graph({"load": node("ShinyMasLoadLoha", lora_name="page.safetensors"),
                   "show": node("PreviewAny", source=["load", 1])})
    assert failed.value.details["exception_type"] == "ShinyMas.FileError"
    assert {error.__module__ for error in (FileError, TrainingError, CastError, PromptError)} == {"ShinyMas"}


def test_a_clip_that_goes_out_must_come_in(run_graph, checkpoint, sample_loha):
    """Where somebody needs it: what ComfyUI's own nodes say of a CLIP that is None names nothing of this."""
    graph = picture_graph(checkpoint, sample_loha, 1.0)
    del graph["apply"]["inputs"]["clip"]
    graph["apply"]["inputs"]["strict"] = False
    graph["text"]["_meta"] = {"title": "Positive prompt"}
    with pytest.raises(PromptFailed, match="'Positive prompt' takes the CLIP .* nothing is connected to its clip"):
        run_graph(graph)
    graph["text"]["inputs"]["clip"] = ["model", 1]
    graph["left"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["apply", 1], "text": "nobody asks for it"}}
    assert run_graph(graph)["save"]["images"]


def test_the_sample_model_is_taken_for_sd15(small_model, comfy):
    model, clip, vae = small_model
    assert type(model.model.model_config).__name__ == "SD15"
    assert len(clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers) == 12
    assert vae.latent_channels == 4


def test_importing_the_pack_imports_nothing_else():
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('pack', sys.argv[1],"
        " submodule_search_locations=[sys.argv[2]])\n"
        "pack = sys.modules['pack'] = importlib.util.module_from_spec(spec)\n"
        "before = set(sys.modules)\n"
        "spec.loader.exec_module(pack)\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    command = [sys.executable, "-c", code, str(PACK / "__init__.py"), str(PACK)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
