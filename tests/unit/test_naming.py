"""Every tool's name of every SD 1.5 weight leads to the weight."""

import re

import pytest
from lohas import sd15_rows
from shinymas_loha.loha import naming

ROWS = sd15_rows()
UNET = [row for row in ROWS if row.weight.startswith("diffusion_model.")]
ENCODER = [row for row in ROWS if not row.weight.startswith("diffusion_model.")]
DIFFUSERS = naming.diffusers_paths(row.weight.removeprefix("diffusion_model.").removesuffix(".weight") for row in UNET)


def _original(row):
    return row.weight.removesuffix(".weight")


def _unet_path(row):
    return DIFFUSERS[_original(row).removeprefix("diffusion_model.")]


def _encoder_path(row):
    """As transformers before 5 has it: `text_model.encoder.layers.0.mlp.fc1`."""
    return _original(row).removeprefix("clip_l.transformer.")


def _processor(path):
    return re.sub(r"\.(to_[qkv]|to_out)\b", r".processor.\1", path)


UNET_NAMES = {
    "kohya": lambda row: row.kohya_name,
    "LyCORIS wrapper": lambda row: "lycoris_" + _unet_path(row).replace(".", "_"),
    "diffusers": _unet_path,
    "diffusers, unet.": lambda row: "unet." + _unet_path(row),
    "diffusers, processors": lambda row: "unet." + _processor(_unet_path(row)),
    "diffusers, processors, to_out without .0": lambda row: "unet." + _processor(_unet_path(row)).replace(
        "to_out.0", "to_out"),
    "PEFT": lambda row: "base_model.model." + _unet_path(row),
    "PEFT, unet.": lambda row: "unet.base_model.model." + _unet_path(row),
    "ComfyUI": lambda row: _original(row),
    "ComfyUI, .weight": lambda row: row.weight,
    "checkpoint": lambda row: "model." + _original(row),
    "kohya of original names": lambda row: "lora_unet_" + _original(row).removeprefix("diffusion_model.").replace(
        ".", "_"),
}
ENCODER_NAMES = {
    "kohya": lambda row: row.kohya_name,
    "kohya of two encoders": lambda row: row.kohya_name.replace("lora_te_", "lora_te1_"),
    "kohya, transformers 5": lambda row: row.kohya_name.replace("text_model_", ""),
    "kohya of two encoders, transformers 5": lambda row: "lora_te1_" + row.kohya_name.removeprefix(
        "lora_te_text_model_"),
    "LyCORIS wrapper": lambda row: "lycoris_" + _encoder_path(row).replace(".", "_"),
    "diffusers": lambda row: "text_encoder." + _encoder_path(row),
    "transformers": _encoder_path,
    "transformers 5": lambda row: _encoder_path(row).removeprefix("text_model."),
    "PEFT": lambda row: "base_model.model." + _encoder_path(row),
    "PEFT, transformers 5": lambda row: "base_model.model." + _encoder_path(row).removeprefix("text_model."),
    "PEFT, text_encoder.": lambda row: "text_encoder.base_model.model." + _encoder_path(row),
    "ComfyUI": _original,
    "ComfyUI, .weight": lambda row: row.weight,
    "ComfyUI trainer": lambda row: "text_encoders." + _original(row),
}


@pytest.fixture(scope="module")
def index():
    return naming.index(row.weight for row in ROWS)


def test_the_table_is_whole():
    assert len(ROWS) == 354
    assert (len(UNET), len(ENCODER)) == (282, 72)
    assert sum(row.in_seed_set for row in ROWS) == 302


@pytest.mark.parametrize("named", UNET_NAMES.values(), ids=UNET_NAMES)
def test_unet_names(index, named):
    found = {row.weight: index.get(naming.address(named(row))) for row in UNET}
    assert {weight: weight for weight in found} == found


@pytest.mark.parametrize("named", ENCODER_NAMES.values(), ids=ENCODER_NAMES)
def test_text_encoder_names(index, named):
    found = {row.weight: index.get(naming.address(named(row))) for row in ENCODER}
    assert {weight: weight for weight in found} == found


def test_kohya_names_are_made_as_they_are_read():
    assert {row.weight: naming.kohya_name(row.weight, DIFFUSERS) for row in ROWS} == {
        row.weight: row.kohya_name for row in ROWS}


def test_a_weight_that_kohya_has_no_name_for():
    assert naming.kohya_name("diffusion_model.label_emb.0.0.weight", DIFFUSERS) is None
    assert naming.kohya_name("t5.encoder.weight", DIFFUSERS) is None


def test_the_second_text_encoder_is_another_address(index):
    name = "lora_te2_text_model_encoder_layers_0_mlp_fc1"
    assert naming.address(name) == ("te2", "encoder_layers_0_mlp_fc1")
    assert naming.address(name) not in index


@pytest.mark.parametrize("name", ["", ".", "lora_unet_", "lora_te_", "weight", "a" * 1000, "lora_unet_down_blocks_9"])
def test_what_names_nothing_finds_nothing(index, name):
    assert naming.address(name) not in index
