"""What is drawn of a file and of what became of it: facts, norms by block, parts with reasons; always JSON."""

import json
from dataclasses import replace

import pytest
import torch
from lohas import Layout, random_module, sd15_rows
from shinymas_loha.loha import Loha, LohaModule, overview, report
from shinymas_loha.loha.binding import bind

TARGETS = [row.target(torch.float32) for row in sd15_rows()]
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
QUERY, KEY = BLOCK + "attn1_to_q", BLOCK + "attn1_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
CPU = torch.device("cpu")


def _drawn(binding):
    return overview.of_binding(binding, report.block_norms(binding, CPU))


def facts(metadata=(), **others):
    loha = Loha({QUERY: random_module(Layout((320, 320)), alpha=1.0)}, metadata=dict(metadata), **others)
    return dict(overview.of_file(loha)["facts"])


def test_a_file_by_parts_with_its_ranks():
    loha = Loha({QUERY: random_module(Layout((320, 320))), TEXT: random_module(Layout((3072, 768))),
                 "lora_te2_text_model_encoder_layers_0_self_attn_q_proj": random_module(Layout((1280, 1280)))},
                {KEY: {"lora_up.weight": torch.zeros(320, 2), "lora_down.weight": torch.zeros(2, 320)}},
                {"broken": "its name is empty"})
    drawn = overview.of_file(loha)
    assert drawn["facts"] == [
        ["modules", "2 U-Net, 1 text encoder, 1 text encoder 2, 1 unusable"], ["kinds", "LoHa flat × 3, LoRA × 1"],
        ["ranks", "4 × 3"], ["alphas", "2 × 3"], ["made for", "SDXL"]]
    assert [block for block, _ in drawn["norms"]] == ["BASE", "IN01"] and drawn["are_estimated"]


def test_what_a_trainer_states():
    stated = {"ss_sd_model_name": "anime.safetensors", "ss_num_train_images": "966", "ss_learning_rate": "0.0005",
              "ss_unet_lr": "None", "ss_optimizer": "AdamW8bit", "ss_clip_skip": "2", "ss_epoch": "14",
              "ss_num_epochs": "20", "ss_steps": "3000", "ss_training_started_at": "1680000000.5",
              "ss_resolution": "(768, 768)", "modelspec.resolution": "768x768"}
    found = facts(stated)
    assert found | {
        "training": "epoch 14 of 20, step 3000, 2023-03-28", "trained on": "anime.safetensors", "pictures": "966",
        "resolution": "768x768", "learning rate": "0.0005", "optimizer": "AdamW8bit", "clip skip": "2"} == found
    assert "of the U-Net" not in found and "scheduler" not in found


@pytest.mark.parametrize("time", ["", "soon", "nan", "inf", "1e300", "-1e18"])
def test_a_time_that_is_none_is_left_out(time):
    assert facts({"ss_training_finished_at": time, "ss_epoch": "1"})["training"] == "epoch 1"


def test_a_strangers_text_is_cut_and_escaped():
    found = facts({"ss_sd_model_name": "a\n\u202eb" + "x" * 100_000, "ss_epoch": "9" * 5000})
    assert found["trained on"].startswith("a\\x0a\\u202eb") and len(found["trained on"]) < 120
    assert len(found["training"]) < 60


@pytest.mark.parametrize("tucker", [False, True])
def test_estimated_norms_are_near_the_exact_ones(tucker):
    layout = Layout((320, 320, 3, 3), tucker=tucker, ranks=(16, 16))
    loha = Loha({"lora_unet_down_blocks_0_resnets_0_conv1": random_module(layout, dtype=torch.float16)})
    (block, about), = overview.of_file(loha)["norms"]
    (exact_block, exact), = _drawn(bind(loha, TARGETS))["norms"]
    assert block == exact_block == "IN01"
    assert about == pytest.approx(exact, rel=0.15)


def test_small_products_are_not_estimated_but_exact():
    loha = Loha({QUERY: random_module(Layout((32, 20)))})
    targets = [replace(target, shape=(32, 20)) if "1.1.transformer_blocks.0.attn1.to_q" in target.weight else target
               for target in TARGETS]
    assert overview.of_file(loha)["norms"] == _drawn(bind(loha, targets))["norms"]


def test_the_product_of_a_strangers_shape_is_never_made():
    """3 MB of factors, 320 GB of product."""
    tall, wide = torch.ones(400_000, 1, dtype=torch.float16), torch.ones(1, 400_000, dtype=torch.float16)
    drawn = overview.of_file(Loha({QUERY: LohaModule(QUERY, tall, wide, tall, wide)}))
    assert drawn["norms"] == [["IN01", 400_000.0]]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float64])
def test_every_dtype_of_factors_is_drawn(dtype):
    (_, norm), = overview.of_file(Loha({QUERY: random_module(Layout((320, 320)), dtype=dtype)}))["norms"]
    assert norm > 0


def test_what_is_infinite_is_json_all_the_same():
    wide = torch.full((320, 1), 1e45, dtype=torch.float64)
    loha = Loha({QUERY: LohaModule(QUERY, wide, wide.t(), wide, wide.t())})
    targets = [replace(target, dtype=torch.float64) for target in TARGETS]
    for drawn in (overview.of_file(loha), _drawn(bind(loha, targets))):
        assert drawn["norms"] == [["IN01", None]]
        json.dumps(drawn, allow_nan=False)


def test_a_file_of_another_architecture_has_no_chart():
    assert overview.of_file(Loha({"lora_unet_double_blocks_3_img_attn_qkv": random_module(Layout((9, 3)))}))[
        "norms"] == []


def test_parts_with_their_reasons():
    loha = Loha({QUERY: random_module(Layout((320, 320))), KEY: random_module(Layout((320, 64))),
                 "stranger": random_module(Layout((4, 4)))})
    drawn = _drawn(bind(loha, TARGETS))
    (_, applied, nothing), (_, skipped, misfit), (_, unknown, no_name) = drawn["parts"]
    assert [part for part, *_ in drawn["parts"]] == ["applied", "skipped", "unknown"]
    assert (applied, skipped, unknown, nothing) == (1, 1, 1, [])
    assert misfit[0].startswith("left off 1: a product of 320×64 does not fit the weight 320×320")
    assert no_name == ["left off 1: no weight of this model has that name (stranger)"]
