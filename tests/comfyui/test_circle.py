"""From a folder of pictures to characters in a picture, in one run: the shipped graph, on the sample models."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.workspace import library
from PIL import Image
from small_taggers import write_tagger

GRAPH = Path(__file__).resolve().parents[2] / "workflows" / "pictures-to-character.json"
SETTINGS = """
network_dim = 2
network_train_unet_only = true
max_train_epochs = 1
max_token_length = 75
output_name = "my-characters"
save_every_n_epochs = 0
"""


def test_from_pictures_to_characters(run_graph, object_info, base, checkpoint):
    folder = base / "input" / "my-characters"
    for name, colour in (("2_Red One", (200, 0, 0)), ("1_Green One", (0, 200, 0))):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), colour).save(folder / name / f"{number}.png")
    write_tagger(base / "models" / "taggers" / "circle")
    prompt = convert_ui_to_api(json.loads(GRAPH.read_text(encoding="utf-8")), object_info)
    small = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "ShinyMasTagImages": {"model": "circle/model.onnx"},
        "ShinyMasRecognition": {"tagger": "circle/model.onnx"},
        "ShinyMasTrainingData": {"resolution": 64, "bucket_min": 64, "bucket_max": 64, "batch_size": 2},
        "ShinyMasTrainingSettings": {"config": SETTINGS},
        "EmptyLatentImage": {"width": 32, "height": 32}, "KSampler": {"steps": 1},
    }
    for node in prompt.values():
        node["inputs"] |= small.get(node["class_type"], {})
    said = {prompt[key]["class_type"]: output for key, output in run_graph(prompt).items()}

    assert (folder / "2_Red One" / "0.txt").read_text(encoding="utf-8").startswith("Red One, ")
    casts = library("characters").load_casts(base / "user")
    found = {who.name: who.identity for who in casts.get("my-characters").characters}
    assert found == {"Red One": ("long hair",), "Green One": ("long hair",)}
    assert said["ShinyMasTrainLoha"]["text"][0].splitlines()[1].startswith("steps: ")
    assert (base / "models" / "loras" / "my-characters-1.safetensors").is_file()
    assert said["ShinyMasCharacterList"]["text"][0].splitlines()[0] == "2 characters, 8 pictures"
    assert said["ShinyMasSheet"]["text"][0].splitlines()[0] == "pictures: 8"
    lines = said["ShinyMasRecognition"]["text"][0].splitlines()
    assert lines[0] == "pictures: 8 of 2 characters"
    assert [line.partition(":")[0] for line in lines[1:5]] == [
        "strength 0 (the base model alone)", "strength 0.6", "strength 0.8", "strength 1"]
    assert "tagger: circle/model.onnx, threshold 0.35" in lines
    assert ("drawn with: KSampler: seed 1, sampler_name euler_ancestral, scheduler normal, steps 1, cfg 11.0, "
            "denoise 1.0") in lines
