"""Validation, the running mean and the preview through the nodes, as a person sees them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from kit.comfyui_server import PromptFailed
from PIL import Image
from safetensors import safe_open


@pytest.fixture(scope="module")
def cards(base):
    """Two characters' folders in ComfyUI's input folder, and one to validate on."""
    random = np.random.default_rng(0)
    for folder, count in (("validated/2_Kazano Hiori", 4), ("validated/1_Ikaruga Luca", 1), ("for validation", 2)):
        path = base / "input" / folder
        path.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / f"{number}.png")
            (path / f"{number}.txt").write_text(f"girl, tag {number}", encoding="utf-8")
    return "validated"


@pytest.fixture
def graph(node, checkpoint, cards):
    def make(data=None, **chosen):
        return {
            "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "data": node("ShinyMasTrainingData", folder=cards, **{
                "resolution": 64, "bucket_min": 64, "bucket_max": 64, "batch_size": 4, "latent_cache": "memory",
                **(data or {})}),
            "settings": node("ShinyMasTrainingSettings", **{
                "module_set": "attention-mlp", "network_rank": 2, "max_token_length": 75, "max_train_epochs": 2,
                "module_filter": "*attn2_to_q", "optimizer": "AdamW", "lr_scheduler": "constant", **chosen}),
            "train": node("ShinyMasTrainLoha", model=["model", 0], clip=["model", 1], vae=["model", 2],
                          data=["data", 0], settings=["settings", 0]),
        }

    return make


def test_a_validated_run_gives_out_its_best(run_graph, graph, node, base):
    prompt = graph({"validation_split": 0.25}, output_name="validated", ema_decay=0.5, ema_keep_both=True)
    prompt["save"] = node("ShinyMasSaveLoha", loha=["train", 3], name="the best", precision="fp16")
    prompt["told"] = node("PreviewAny", source=["data", 1])
    outputs = run_graph(prompt)
    info = outputs["told"]["text"][0].splitlines()
    assert "set apart for validation: 1 picture(s), never trained on" in info
    assert "set apart of Kazano Hiori: 1" in info
    report = outputs["train"]["text"][0].splitlines()
    best = next(line for line in report if line.startswith("best: after epoch "))
    epoch = int(best.split()[3])
    assert any(line.startswith("validated: 2 time(s) on 1 picture(s)") for line in report)
    assert any(line.startswith("validation of Kazano Hiori: ") for line in report)
    assert any(line.startswith("character: Ikaruga Luca · 1 picture(s) · loss ") for line in report)
    folder = base / "models" / "loras" / "validated"
    assert sorted(path.name for path in folder.iterdir()) == [
        "training.state", "validated-000001-no-ema.safetensors", "validated-000001.safetensors",
        "validated-000002-no-ema.safetensors", "validated-000002.safetensors", "validated-best.safetensors",
        "validated-no-ema.safetensors", "validated.safetensors"]
    with safe_open(base / "models" / "loras" / "the best.safetensors", framework="pt") as file:
        assert file.metadata()["ss_epoch"] == str(epoch)
    curve = outputs["train"]["shinymas_curve"][0]
    assert [step for step, _ in curve["validation"]] == [curve["total"] // 2, curve["total"]]


def test_the_preview_is_a_sheet(server, run_graph, graph, node):
    prompt = {"data": graph({"shuffle": True, "flip": True})["data"]}
    prompt["sheet"] = node("PreviewImage", images=["data", 2])
    picture = server.picture(run_graph(prompt)["sheet"]["images"][0])
    width, height = struct.unpack(">II", picture[16:24])
    assert width == 4 * 312 + 12 and height > 2 * 300


@pytest.mark.parametrize(("data", "words"), [
    ({"validation_folder": "validated/2_Kazano Hiori"}, "this folder is for validation and trained on too"),
    ({"validation_folder": "nowhere"}, "nowhere: no such folder"),
    ({"validation_split": 0.01}, "validation_split 0.01 sets none of 5 pictures apart"),
    ({"validation_split": 1.0}, "none is left to train on"),
])
def test_what_cannot_be_validated_on_is_said_by_the_data_node(run_graph, graph, data, words):
    with pytest.raises(PromptFailed, match=words):
        run_graph({"data": graph(data)["data"], **{"told": {
            "class_type": "PreviewAny", "inputs": {"source": ["data", 1]}}}})


def test_an_early_stop_without_pictures_for_it_is_said_before_the_first_step(run_graph, graph):
    with pytest.raises(PromptFailed, match="early_stop 2 needs pictures to validate on, and none are set apart"):
        run_graph(graph(early_stop=2))


@pytest.mark.parametrize(("data", "settings", "words"), [
    ({"validation_split": 2.0}, {}, "validation_split of .*: 2.0 is not a share from 0 to 1"),
    ({}, {"early_stop": 2, "validate_every_n_epochs": 0}, "early_stop 2 needs validations"),
    ({}, {"ema_decay": 1.0}, "ema_decay: 1.0 is outside 0.0 to 0.99999"),
])
def test_what_excludes_each_other_is_refused_when_queued(run_graph, graph, data, settings, words):
    with pytest.raises(PromptFailed, match=words) as refused:
        run_graph(graph(data, **settings))
    assert refused.value.details["node_errors"]


def test_the_tokenizer_of_the_preview_is_that_of_the_run(comfy, small_model):
    """Tokens of a caption are those of its words in a row, kaomoji and kanji among them."""
    from shinymas_loha.loha.training.data.preview import by_chunk
    from shinymas_loha.patcher.trainer.models import TrainingModels
    from shinymas_loha.patcher.trainer.tokens import tokenizer

    models = TrainingModels(*small_model, "fp32")
    theirs, ours = models.models().text.tokenize, tokenizer()
    caption = ("Kazano Hiori, 1girl, :3, ^_^, >_<, o_o, don't, blue_eyes (series), 風野灯織, ☆, " * 8).strip()
    assert ours(caption) == theirs(caption)
    words, total = by_chunk(caption, ours)
    assert total == len(theirs(caption)) > 225
    assert " ".join(word for word, _ in words) == caption
    chunks = [chunk for _, chunk in words]
    assert chunks == sorted(chunks) and set(chunks) == {0, 1, 2, 3}
    for chunk in range(4):
        begun = sum(len(ours(word)) for word, place in words if place < chunk)
        assert begun <= 75 * chunk < begun + len(ours(words[chunks.index(chunk)][0])) or chunk == 0
