"""Block weights: which weight lies in which block, and what the widget takes."""

from collections import Counter

import pytest
from lohas import sd15_rows
from shinymas_loha.loha import SettingsError, block_weights

ROWS = sd15_rows()


def test_every_weight_of_sd15_lies_in_one_of_the_26_blocks():
    counts = Counter(block_weights.block_of(row.weight) for row in ROWS)
    assert set(counts) == set(block_weights.BLOCKS)
    assert len(block_weights.BLOCKS) == 26
    assert counts["BASE"] == 72 + 3  # the text encoder; time_embed.0, time_embed.2 and out.2


def test_the_17_blocks_are_base_and_those_that_hold_attention():
    attention = {block_weights.block_of(row.weight) for row in ROWS if "transformer_blocks" in row.weight}
    assert set(block_weights.ATTENTION_BLOCKS) == attention | {"BASE"}
    assert len(block_weights.ATTENTION_BLOCKS) == 17


@pytest.mark.parametrize("weight, block", [
    ("diffusion_model.input_blocks.0.0.weight", "IN00"),
    ("diffusion_model.input_blocks.11.0.out_layers.3.weight", "IN11"),
    ("diffusion_model.middle_block.1.proj_in.weight", "MID"),
    ("diffusion_model.output_blocks.5.2.conv.weight", "OUT05"),
    ("diffusion_model.time_embed.0.weight", "BASE"),
    ("clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight", "BASE"),
])
def test_block_of(weight, block):
    assert block_weights.block_of(weight) == block


def test_a_modules_name_says_the_block_of_its_weight():
    for row in ROWS:
        block = block_weights.block_of(row.weight)
        original = "lora_unet_" + row.weight.removeprefix("diffusion_model.").removesuffix(".weight").replace(".", "_")
        assert block_weights.block_of_module(row.kohya_name) == block, row
        if row.weight.startswith("diffusion_model."):
            assert block_weights.block_of_module(original) == block, row
            assert block_weights.block_of_module(row.weight) == block, row


@pytest.mark.parametrize("name", ["", "lora_unet_double_blocks_3_img_attn_qkv", "lora_unet_down_blocks_9_resnets_0_x",
                                  "lora_unet_output_blocks_99_0_proj_in", "stranger"])
def test_a_name_that_tells_no_block(name):
    assert block_weights.block_of_module(name) is None


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_means_no_block_weights(text):
    assert block_weights.parse(text) is None


def test_26_numbers_stand_in_the_order_of_the_blocks():
    weights = block_weights.parse(", ".join(str(n / 10) for n in range(26)))
    assert weights == {block: pytest.approx(n / 10) for n, block in enumerate(block_weights.BLOCKS)}
    assert list(weights)[:2] + [list(weights)[13]] + list(weights)[-1:] == ["BASE", "IN00", "MID", "OUT11"]


def test_17_numbers_name_the_blocks_with_attention_and_the_others_are_0():
    weights = block_weights.parse(",".join(str(n) for n in range(1, 18)))
    assert {block: weight for block, weight in weights.items() if weight} == {
        "BASE": 1, "IN01": 2, "IN02": 3, "IN04": 4, "IN05": 5, "IN07": 6, "IN08": 7, "MID": 8, "OUT03": 9,
        "OUT04": 10, "OUT05": 11, "OUT06": 12, "OUT07": 13, "OUT08": 14, "OUT09": 15, "OUT10": 16, "OUT11": 17}
    assert len(weights) == 26


@pytest.mark.parametrize("name", block_weights.PRESETS)
def test_presets_are_lists_that_the_widget_takes(name):
    assert block_weights.parse(f" {name.lower()} ") == block_weights.parse(block_weights.PRESETS[name])


def test_what_presets_mean():
    def on(name):
        return {block for block, weight in block_weights.parse(name).items() if weight == 1}

    assert on("NONE") == set()
    assert on("ALL") == set(block_weights.BLOCKS)
    assert on("INS") == {"BASE", "IN01", "IN02", "IN04"}
    assert on("IND") == {"BASE", "IN05", "IN07", "IN08"}
    assert on("INALL") == on("INS") | on("IND")
    assert on("MIDD") == on("IND") | {"MID", "OUT03", "OUT04", "OUT05", "OUT06"}
    assert on("OUTD") == {"BASE", "OUT03", "OUT04", "OUT05", "OUT06"}
    assert on("OUTS") == {"BASE", *(f"OUT{n:02d}" for n in range(7, 12))}
    assert on("OUTALL") == on("OUTD") | on("OUTS")


def test_negative_and_exponent_numbers_are_numbers():
    weights = block_weights.parse("-1,1e-1" + ",0" * 24)
    assert (weights["BASE"], weights["IN00"]) == (-1.0, 0.1)


@pytest.mark.parametrize("text, says", [
    ("1,2,3", "3 numbers given; 17 (BASE, IN01, IN02, IN04, IN05, IN07, IN08, MID, OUT03–OUT11) or 26 "),
    ("1", "1 numbers given"),
    ("1," * 26, "entry 27 is '', not a finite number"),
    ("1," * 26 + "1", "27 numbers given"),
    ("1,x" + ",1" * 24, "entry 2 is 'x', not a finite number"),
    ("nan" + ",1" * 25, "entry 1 is 'nan', not a finite number"),
    ("1,1,inf" + ",1" * 23, "entry 3 is 'inf', not a finite number"),
    ("1;" * 16 + "1", "no preset is called '1;1;1"),
    ("OUTX", "no preset is called 'OUTX'; there are NONE, ALL, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL"),
    ("a\nb\u202e", "no preset is called 'a\\x0ab\\u202e'"),
    ("x" * 500, "… (500 characters)"),
], ids=lambda value: value[:12])
def test_a_bad_list_is_a_clear_error(text, says):
    with pytest.raises(SettingsError) as error:
        block_weights.parse(text)
    assert str(error.value).startswith("block_weights: ")
    assert says in str(error.value)
