"""Training in a real ComfyUI: from pictures to a file that its own loader takes; cancel, resume."""

import io
import json
import struct
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import PromptFailed
from PIL import Image
from safetensors.torch import load_file

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pictures(base):
    """Four captioned pictures in ComfyUI's input folder."""
    folder = base / "input" / "cards" / "1_Kazano Hiori"
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(colours):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"Kazano Hiori, tag {number}", encoding="utf-8")
    return "cards"


@pytest.fixture
def graph(node, checkpoint, pictures):
    """The API prompt of a run: settings by keyword, everything else as the nodes have it by default."""

    def make(resume=None, data=None, **chosen):
        settings = {
            "module_set": "attention-mlp", "network_rank": 2, "max_token_length": 75, "max_train_epochs": 2,
            "module_filter": "*attn2*,lora_te_*_0_*", "optimizer": "AdamW", "lr_scheduler": "constant", **chosen,
        }
        prompt = {
            "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "data": node("ShinyMasTrainingData", folder=pictures, **{
                "resolution": 64, "bucket_min": 64, "bucket_max": 64, "batch_size": 2, "latent_cache": "memory",
                **(data or {})}),
            "settings": node("ShinyMasTrainingSettings", **settings),
            "train": node("ShinyMasTrainLoha", model=["model", 0], clip=["model", 1], vae=["model", 2],
                          data=["data", 0], settings=["settings", 0]),
            "curve": node("PreviewImage", images=["train", 1]),
        }
        if resume:
            prompt["kept"] = node("ShinyMasLoadLoha", lora_name=resume)
            prompt["train"]["inputs"]["resume"] = ["kept", 0]
        return prompt

    make.node = node
    return make


def facts(text):
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_a_run_from_pictures_to_a_file_that_core_applies(server, run_graph, graph, base):
    prompt = graph(output_name="whole")
    prompt["save"] = graph.node("ShinyMasSaveLoha", loha=["train", 0], name="trained", precision="fp16",
                                write_cast=True)
    prompt["apply"] = graph.node("ShinyMasApplyLoha", model=["model", 0], clip=["model", 1], loha=["train", 0],
                                 strict=True)
    prompt["applied"] = graph.node("PreviewAny", source=["apply", 2])
    outputs = run_graph(prompt)
    report = facts(outputs["train"]["text"][0])
    assert report["steps"] == "4 of 4"
    assert report["precision"] == "fp32, there is no GPU for fp16"
    applied = facts(outputs["applied"]["text"][0])
    assert applied["applied"] == applied["modules"] == report["modules"]
    curve = server.picture(outputs["curve"]["images"][0])
    assert struct.unpack(">II", curve[16:24]) == (960, 540)
    names = sorted(path.name for path in (base / "models" / "loras" / "whole").iterdir())
    assert names == ["training.state", "whole-000001.safetensors", "whole-000002.safetensors", "whole.safetensors"]
    assert (base / "models" / "loras" / "trained.safetensors").is_file()
    cast = (base / "user" / "shinymas" / "trained.yaml").read_text(encoding="utf-8")
    assert "name: Kazano Hiori\n  cards: 4\n" in cast
    (base / "user" / "shinymas" / "trained.yaml").unlink()

    with pytest.raises(PromptFailed, match="exists already"):
        again = graph(output_name="whole")
        again["save"] = graph.node("ShinyMasSaveLoha", loha=["train", 0], name="trained", precision="fp32",
                                   write_cast=True)
        run_graph(again)
    assert not (base / "user" / "shinymas" / "trained.yaml").exists()


def test_latents_on_disk_are_those_in_memory(run_graph, graph, base):
    runs = {"in-memory": "memory", "to-disk": "disk", "from-disk": "disk"}
    for name, cache in runs.items():
        run_graph(graph(output_name=name, max_train_epochs=1, data={"latent_cache": cache}))
    kept = [load_file(base / "models" / "loras" / name / f"{name}.safetensors") for name in runs]
    assert all(torch.equal(tensor, one[key]) for one in kept[1:] for key, tensor in kept[0].items())
    assert len(list((base / "user" / "shinymas" / "latents").glob("*.safetensors"))) == 4


def test_a_connected_name_is_saved_under(run_graph, graph, base, sample_loha):
    run_graph({
        "loha": graph.node("ShinyMasLoadLoha", lora_name=sample_loha),
        "name": {"class_type": "PrimitiveString", "inputs": {"value": "connected"}},
        "save": graph.node("ShinyMasSaveLoha", loha=["loha", 0], name=["name", 0]),
    })
    assert (base / "models" / "loras" / "connected.safetensors").is_file()


def test_connected_widgets_are_read_in_the_run(run_graph, graph, pictures):
    outputs = run_graph({
        "seed": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
        "where": {"class_type": "PrimitiveString", "inputs": {"value": pictures}},
        "settings": graph.node("ShinyMasTrainingSettings", seed=["seed", 0]),
        "data": graph.node("ShinyMasTrainingData", folder=["where", 0]),
        "shown": graph.node("PreviewAny", source=["settings", 1]),
        "counted": graph.node("PreviewAny", source=["data", 1]),
    })
    assert outputs["shown"]["text"] == ["seed: 7"]
    assert "pictures: 4" in outputs["counted"]["text"][0]


def test_a_toml_does_not_name_a_checkpoint_that_was_not_loaded(run_graph, graph):
    page = 'pretrained_model_name_or_path = "animefull-final-pruned.ckpt"\ntrain_data_dir = "a"\nresolution = 512'
    outputs = run_graph({
        "settings": graph.node("ShinyMasTrainingSettings", config=page),
        "shown": graph.node("PreviewAny", source=["settings", 1]),
    })
    told = outputs["shown"]["text"][0].splitlines()
    assert told[-3:] == [
        "pictures: train_data_dir, resolution: for LoHa Training Data, not read here",
        "ignored: checkpoint and VAE of the configuration: the connected ones are trained on",
        "as the model page's v2.0 run"]
    assert "default: clip_skip = 2; kohya's is 1" in told and not any("from the file" in line for line in told)


def test_whose_defaults_count_is_said_beside_a_toml(run_graph, graph):
    dataset = ('[[datasets]]\nresolution = 64\nmin_bucket_reso = 64\n[[datasets.subsets]]\n'
               'image_dir = "cards/1_Kazano Hiori"')
    outputs = run_graph({
        "settings": graph.node("ShinyMasTrainingSettings", config="network_dim = 8", defaults="kohya"),
        "shown": graph.node("PreviewAny", source=["settings", 1]),
        "data": graph.node("ShinyMasTrainingData", dataset=dataset, defaults="kohya"),
        "counted": graph.node("PreviewAny", source=["data", 1]),
    })
    told = outputs["shown"]["text"][0].splitlines()
    assert told[1:3] == ["from the file: network_rank", "default: optimizer = AdamW; the model card's is AdamW8bit"]
    assert "max_train_steps: 1600" in told and "defaults: kohya" in told
    counted = outputs["counted"]["text"][0].splitlines()
    assert "batch size: 1" in counted
    assert "default: batch_size = 1; the model card's is 4" in counted


def test_core_finds_every_module_of_the_file(comfy, small_model, base):
    """After the run above: ComfyUI's own name map and loader, on the saved file."""
    path = base / "models" / "loras" / "trained.safetensors"
    tensors = comfy.utils.load_torch_file(str(path))
    model, clip, _ = small_model
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
    patches = comfy.lora.load_lora(tensors, keys)
    assert len(patches) == len({name.partition(".")[0] for name in tensors})


def test_cancelling_keeps_the_run_and_resume_goes_on(server, run_graph, graph, base):
    chosen = {"max_train_epochs": 3, "module_filter": "*attn2_to_q,lora_te_*_0_*"}
    run_graph(graph(output_name="unbroken", **chosen))
    folder = base / "models" / "loras" / "broken"

    def interrupt():
        while not (folder / "broken-000001.safetensors").exists():
            time.sleep(0.02)
        urllib.request.urlopen(urllib.request.Request(server.url + "/interrupt", b"{}"))

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(PromptFailed, match="interrupted"):
        run_graph(graph(output_name="broken", **chosen))
    thread.join()
    kept = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    resumed = run_graph(graph(output_name="broken", resume=f"broken/{kept.name}", **chosen))
    assert "resumed: exactly, after step" in resumed["train"]["text"][0]
    one = load_file(folder / "broken.safetensors")
    other = load_file(base / "models" / "loras" / "unbroken" / "unbroken.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_model_draws_the_same_before_and_after_a_run(server, run_graph, graph, base):
    def draw(prompt):
        prompt |= {
            "text": graph.node("CLIPTextEncode", clip=["model", 1], text="Kazano Hiori"),
            "latent": graph.node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "sample": graph.node(
                "KSampler", model=["model", 0], positive=["text", 0], negative=["text", 0],
                latent_image=["latent", 0], seed=1, steps=1, cfg=1.0, denoise=1.0, sampler_name="euler",
                scheduler="normal"),
            "image": graph.node("VAEDecode", samples=["sample", 0], vae=["model", 2]),
            "picture": graph.node("SaveImage", images=["image", 0], filename_prefix=str(time.time_ns())),
        }
        return prompt

    def picture(outputs):
        return server.picture(outputs["picture"]["images"][0])

    before = picture(run_graph(draw({"model": graph()["model"]})))
    run_graph(graph(output_name="between", sample_every_n_epochs=2, sample_prompts="a card\nanother"))
    samples = sorted(path.name for path in (base / "output" / "shinymas" / "between").iterdir())
    assert samples == ["epoch-000002-1.png", "epoch-000002-2.png"]
    # The run threw ComfyUI's cache of the sampler away, not the loaded model.
    assert pixels(picture(run_graph(draw({"model": graph()["model"]})))) == pixels(before)


def test_samples_of_a_file_of_prompts_by_steps(run_graph, graph, base):
    """kohya's options behind a prompt: the size is the file's, the pictures differ by their seed alone."""
    (base / "input" / "prompts.txt").write_text(
        "# two of the same\na card --n text --w 96 --h 64 --d 5 --s 2 --l 1\n"
        "a card --n text --w 96 --h 64 --d 5 --s 2 --l 1\na card --w 64 --h 64 --s 1\n", encoding="utf-8")
    run_graph(graph(output_name="stepwise", sample_every_n_steps=2, sample_at_first=True, max_train_epochs=1,
                    max_train_steps=3, sample_prompts="prompts.txt"))
    folder = base / "output" / "shinymas" / "stepwise"
    found = {path.name: Image.open(path) for path in folder.iterdir()}
    assert sorted(found) == [f"step-0000000{step}-{number}.png" for step in (0, 2) for number in (1, 2, 3)]
    one, two, three = (found[f"step-00000002-{number}.png"] for number in (1, 2, 3))
    assert (one.size, three.size) == ((96, 64), (64, 64))
    assert one.tobytes() == two.tobytes() and one.tobytes() != found["step-00000000-1.png"].tobytes()


def test_a_sample_that_cannot_be_written_names_its_folder(run_graph, graph, base):
    blocked = base / "output" / "shinymas" / "blocked"
    blocked.parent.mkdir(exist_ok=True)
    blocked.touch()  # where the folder should be
    with pytest.raises(PromptFailed) as failed:
        run_graph(graph(output_name="blocked", sample_every_n_epochs=2, sample_prompts="a card"))
    text = failed.value.details["exception_message"]
    assert text.startswith("epoch-000002-1.png: cannot be written (") and "permissions of " in text, text
    assert str(blocked) in text
    assert (base / "models" / "loras" / "blocked" / "blocked-000002.safetensors").exists()


def pixels(png):
    """The picture without its metadata, which tells the two prompts apart."""
    return Image.open(io.BytesIO(png)).tobytes()


@pytest.mark.parametrize("settings, data, text", [
    ({"network_rank": 16, "train_unet": False, "train_text_encoder": False}, {}, "nothing is left to train"),
    ({"module_filter": "nothing*"}, {}, "no module is left to train"),
    ({"config": "[a]\nnetwork_dim = -1"}, {}, "network_dim = -1: -1 is outside"),
    ({}, {"folder": "no such folder"}, "no such folder"),
], ids=["nothing-on", "filter", "toml", "folder"])
def test_bad_input_is_a_clear_sentence(run_graph, graph, settings, data, text):
    prompt = graph(**settings)
    prompt["data"]["inputs"] |= data
    with pytest.raises(PromptFailed) as refused:
        run_graph(prompt)
    assert text in json.dumps(refused.value.details)


TRAINING_GRAPHS = {path.stem: path for path in sorted((PACK / "workflows").glob("train-*.json"))} | {
    "0.1.0": PACK / "tests" / "data" / "0.1.0" / "train-shinymas-v2.0.json"}


@pytest.mark.parametrize("path", TRAINING_GRAPHS.values(), ids=TRAINING_GRAPHS)
def test_a_training_graph_runs_from_pictures_to_a_picture(path, object_info, run_graph, server, checkpoint,
                                                          sample_loha, pictures):
    """As shipped, but for the files, and sizes that a CPU can do."""
    prompt = convert_ui_to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
    nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
    page = {**nodes["ShinyMasTrainingSettings"]}
    assert ("network_dim = 16" in page["config"]) or page["learning_rate"] == 5e-4
    assert nodes["ShinyMasTrainingData"]["resolution"] == (640 if page["config"] else 768)
    nodes["CheckpointLoaderSimple"]["ckpt_name"] = checkpoint
    nodes["ShinyMasTrainingData"] |= {"folder": pictures, "resolution": 64, "bucket_min": 64, "bucket_max": 64}
    nodes["ShinyMasTrainingSettings"] |= {"max_train_epochs": 1, "max_train_steps": 1, "max_token_length": 75,
                                          "config": page["config"].replace("epochs = 31", "epochs = 1").replace(
                                              "max_token_length = 225", "max_token_length = 75")}
    nodes["EmptyLatentImage"] |= {"width": 64, "height": 64}
    nodes["KSampler"]["steps"] = 1
    if "ShinyMasLoadLoha" in nodes:
        nodes["ShinyMasLoadLoha"]["lora_name"] = sample_loha
    if "ShinyMasSaveLoha" in nodes:  # the graphs of two releases save under one name
        nodes["ShinyMasSaveLoha"]["name"] += f"-{path.parent.name}"
    outputs = run_graph(prompt)
    kinds = {prompt[key]["class_type"]: output for key, output in outputs.items()}
    assert "goes on from" in kinds["ShinyMasTrainLoha"]["text"][0] or page["config"]
    assert server.picture(kinds["SaveImage"]["images"][0])[:4] == b"\x89PNG"
