"""What goes on, what stays off and why: the binding of a LoHa to a model's shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lohas import Layout, random_module, sd15_rows
from shinymas_loha.loha import BindError, Loha, LohaModule, block_weights
from shinymas_loha.loha.binding import Place, Skip, Target, bind
from torch.utils._python_dispatch import TorchDispatchMode

ROWS = {row.kohya_name: row for row in sd15_rows()}
TARGETS = [row.target() for row in ROWS.values()]
LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"  # 320×320
WIDE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2"  # 320×1280
CONV1X1 = "lora_unet_down_blocks_0_attentions_0_proj_in"  # 320×320×1×1
CONV3X3 = "lora_unet_down_blocks_0_resnets_0_conv1"  # 320×320×3×3
NARROW_IN = "lora_unet_conv_in"  # 320×4×3×3
ENCODER = "lora_te_text_model_encoder_layers_0_mlp_fc1"  # 3072×768
CROSS = "lora_unet_down_blocks_{}_attentions_{}_transformer_blocks_0_attn2_to_k"


def _module(shape, size=0.1, **fields):
    return random_module(Layout(shape, **fields), size=size)


def _loha(*names, **modules):
    """One that fits for each of `names`, and `modules` as given."""
    fitting = {name: _module(ROWS[name].shape) for name in names}
    return Loha({**fitting, **modules})


def _numbers(value, out=320, columns=320, alpha=None):
    """Rank 1, every factor `value`: ΔW is value⁴ everywhere."""
    return LohaModule("m", *(torch.full(shape, value, dtype=torch.float16) for shape in ((out, 1), (1, columns)) * 2),
                      alpha=alpha)


# Row of the list of hostile files: module name, module, what the reason says.
SKIPPED = {
    "9: alpha of 1e30": (LINEAR, _numbers(1.0, alpha=1e30), "not finite in the weight's dtype, float16"),
    "16: overflow": (LINEAR, _numbers(100.0), "not finite in the weight's dtype, float16"),
    "22: Tucker on a linear": (LINEAR, _module((320, 320, 3, 3), tucker=True),
                               "a Tucker module of 320×320×3×3 does not fit the weight 320×320 of diffusion_model."),
    "23: Tucker of a conv1d": (CONV3X3, _module((320, 320, 3), tucker=True),
                               "a Tucker module of 320×320×3 does not fit the weight 320×320×3×3"),
    "23: Tucker of a conv3d": (CONV3X3, _module((320, 320, 3, 3, 1), tucker=True),
                               "a Tucker module of 320×320×3×3×1 does not fit the weight 320×320×3×3"),
    "24: another shape": (LINEAR, _module((320, 640)), "a product of 320×640 does not fit the weight 320×320"),
    "25: transposed": (WIDE, _module((1280, 320)), "a product of 1280×320 does not fit the weight 320×1280"),
    "25: the same count": (CONV3X3, _module((960, 960)), "a product of 960×960 does not fit the weight 320×320×3×3"),
    "26: broadcast over rows": (LINEAR, _module((1, 320)), "a product of 1×320 does not fit the weight 320×320"),
    "26: broadcast over columns": (LINEAR, _module((320, 1)), "a product of 320×1 does not fit the weight 320×320"),
    "26: Tucker of 1×1 on 3×3": (CONV3X3, _module((320, 320, 1, 1), tucker=True),
                                 "a Tucker module of 320×320×1×1 does not fit the weight 320×320×3×3"),
    "27: 200 000 × 200 000": (LINEAR, _numbers(0.1, 200_000, 200_000),
                              "a product of 200000×200000 does not fit the weight 320×320"),
    "33: DoRA of another length": (LINEAR, LohaModule("m", *_module((320, 320)).tensors().values(),
                                                      dora_scale=torch.ones(5, 1)),
                                   "dora_scale 5×1 fits neither axis of the weight 320×320"),
    "33: DoRA over both axes": (LINEAR, LohaModule("m", *_module((320, 320)).tensors().values(),
                                                   dora_scale=torch.ones(320, 320)),
                                "dora_scale 320×320 fits neither axis of the weight 320×320"),
}


class _LargestTensor(TorchDispatchMode):
    """Notes the most numbers in any tensor that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("name, module, text", SKIPPED.values(), ids=SKIPPED)
def test_a_module_that_cannot_go_on_is_skipped_with_its_reason(name, module, text):
    loha = _loha(ENCODER, **{name: module})
    with _LargestTensor() as largest:
        binding = bind(loha, TARGETS)
    assert text in str(binding.skipped[name])
    assert not binding.skipped[name].asked
    assert list(binding.modules) == [ENCODER]
    assert largest.numbers <= 1_000_000
    binding.demand(strict=False)
    with pytest.raises(BindError, match="strict: 1 of the file's 2 modules would not be applied") as error:
        binding.demand(strict=True)
    assert f"- {name}: " in str(error.value)
    assert text in str(error.value)


def test_26_only_the_whole_of_a_weight_is_taken_for_it():
    """conv_in has 4 inputs: 320×36 is its flat form, 320×4 is not."""
    fitting = bind(_loha(**{NARROW_IN: _module((320, 36))}), TARGETS)
    assert fitting.applied == 1
    assert not bind(_loha(**{NARROW_IN: _module((320, 4))}), TARGETS).applied


def test_27_a_giant_that_does_fit_is_not_multiplied_to_be_bound():
    target = Target("diffusion_model.giant.weight", (200_000, 200_000), torch.float16)
    with _LargestTensor() as largest:
        binding = bind(Loha({"diffusion_model.giant": _numbers(0.1, 200_000, 200_000)}), [target])
    assert binding.applied == 1
    assert largest.numbers <= 200_000


def test_28_modules_of_another_text_encoder_are_skipped():
    loha = Loha({LINEAR: _module((320, 320)), "lora_te2_text_model_encoder_layers_0_mlp_fc1": _module((5120, 1280))})
    binding = bind(loha, TARGETS)
    assert binding.applied == 1
    assert [skip.reason for skip in binding.skipped.values()] == [
        "for text encoder 2, which this model does not have"]


def test_28_modules_of_sdxl_beside_ones_that_would_fit_are_all_left_off():
    names = [CROSS.format(1, n) for n in range(2)]
    binding = bind(Loha({name: _module((640, 2048)) for name in names} | {LINEAR: _module((320, 320))}), TARGETS)
    assert (binding.file_base, binding.model_base, binding.applied) == ("SDXL", "SD 1.5", 0)
    assert {skip.reason for skip in binding.skipped.values()} == {"made for SDXL, and the model is SD 1.5"}
    assert len(binding.skipped) == 3


@pytest.mark.parametrize("width, base", [(2048, "SDXL"), (1024, "SD 2"), (1280, "SDXL refiner")])
def test_29_a_file_for_another_base_model_is_refused_and_the_base_named(width, base):
    loha = Loha({CROSS.format(1, n): _module((640, width)) for n in range(2)})
    with pytest.raises(BindError) as error:
        bind(loha, TARGETS).demand(strict=False)
    assert str(error.value) == (
        f"This LoHa was made for {base} (its cross-attention reads text {width} wide), and the model is SD 1.5: none "
        "of its 2 modules is applied. Choose a checkpoint of the kind that the LoHa was trained on, or a LoHa for "
        "SD 1.5.")


def test_29_a_text_encoder_alone_tells_the_base_model_too():
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert bind(Loha({name: _module((768, 768))}), TARGETS).file_base == "SD 1.5"
    assert bind(Loha({name: _module((1024, 1024))}), TARGETS).file_base == "SD 2"
    two = Loha({name: _module((768, 768)), name.replace("te_", "te2_"): _module((1280, 1280))})
    assert bind(two, TARGETS).file_base == "SDXL"


def test_29_names_that_nobody_knows_are_refused_and_shown_safely():
    loha = Loha({"evil\n\u202ename": _module((4, 4))})
    binding = bind(loha, TARGETS)
    assert binding.unknown == ("evil\n\u202ename",)
    with pytest.raises(BindError, match="no weight of this model has that name") as error:
        binding.demand(strict=False)
    assert "'evil\\x0a\\u202ename'" in str(error.value)
    assert "What it was made for cannot be told; the model looks like SD 1.5." in str(error.value)


def test_30_two_names_for_one_weight():
    other = ENCODER.replace("lora_te_", "lora_te1_")
    with pytest.raises(BindError) as error:
        bind(Loha({ENCODER: _module((3072, 768)), other: _module((3072, 768))}), TARGETS)
    assert str(error.value).startswith(
        f"'{ENCODER}' and '{other}' both name the weight {ROWS[ENCODER].weight}; a file must hold one of them.")


def test_modules_refused_by_the_reader_are_counted_as_skipped():
    loha = Loha({LINEAR: _module((320, 320))}, refused={"bad": "its name is empty"})
    binding = bind(loha, TARGETS)
    assert (len(loha), binding.applied, len(binding.skipped)) == (2, 1, 1)
    assert binding.faults == {"bad": "its name is empty"}


def test_the_whole_table_binds_in_every_layout():
    loha = Loha({name: _module(row.shape, ranks=(1, 1)) for name, row in ROWS.items()})
    binding = bind(loha, TARGETS)
    assert (binding.applied, len(binding.skipped), len(binding.unknown)) == (354, 0, 0)
    assert (binding.file_base, binding.model_base) == ("SD 1.5", "SD 1.5")
    assert {name: bound.target.weight for name, bound in binding.modules.items()} == {
        name: row.weight for name, row in ROWS.items()}
    binding.demand(strict=True)


@pytest.mark.parametrize("tensors, applied", [
    ({"lora_up.weight": (320, 4), "lora_down.weight": (4, 320)}, True),
    ({"lora_up.weight": (320, 4), "lora_down.weight": (4, 640)}, False),
    ({"lora_A.weight": (4, 320), "lora_B.weight": (320, 4)}, True),
    ({"lora_A.weight": (4, 320), "lora_B.weight": (640, 4)}, False),
    ({"diff": (320, 320)}, True),
    ({"diff": (1, 320)}, False),
    ({"set_weight": (320, 640)}, False),
    ({"lora_up.weight": (320, 4)}, False),
    ({"lora_up.weight": (320, 8), "lora_down.weight": (4, 320)}, False),
    ({"lora_up.weight": (320, 4), "lora_down.weight": (4, 320), "alpha": (2,)}, False),
    ({"lora_up.weight": (320, 4), "lora_down.weight": (4, 320), "diff_b": (320,)}, False),  # it has no bias
    ({"lora_up.weight": (320, 4), "lora_down.weight": (4, 320), "dora_scale": (7, 1)}, False),
    ({"lokr_w1": (8, 8), "lokr_w2": (40, 40)}, True),
    ({"lokr_w1": (8, 8), "lokr_w2": (41, 40)}, False),
    ({"lokr_w1_a": (8, 2), "lokr_w1_b": (2, 8), "lokr_w2_a": (40, 2), "lokr_w2_b": (2, 40)}, True),
    ({"lokr_w1": (8, 8), "lokr_w2_a": (40, 2), "lokr_w2_b": (3, 40)}, False),
    ({"lokr_w1": (8, 8)}, False),
    ({"a1.weight": (4, 320)}, False),
], ids=str)
def test_shapes_of_other_kinds_are_checked_too(tensors, applied):
    loha = Loha({ENCODER: _module((3072, 768))}, {LINEAR: {key: torch.zeros(s) for key, s in tensors.items()}})
    binding = bind(loha, TARGETS)
    assert (LINEAR in binding.others) == applied
    assert binding.applied + len(binding.skipped) == 2


@pytest.mark.parametrize("down, up, mid, name", [
    ((4, 320, 3, 3), (320, 4, 1, 1), None, CONV3X3),
    ((4, 320, 1, 1), (320, 4, 1, 1), (4, 4, 3, 3), CONV3X3),
    ((4, 320, 1, 1), (320, 4, 1, 1), None, CONV1X1),
    ((4, 320), (320, 4), None, CONV1X1),
], ids=str)
def test_a_convolutions_lora_fits(down, up, mid, name):
    tensors = {"lora_down.weight": torch.zeros(down), "lora_up.weight": torch.zeros(up)}
    if mid:
        tensors["lora_mid.weight"] = torch.zeros(mid)
    assert bind(Loha({}, {name: tensors}), TARGETS).applied == 1


def test_integers_are_no_factors_of_another_kind():
    tensors = {"lora_up.weight": torch.ones(320, 4, dtype=torch.int8), "lora_down.weight": torch.zeros(4, 320)}
    binding = bind(Loha({ENCODER: _module((3072, 768))}, {LINEAR: tensors}), TARGETS)
    assert binding.faults == {LINEAR: "its lora_up is int8, expected floating-point numbers"}


def test_a_tucker_lokr_of_a_convolution_fits():
    shapes = {"lokr_w1": (8, 8), "lokr_w2_a": (2, 40), "lokr_w2_b": (2, 40), "lokr_t2": (2, 2, 3, 3)}
    assert bind(Loha({}, {CONV3X3: {key: torch.zeros(s) for key, s in shapes.items()}}), TARGETS).applied == 1


def test_a_further_name_for_a_weight_that_is_not_there_is_unknown():
    binding = bind(_loha(LINEAR, **{"odd": _module((4, 4))}), TARGETS,
                   names=lambda: {"odd": Place("diffusion_model.odd.weight")})
    assert binding.unknown == ("odd",)


def test_a_clip_that_is_not_connected_is_the_reason():
    targets = [target for target in TARGETS if target.is_unet]
    binding = bind(_loha(LINEAR, ENCODER), targets, absent={"te1": Skip("no CLIP is connected")})
    assert binding.faults == {ENCODER: "no CLIP is connected"}


def test_strength_0_is_no_fault():
    binding = bind(_loha(LINEAR, ENCODER), TARGETS, lambda target: 0.0)
    assert binding.applied == 0
    assert {skip.reason for skip in binding.skipped.values()} == {
        "strength 0 for the U-Net", "strength 0 for the text encoder"}
    assert all(skip.asked for skip in binding.skipped.values())
    binding.demand(strict=True)


def test_strength_counts_when_overflow_is_judged():
    loha = _loha(**{LINEAR: _numbers(10.0)})  # ΔW = 10 000 everywhere, fp16 ends at 65 504
    assert bind(loha, TARGETS, lambda target: 6.0).applied == 1
    assert bind(loha, TARGETS, lambda target: 7.0).applied == 0
    assert bind(loha, [ROWS[LINEAR].target(torch.bfloat16)], lambda target: 7.0).applied == 1


def test_block_weights_reach_the_weights_of_their_block():
    weights = block_weights.parse("0.5" + ",1" * 24 + ",0")
    far = "lora_unet_up_blocks_3_attentions_2_proj_in"
    binding = bind(_loha(LINEAR, far, ENCODER), TARGETS, lambda target: 2.0,
                   block_weight=lambda target: weights[target.block])
    assert {name: bound.strength for name, bound in binding.modules.items()} == {LINEAR: 2.0, ENCODER: 1.0}
    assert (str(binding.skipped[far]), binding.skipped[far].asked) == ("block weight 0 of OUT11", True)


def test_strict_names_ten_and_counts_the_rest():
    loha = _loha(ENCODER, **{f"nothing_{n}": _module((4, 4)) for n in range(13)})
    targets = TARGETS
    with pytest.raises(BindError) as error:
        bind(loha, targets).demand(strict=True)
    lines = str(error.value).splitlines()
    assert lines[0] == "strict: 13 of the file's 14 modules would not be applied:"
    assert lines[1] == "- nothing_0: no weight of this model has that name"
    assert lines[11:] == ["… and 3 more", "Turn `strict` off to apply the others."]


_names = st.sampled_from([*list(ROWS)[:20], "lora_te2_text_model_encoder_layers_0_mlp_fc1", "nobody", "",
                          ENCODER, CONV1X1, CONV3X3])
_shapes = st.sampled_from([(320, 320), (320, 2880), (3072, 768), (1, 1), (640, 2048), (320, 1280)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(modules=st.dictionaries(_names, _shapes, max_size=8), others=st.dictionaries(_names, _shapes, max_size=4),
       refused=st.sets(st.text(max_size=5), max_size=3), strengths=st.lists(st.sampled_from([0.0, 1.0]), min_size=26,
                                                                            max_size=26))
def test_every_module_is_counted_once(modules, others, refused, strengths):
    others = {name: {"diff": torch.zeros(shape)} for name, shape in others.items() if name not in modules}
    loha = Loha({name: _module(shape, ranks=(1, 1)) for name, shape in modules.items()}, others,
                {f"refused {name}": "for a reason" for name in refused})
    weights = dict(zip(block_weights.BLOCKS, strengths, strict=True))
    binding = bind(loha, TARGETS, lambda target: weights[target.block])
    assert binding.applied + len(binding.skipped) + len(binding.unknown) == len(loha)
    assert not set(binding.modules) & set(binding.others)
