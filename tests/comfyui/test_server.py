"""The pack in a real ComfyUI: it is loaded, it draws, and it costs nothing until asked."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_server import PromptFailed

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


def test_a_refused_prompt_raises(run_graph):
    with pytest.raises(PromptFailed, match="refused the prompt"):
        run_graph({"1": {"class_type": "NoSuchNode", "inputs": {}}})


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
