"""The shipped graphs on a real server, start to picture; and the same latent as core's LoraLoader gives."""

import copy
import json
import struct
from pathlib import Path

import pytest
from comfy_cli.workflow_to_api import convert_ui_to_api
from safetensors.torch import load_file

GRAPHS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("shinymas-v*.json"))
# As version 0.1.0 shipped it: a person's saved graph.
OLD = Path(__file__).resolve().parents[1] / "data" / "0.1.0" / "shinymas-v2.1.json"
SIZE = (64, 96)


@pytest.fixture(scope="module")
def prompt_of(object_info, checkpoint, sample_loha):
    """A shipped graph as an API prompt: as it is, but for the files, the size and the number of steps."""
    overrides = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "ShinyMasLoadLoha": {"lora_name": sample_loha},
        "EmptyLatentImage": dict(zip(("width", "height"), SIZE, strict=True)),
        "KSampler": {"steps": 2},
    }

    def convert(path):
        prompt = convert_ui_to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
        for node in prompt.values():
            node["inputs"] |= overrides.get(node["class_type"], {})
        return prompt

    return convert


def the(prompt, kind):
    """Id of the prompt's only node of this class."""
    (found,) = [key for key, node in prompt.items() if node["class_type"] == kind]
    return found


@pytest.mark.parametrize("path", [*GRAPHS, OLD], ids=[*(path.stem for path in GRAPHS), "0.1.0"])
def test_a_shipped_graph_draws_and_reports(path, prompt_of, run_graph, server):
    prompt = prompt_of(path)
    # Else a node is as in the graph before, does not run anew, and says nothing.
    prompt[the(prompt, "ShinyMasCharacterPrompt")]["inputs"]["after"] = f"after {path.parent.name}"
    prompt[the(prompt, "ShinyMasApplyLoha")]["inputs"]["strength_model"] = 0.9 + 0.01 * [*GRAPHS, OLD].index(path)
    outputs = run_graph(prompt)
    (image,) = outputs[the(prompt, "SaveImage")]["images"]
    assert struct.unpack(">II", server.picture(image)[16:24]) == SIZE
    report = outputs[the(prompt, "ShinyMasApplyLoha")]["text"][0].splitlines()
    modules = int(report[0].removeprefix("modules: "))
    assert modules > 100
    assert report[1:4] == [f"applied: {modules}", "skipped: 0", "unknown: 0"]
    (said,) = outputs[the(prompt, "ShinyMasCharacterPrompt")]["text"]
    trigger = "Hiori Kazano" if path.stem == "shinymas-v1.0" else "Kazano Hiori"
    assert said.startswith(f"masterpiece, best quality, {trigger}, ")
    assert f", after {path.parent.name}" in said


@pytest.mark.parametrize(("strength_model", "strength_clip"), [(1.0, 1.0), (0.6, -0.4)])
def test_the_latent_is_that_of_cores_lora_loader(strength_model, strength_clip, prompt_of, run_graph, server,
                                                 sample_loha):
    strengths = {"strength_model": strength_model, "strength_clip": strength_clip}
    ours = prompt_of(GRAPHS[-1])
    apply, sampler = the(ours, "ShinyMasApplyLoha"), the(ours, "KSampler")
    ours[apply]["inputs"] |= strengths
    core, bare = copy.deepcopy(ours), copy.deepcopy(ours)
    core[apply] = {
        "class_type": "LoraLoader",
        "inputs": {key: ours[apply]["inputs"][key] for key in ("model", "clip")}
        | strengths | {"lora_name": sample_loha},
    }  # fmt: skip
    bare[apply]["inputs"] |= {"strength_model": 0.0, "strength_clip": 0.0}
    latents = []
    for prompt in (ours, core, bare):
        del prompt[the(prompt, "SaveImage")]
        prompt["latent"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [sampler, 0], "filename_prefix": "latents/graph"},
        }
        (saved,) = run_graph(prompt)["latent"]["latents"]
        latents.append(load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"])
    ours, core, bare = latents
    scale = core.abs().max()
    # Weights agree within 1e-5 of each; two steps at CFG 11 carry that into the latent some ten times larger.
    assert (ours - core).abs().max() <= 1e-3 * scale
    assert (bare - core).abs().max() > 0.05 * scale
