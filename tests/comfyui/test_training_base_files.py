"""What a file trained in ComfyUI tells of the checkpoint and VAE it was trained on: what the command line tells."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from kit.comfyui_server import ComfyUIServer
from kit.workspace import CHECKPOINT, COMFYUI, PYTHON, add_samples
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

# A model of nowhere, and a switch that takes anything.
NODES = """
import comfy.sd, folder_paths

class Nameless:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 0})}}

    def make(self, number):
        path = folder_paths.get_full_path("checkpoints", folder_paths.get_filename_list("checkpoints")[0])
        return comfy.sd.load_checkpoint_guess_config(path)[:1]

class Any(str):
    def __ne__(self, other):
        return False

class Anything:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "pick", (Any("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"first": ("*",), "second": ("*",)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def pick(self, first, second):
        return (first,)

NODE_CLASS_MAPPINGS = {"Nameless": Nameless, "Anything": Anything}
"""
TOLD = ("ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_vae_name", "ss_vae_hash",
        "ss_new_vae_hash")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A ComfyUI's folder with two checkpoints, a VAE, pictures, and the nodes above."""
    folder = tmp_path_factory.mktemp("base-files")
    add_samples(folder, "tests")
    checkpoints = folder / "models" / "checkpoints"
    tensors = load_file(checkpoints / CHECKPOINT)
    save_file(tensors, checkpoints / "second.safetensors", {"other": "bytes"})
    (folder / "models" / "vae").mkdir()
    (folder / "models" / "diffusion_models").mkdir()
    for part, kind in (("first_stage_model.", "vae"), ("model.diffusion_model.", "diffusion_models")):
        save_file({name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)},
                  folder / "models" / kind / "own.safetensors")
    (folder / "input" / "cards").mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / "input" / "cards" / f"{number}.png")
    (folder / "custom_nodes").mkdir()
    (folder / "custom_nodes" / "origins.py").write_text(NODES, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def serving(home):
    with ComfyUIServer(COMFYUI, home, python=PYTHON) as running:
        yield running


@pytest.fixture(scope="module")
def train(serving, home):
    """Train a step on what `more` nodes give, and return the file's metadata and the report."""
    info = serving.get("/object_info")

    def defaults(kind):
        return {name: spec[1]["default"] for name, spec in info[kind]["input"]["required"].items()
                if len(spec) > 1 and "default" in spec[1]}

    def run(name, more=None, model=("model", 0), vae=("model", 2)):
        outputs = serving.run({
            "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}, **(more or {}),
            "data": {"class_type": "ShinyMasTrainingData", "inputs": defaults("ShinyMasTrainingData") | {
                "folder": "cards", "resolution": 64, "bucket_min": 64, "bucket_max": 64}},
            "settings": {"class_type": "ShinyMasTrainingSettings", "inputs": defaults("ShinyMasTrainingSettings") | {
                "network_rank": 1, "module_filter": "*attn2_to_q", "max_token_length": 75, "optimizer": "AdamW",
                "max_train_epochs": 1, "lr_scheduler": "constant", "output_name": name}},
            "train": {"class_type": "ShinyMasTrainLoha", "inputs": {
                "model": list(model), "clip": ["model", 1], "vae": list(vae), "data": ["data", 0],
                "settings": ["settings", 0]}},
        })
        with safe_open(home / "models" / "loras" / name / f"{name}.safetensors", "pt") as file:
            told = {key: value for key, value in file.metadata().items() if key in TOLD}
        return told, outputs["train"]["text"][0].splitlines()

    return run


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def command_line(training_command, one_thread, tmp_path, name, more=""):
    command = training_command(name)
    config = tmp_path / f"{name}.toml"
    config.write_text(config.read_text(encoding="utf-8") + more, encoding="utf-8")
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(tmp_path / name / f"{name}.safetensors", "pt") as file:
        return {key: value for key, value in file.metadata().items() if key in TOLD}


def notes(report):
    return [line for line in report if line.startswith(("base model: ", "VAE: "))]


def test_the_node_tells_what_the_command_line_tells(train, home, training_command, one_thread, tmp_path):
    theirs = command_line(training_command, one_thread, tmp_path, "command")
    told, report = train("plain")
    assert told == theirs and told["ss_sd_model_name"] == CHECKPOINT and len(told) == 3
    assert not notes(report)

    vae = home / "models" / "vae" / "own.safetensors"
    theirs = command_line(training_command, one_thread, tmp_path, "with-vae", f'vae = "{vae.as_posix()}"\n')
    told, report = train("passed-on", {
        "sampling": node("ModelSamplingDiscrete", model=["any", 0], sampling="eps", zsnr=False),
        "any": node("Anything", first=["model", 0], second=["again", 0]),
        "again": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "vae": node("VAELoader", vae_name="own.safetensors"),
    }, model=("sampling", 0), vae=("vae", 0))
    assert told == theirs and told["ss_vae_name"] == "own.safetensors" and len(told) == 6
    assert not notes(report)


def test_a_file_is_hashed_again_once_it_has_changed(train, home):
    path, ledger = home / "models" / "checkpoints" / "changing.safetensors", home / "user" / "shinymas" / "hashes.json"
    shutil.copyfile(home / "models" / "checkpoints" / "second.safetensors", path)
    loader = {"changing": node("CheckpointLoaderSimple", ckpt_name=path.name)}
    before, _ = train("before", loader, model=("changing", 0))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after, _ = train("after", loader, model=("changing", 0))
    assert before["ss_new_sd_model_hash"] != after["ss_new_sd_model_hash"]
    assert CHECKPOINT in ledger.read_text(encoding="ascii")
    os.unlink(path)


def test_of_two_checkpoints_none_is_told(train):
    second = {"second": node("CheckpointLoaderSimple", ckpt_name="second.safetensors")}
    merged = second | {"merged": node("ModelMergeSimple", model1=["model", 0], model2=["second", 0], ratio=0.5)}
    told, report = train("merged", merged, model=("merged", 0))
    assert not [key for key in told if "sd_model" in key]
    assert ("base model: the trained file tells no name and no hash of it: it comes from several files, "
            f"{CHECKPOINT}, second.safetensors") in notes(report)

    told, report = train("two", second, vae=("second", 2))
    assert (told["ss_sd_model_name"], told["ss_vae_name"]) == (CHECKPOINT, "second.safetensors")
    assert not notes(report)


def test_a_unet_of_its_own_is_told_and_a_model_of_nowhere_is_not(train):
    told, report = train("unet", {"unet": node("UNETLoader", unet_name="own.safetensors", weight_dtype="default")},
                         model=("unet", 0))
    assert (told["ss_sd_model_name"], told["ss_vae_name"]) == ("own.safetensors", CHECKPOINT)
    assert not notes(report)

    told, report = train("nowhere", {"nowhere": node("Nameless", number=0)}, model=("nowhere", 0))
    assert not [key for key in told if "sd_model" in key] and told["ss_vae_name"] == CHECKPOINT
    assert notes(report) == [
        "base model: the trained file tells no name and no hash of it: Nameless names no file in the graph"]


@pytest.fixture
def file_behind(comfy):
    """The tracing alone, in this process."""
    from shinymas_loha.patcher.trainer.base import Untraced, file_behind

    def ask(prompt, kind="MODEL"):
        try:
            return file_behind(prompt, "train", kind.lower(), kind).name
        except Untraced as why:
            return str(why)

    return ask


@pytest.mark.parametrize("inputs, why", [
    ({"ckpt_name": ["other", 0]}, "CheckpointLoaderSimple takes its ckpt_name from another node"),
    ({"ckpt_name": "gone.ckpt"}, "CheckpointLoaderSimple names 'gone.ckpt', which is no file in ComfyUI's models "
                                 "folders"),
    ({"ckpt_name": CHECKPOINT}, CHECKPOINT),
    ({}, "CheckpointLoaderSimple names no file in the graph"),
    ({"model": ["model", 0]}, "no node names a file in the graph"),
])
def test_what_a_loader_may_say(file_behind, inputs, why):
    prompt = {"train": node("ShinyMasTrainLoha", model=["model", 0]),
              "model": node("CheckpointLoaderSimple", **inputs), "other": node("PrimitiveString", value="x")}
    assert file_behind(prompt) == why


@pytest.mark.parametrize("prompt", [
    {}, {"train": {"inputs": {"model": None}}}, {"train": {"inputs": {"model": ["gone", 0]}}},
    {"train": {"inputs": {"model": [["model"], 0]}}}, {"train": {"class_type": "ShinyMasTrainLoha"}}])
def test_a_graph_that_does_not_show_it(file_behind, prompt):
    assert file_behind(prompt) == "the graph that was sent does not show where it comes from"


def test_a_loader_of_both_names_the_vae_first(file_behind):
    prompt = {"train": node("ShinyMasTrainLoha", model=["both", 0], vae=["both", 2]),
              "both": node("Efficient Loader", ckpt_name=CHECKPOINT, vae_name="Baked VAE")}
    assert file_behind(prompt) == CHECKPOINT
    assert file_behind(prompt, "VAE").startswith("Efficient Loader names 'Baked VAE', which is no file")


def test_hashing_is_told_and_can_be_cancelled(comfy, tmp_path, monkeypatch):
    from shinymas_loha.patcher.trainer import base

    monkeypatch.setattr(base, "_SECONDS", 0.0)
    prompt = {"train": node("ShinyMasTrainLoha", model=["model", 0], vae=["model", 2]),
              "model": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}
    lines = []

    def cancel(line):
        lines.append(line)
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        base.base_of_graph(prompt, "train", tmp_path / "hashes.json", cancel)
    assert len(lines) == 1 and lines[0].startswith(f"hashing {CHECKPOINT}: ")
    found, notes = base.base_of_graph(prompt, "train", tmp_path / "hashes.json", lines.append)
    assert found.model_name == CHECKPOINT and not notes and lines[-1] == f"hashing {CHECKPOINT}: 100 %"
