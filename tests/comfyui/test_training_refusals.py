"""What cannot be trained, as a person reads it: refused when it is queued where it can be known, else by the node."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from kit.comfyui_server import PromptFailed
from PIL import Image
from safetensors.torch import load_file, save_file

WARM_UP = {"lr_scheduler": "page", "lr_warmup_steps": 10}


@pytest.fixture
def read_through(node, run_graph):
    """Run LoHa Training Settings or Data alone; returns its info."""

    def run(kind, more=None, **inputs):
        prompt = {"asked": node(kind, **inputs), "shown": node("PreviewAny", source=["asked", 1]), **(more or {})}
        return run_graph(prompt)["shown"]["text"][0]

    return run


def refusal(run, *arguments, **inputs):
    """The one text with which ComfyUI refuses to queue a prompt."""
    with pytest.raises(PromptFailed) as refused:
        run(*arguments, **inputs)
    errors = [error for node in refused.value.details["node_errors"].values() for error in node["errors"]]
    assert len(errors) == 1, errors
    return errors[0]["details"]


SETTINGS = "ShinyMasTrainingSettings"
DATA = "ShinyMasTrainingData"


@pytest.mark.parametrize("inputs, words", [
    (WARM_UP, "lr_warmup_steps 10 and lr_scheduler model card exclude each other"),
    ({"train_unet": False, "train_text_encoder": False}, "nothing is left to train"),
    ({"use_tucker": True}, "use_tucker needs the 3×3 convolutions"),
    ({"network_rank": 0}, "network_rank: 0 is outside 1 to 128"),
    ({"network_rank": 1000}, "network_rank: 1000 is outside 1 to 128"),
    ({"module_set": "most"}, "module_set: 'most' is not one of attention-mlp, linear, all"),
    ({"output_name": "a:b"}, "output_name: 'a:b' cannot be a file name: it holds :, which Windows does not allow"),
    ({"output_name": "../a"}, "output_name: '../a' cannot be a file name: it leads out of its folder"),
    ({"output_name": "/a"}, "output_name: '/a' cannot be a file name: it is absolute"),
    ({"output_name": ""}, "output_name: '' cannot be a file name: it is absolute, or a part of it is empty"),
    ({"output_name": "NUL"}, "output_name: 'NUL' cannot be a file name: NUL is a device on Windows"),
    ({"output_name": "x" * 250}, "cannot be a file name: it is longer than 200 bytes"),
    ({"optimizer": "Nadir"}, "optimizer: 'Nadir' is not known. Known: Adadelta"),
    ({"optimizer": "Lion8bit"}, "optimizer Lion8bit: bitsandbytes works on CUDA alone"),
    ({"optimizer": "SGD", "optimizer_args": "momentum=-1"}, "optimizer SGD does not take 'momentum=-1'"),
    ({"config": "network_dim = -1"}, "network_dim = -1: -1 is outside 1 to 128"),
    ({"config": "name = 1"}, "no key that says what to train or how"),
    ({"config": 'output_name = "CON"'}, "output_name: 'CON' cannot be a file name"),
    ({"config": "network_dim = "}, "the pasted configuration is not TOML"),
    ({"config": "nowhere.toml"}, "nowhere.toml: no such file"),
])
def test_settings_are_refused_when_queued(read_through, inputs, words):
    assert words in refusal(read_through, SETTINGS, **inputs)


@pytest.mark.parametrize("inputs, words", [
    ({"folder": ""}, "folder: empty"),
    ({"folder": "x", "resolution": 100}, "resolution: 100 is not a multiple of 64"),
    ({"folder": "x", "resolution": 0}, "resolution: 0 is outside 64 to 2048"),
    ({"folder": "x", "bucket_max": 512}, "resolution 640 is outside bucket_min 256 to bucket_max 512"),
    ({"folder": "x", "fit": "stretch"}, "fit: 'stretch' is not one of crop, pad"),
    ({"folder": "x", "extension": "txt"}, "'txt' does not begin with a dot"),
    ({"dataset": "[[datasets]]\nresolution = 640"}, "needs [[datasets]] with [[datasets.subsets]]"),
])
def test_data_options_are_refused_when_queued(read_through, inputs, words):
    assert words in refusal(read_through, DATA, **inputs)


def test_what_is_connected_is_not_judged_when_queued(read_through, node):
    """The page's schedule stands in the widget that is connected, and would exclude a warm-up."""
    schedule = {"schedule": node("PrimitiveInt", value=3)}
    info = read_through(SETTINGS, schedule, lr_scheduler="constant", lr_warmup_steps=["schedule", 0])
    assert "lr_warmup_steps: 3" in info
    with pytest.raises(PromptFailed, match="ShinyMasTrainingSettings: lr_warmup_steps 3 and lr_scheduler model card"):
        read_through(SETTINGS, schedule, lr_scheduler="page", lr_warmup_steps=["schedule", 0])


@pytest.mark.parametrize(("wrong", "words"), [({"network_rank": 0}, "network_rank: 0 is outside 1 to 128"),
                                              ({"mixed_precision": "fp9"}, "mixed_precision: 'fp9' is not one of")])
def test_beside_what_is_connected_the_rest_is_judged_when_queued(read_through, node, wrong, words):
    with pytest.raises(PromptFailed, match="refused the prompt") as refused:
        read_through(SETTINGS, {"number": node("PrimitiveInt", value=3)}, seed=["number", 0], **wrong)
    assert words in str(refused.value)


def test_a_missing_input_is_still_said_by_comfyui(node, run_graph):
    settings = node(SETTINGS)
    del settings["inputs"]["network_rank"]
    with pytest.raises(PromptFailed) as refused:
        run_graph({"asked": settings, "shown": node("PreviewAny", source=["asked", 1])})
    (error,) = refused.value.details["node_errors"]["asked"]["errors"]
    assert error["type"] == "required_input_missing"


def big_png(path, width, height):
    """A PNG of this size, white, in a few bytes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def test_strange_pictures_and_captions_are_named_in_info(read_through, base):
    folder = base / "input" / "strange" / "3_Kazano Hiori"
    folder.mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    good = Image.fromarray(colours)
    for name in ("good", "empty", "endless"):
        good.save(folder / f"{name}.png")
    (folder / "good.txt").write_bytes(b"\xef\xbb\xbfKazano Hiori, smile")
    (folder / "empty.txt").write_text(" \n", encoding="utf-8")
    (folder / "endless.txt").write_text(", ".join(f"tag {number}" for number in range(10_000)), encoding="utf-8")
    (folder / "unreadable.png").write_bytes(b"<html>")
    whole = (folder / "good.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[:len(whole) // 2])
    good.save(folder / "animated.webp", save_all=True, append_images=[good.rotate(90)])
    good.resize((1, 1)).save(folder / "dot.png")
    big_png(folder / "huge.png", 10_000, 10_001)
    told = read_through(DATA, folder="strange").splitlines()
    assert told[:4] == ["pictures: 3", "shown per epoch: 9", "batches per epoch: 3", "left out: 5"]
    assert "captions: 2 from files, 0 from folder names, 1 empty" in told
    left_out = {Path(path).name: reason for path, reason in (
        line.removeprefix("left out: ").split(": ", 1) for line in told if line.startswith("left out: /"))}
    assert left_out["unreadable.png"] == "not a JPEG, PNG or WebP picture, or a broken one"
    assert left_out["truncated.png"].startswith("broken or truncated")
    assert left_out["animated.webp"] == "animated"
    assert left_out["dot.png"] == "1×1, smaller than 64 pixels"
    assert left_out["huge.png"] == "10000×10001, over 100 megapixels"
    (cut,) = (line for line in told if line.startswith("cut: "))
    assert cut.endswith("endless.png: 10000 tags, 225 tokens hold 113 at most")


def test_captions_of_another_encoding_stop_the_folder_and_are_all_named(read_through, base):
    folder = base / "input" / "encodings"
    folder.mkdir()
    for name, encoding in (("a", "cp932"), ("b", "utf-8"), ("c", "utf-16")):
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_bytes("風野灯織, 黒髪".encode(encoding))
    with pytest.raises(PromptFailed) as stopped:
        read_through(DATA, folder="encodings")
    first, *named = str(stopped.value).splitlines()
    assert first == "ShinyMasTrainingData: 2 caption file(s) cannot be used:"
    assert [line.rpartition("/")[2] for line in named if line] == [
        "a.txt: not UTF-8 (byte 0), it looks like Shift-JIS: save it as UTF-8",
        "c.txt: not UTF-8 (byte 0), it looks like UTF-16: save it as UTF-8"]


@pytest.mark.parametrize("path, words", [
    ("x" * 300, "cannot be read (File name too long). Give the folder that holds the pictures."),
    ("a\ud800b", "a\\ud800b: cannot be read ("),
    ("gone/真乃 🎤", "gone/真乃 🎤: no such folder. Give the folder that holds the pictures."),
])
def test_folders_that_no_system_has_or_this_one_lacks(read_through, path, words):
    with pytest.raises(PromptFailed) as stopped:
        read_through(DATA, folder=path)
    assert words in str(stopped.value)


def test_pictures_are_found_in_folders_of_any_letters(read_through, base):
    for name in ("3_真乃 🎤", "a'b\"c", "dots..", "new\nline", "\u202eright to left", "#{}@|$HOME",
                 os.fsdecode(b"2_\xff\xfe")):
        folder = base / "input" / "letters" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / "a.png")
        assert "pictures: 1" in read_through(DATA, folder=f"letters/{name}").splitlines()
    assert "pictures: 7" in read_through(DATA, folder="letters").splitlines()


def test_a_folder_without_pictures_says_so(read_through, base):
    (base / "input" / "nothing").mkdir()
    with pytest.raises(PromptFailed, match="nothing: no JPEG, PNG or WebP picture in it or one folder below"):
        read_through(DATA, folder="nothing")


@pytest.fixture
def training(base, checkpoint, node, run_graph):
    """Run Train LoHa on one picture: its sockets by keyword, the other keywords are settings."""
    folder = base / "input" / "one"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    kept = load_file(base / "models" / "checkpoints" / checkpoint)
    bare = base / "models" / "checkpoints" / "unet-alone.safetensors"
    save_file({name: tensor for name, tensor in kept.items() if name.startswith("model.")}, bare)

    def run(model="whole", clip="whole", vae="whole", **settings):
        return run_graph({
            "whole": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "bare": node("CheckpointLoaderSimple", ckpt_name=bare.name),
            "data": node(DATA, folder="one", resolution=64, bucket_min=64),
            "settings": node(SETTINGS, **settings),
            "train": node("ShinyMasTrainLoha", model=[model, 0], clip=[clip, 1], vae=[vae, 2], data=["data", 0],
                          settings=["settings", 0]),
        })

    yield run
    bare.unlink()


@pytest.mark.parametrize("inputs, words", [
    ({"clip": "bare"}, "there is no CLIP: captions are read through it. Connect a whole SD 1.5 checkpoint's."),
    ({"vae": "bare"}, "there is no VAE: pictures become latents through it. Connect the checkpoint's, or Load VAE"),
    ({"lr_scheduler": "cosine", "lr_warmup_steps": 31},
     "lr_warmup_steps: 31 steps of warm-up leave nothing of a run of 31: lower it, or train for more epochs"),
    ({"module_filter": "lora_te_*_layers_11_*"}, "lies in them: lower clip_skip, or choose others"),
    ({"config": 'network_weights = "other.safetensors"'}, "other.safetensors is not in the models/loras folder"),
], ids=["clip", "vae", "warm-up", "skipped", "start"])
def test_train_loha_says_what_lacks_before_it_trains(training, base, inputs, words):
    before = sorted((base / "models" / "loras").rglob("*"))
    with pytest.raises(PromptFailed) as stopped:
        training(**inputs)
    assert str(stopped.value).startswith("ShinyMasTrainLoha: ") and words in str(stopped.value)
    assert sorted((base / "models" / "loras").rglob("*")) == before, "a run that cannot begin leaves no folder"
