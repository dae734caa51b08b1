"""What a person is told to do when nothing of a file can be applied: what helps, and no more."""

import pytest
import torch
from lohas import Layout, random_module, sd15_rows
from shinymas_loha.loha import BindError, Loha, LohaModule, report
from shinymas_loha.loha.binding import Skip, bind

ROWS = {row.kohya_name: row for row in sd15_rows()}
TARGETS = [row.target() for row in ROWS.values()]
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
QUERY, KEY, CROSS = BLOCK + "attn1_to_q", BLOCK + "attn1_to_k", BLOCK + "attn2_to_k"
FLOAT16 = "not finite in the weight's dtype, float16"
LOWER = "Choose a lower strength or block weight."
DAMAGED = "The file is damaged there, or was written wrongly: get it anew, or save it with another tool."


def _numbers(value, **fields):
    """Rank 1, every factor `value`: ΔW is value⁴ everywhere."""
    return LohaModule("m", *(torch.full(shape, value, dtype=torch.float16) for shape in ((320, 1), (1, 320)) * 2),
                      **fields)


def _refused(loha, *args, **kwargs):
    with pytest.raises(BindError) as error:
        bind(loha, TARGETS, *args, **kwargs).demand(strict=False)
    assert "checkpoint of the kind" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("strength, block, said", [
    (1.0, 1e308, "its strength 1 × block weight 1e+308 is"),
    (1.0, -1e38, "its strength 1 × block weight -1e+38 is"),
    (1e5, 1.0, "its strength 100000 is"),
    (1e200, 1e200, "its strength 1e+200 × block weight 1e+200 is"),
])
def test_a_strength_beyond_the_dtype_is_to_be_lowered(strength, block, said):
    message = _refused(Loha({QUERY: _numbers(0.1)}), lambda target: strength, block_weight=lambda target: block)
    assert message == (
        f"None of the file's 1 modules can be applied. The first, '{QUERY}': {said} {FLOAT16}. {LOWER}")


@pytest.mark.parametrize("module, strength, said", [
    (_numbers(10.0), 7.0, f"at strength 7 × block weight 1 the product is {FLOAT16}"),
    (_numbers(10.0), 0.5, f"at strength 0.5 × block weight 14 the product is {FLOAT16}"),
    (_numbers(0.1, dora_scale=torch.full((320, 1), 9000.0)), 10.0,
     f"its dora_scale, 9000 at most, is {FLOAT16} at strength 10"),
], ids=str)
def test_a_product_that_only_the_strength_makes_too_large(module, strength, said):
    block = 7.0 / strength if "block weight 14" in said else 1.0
    message = _refused(Loha({QUERY: module}), lambda target: strength, block_weight=lambda target: block)
    assert message.endswith(f"{said.replace(' × block weight 1 ', ' ')}. {LOWER}")


@pytest.mark.parametrize("module", [_numbers(1.0, alpha=1e30), _numbers(100.0)])
def test_a_product_that_is_too_large_at_any_strength(module):
    message = _refused(Loha({QUERY: module}))
    assert message.endswith(f"the product is {FLOAT16}. Load the model in a dtype of a wider range, such as bfloat16, "
                            "or get the file anew: it may be damaged.")


@pytest.mark.parametrize("tensors, reason", [
    ({"lora_up.weight": torch.zeros(320, 4)}, "its lora_down is missing"),
    ({"lora_up.weight": torch.zeros(320, 4), "lora_down.weight": torch.zeros(3, 320)},
     "its lora_up 320×4 and lora_down 3×320 cannot be multiplied"),
    ({"lora_up.weight": torch.ones(320, 4, dtype=torch.int8)}, "its lora_up is int8, expected floating-point numbers"),
    ({"lokr_w1": torch.zeros(8, 8)}, "its lokr_w2_a is missing"),
])
def test_a_damaged_module_is_the_files_fault(tensors, reason):
    assert _refused(Loha({}, {QUERY: tensors})) == (
        f"None of the file's 1 modules can be applied. The first, '{QUERY}': {reason}. {DAMAGED}")


def test_what_the_reader_refused_is_the_files_fault():
    assert _refused(Loha({}, refused={"m": "its diff holds NaN or infinity"})).endswith(
        f"'m': its diff holds NaN or infinity. {DAMAGED}")


def test_each_remedy_stands_once():
    loha = Loha({QUERY: _numbers(0.1), KEY: _numbers(0.1)}, refused={"m": "its name is empty"})
    message = _refused(loha, lambda target: 1e6)
    assert message == (
        f"None of the file's 3 modules can be applied. The first of 1, 'm': its name is empty. {DAMAGED} "
        f"The first of 2, '{QUERY}': its strength 1e+06 is {FLOAT16}. {LOWER}")


def test_another_checkpoint_of_the_same_kind_is_no_remedy():
    loha = Loha({CROSS: random_module(Layout((99, 768)))})
    assert _refused(loha).endswith(
        f"'{CROSS}': a product of 99×768 does not fit the weight 320×768 of {ROWS[CROSS].weight}. Another checkpoint "
        "of that kind will not help: get the file anew, or ask whoever made it.")


def test_strict_does_not_offer_to_apply_what_there_is_not():
    absent = {"te1": Skip("no CLIP", remedy="Connect it.")}
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    loha = Loha({QUERY: _numbers(0.1), KEY: _numbers(0.1), text: random_module(Layout((3072, 768)))})
    targets = [target for target in TARGETS if target.is_unet]
    with pytest.raises(BindError) as error:
        bind(loha, targets, lambda target: 0.0, absent=absent).demand(strict=True)
    assert str(error.value).splitlines() == [
        "strict: 1 of the file's 3 modules would not be applied:", f"- {text}: no CLIP", "Connect it."]


def test_a_block_weight_of_0_is_told_from_a_strength_of_0():
    loha = Loha({QUERY: _numbers(0.1), KEY: _numbers(0.1)})
    by_block = report.left_off_lines(bind(loha, TARGETS, block_weight=lambda target: 0.0))
    by_strength = report.left_off_lines(bind(loha, TARGETS, lambda target: 0.0, block_weight=lambda target: 0.0))
    by_both = report.left_off_lines(bind(loha, TARGETS, lambda target: 1e-200, block_weight=lambda target: 1e-200))
    assert by_block == [f"left off 2: block weight 0 ({QUERY}, {KEY})"]
    assert by_strength == [f"left off 2: strength 0 for the U-Net ({QUERY}, {KEY})"]
    assert by_both == [f"left off 2: strength 1e-200 × block weight 1e-200 is 0 ({QUERY}, {KEY})"]


def test_reasons_that_differ_by_the_weight_alone_share_a_line():
    names = [name for name in ROWS if name.endswith("attn1_to_q")]
    found = report.left_off_lines(bind(Loha({name: random_module(Layout((8, 8))) for name in names}), TARGETS))
    assert found == [
        f"left off {len(mine)}: a product of 8×8 does not fit the weight {size}×{size} ({', '.join(mine[:3])}, …)"
        for size in (320, 640, 1280) if (mine := [name for name in names if ROWS[name].shape[0] == size])]


def test_what_is_switched_off_hides_no_failure_of_all_the_rest():
    """Two modules of the text encoder that nobody asked for stood against one that failed: nothing was said."""
    text = [f"lora_te_text_model_encoder_layers_{layer}_mlp_fc1" for layer in (0, 1)]
    loha = Loha({QUERY: _numbers(0.1)} | {name: random_module(Layout((3072, 768))) for name in text})
    by_strength = _refused(loha, lambda target: 1e6 if target.is_unet else 0.0)
    assert by_strength == (f"None of the file's 1 modules that are not switched off can be applied. The first, "
                           f"'{QUERY}': its strength 1e+06 is {FLOAT16}. {LOWER}")
    off = {"te1": Skip("strength 0 for the text encoder", asked=True)}
    unet = [target for target in TARGETS if target.is_unet]
    with pytest.raises(BindError) as no_clip:
        bind(loha, unet, lambda target: 1e6, absent=off).demand(strict=False)
    assert str(no_clip.value) == by_strength
    by_block = _refused(loha, block_weight=lambda target: 1e6 if target.is_unet else 0.0)
    assert "not switched off can be applied" in by_block


def test_a_name_of_another_model_is_no_failure_where_all_is_switched_off():
    loha = Loha({name: random_module(Layout((320, 320))) for name in (QUERY, KEY, "lora_unet_nowhere")})
    bind(loha, TARGETS, block_weight=lambda target: 0.0).demand(strict=False)
