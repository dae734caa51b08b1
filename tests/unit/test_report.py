"""The report: contract first, then the file, every reason, and the norms."""

import json
from dataclasses import replace

import pytest
import torch
from lohas import DORA_LAYOUTS, Layout, exact_delta, random_module, sd15_rows
from shinymas_loha.loha import Loha, LohaModule, Source, report
from shinymas_loha.loha.binding import bind

TARGETS = [row.target(torch.float32) for row in sd15_rows()]
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
QUERY, KEY = BLOCK + "attn1_to_q", BLOCK + "attn2_to_k"
SOURCE = Source("/models/loras/sub/shiny\nmas.safetensors", 1234, 5, "ab" * 32)


@pytest.fixture
def loha():
    square = Layout((320, 320), ranks=(4, 2))
    modules = {
        QUERY: random_module(square, alpha=1.0),
        KEY: random_module(Layout((320, 768)), alpha=None),
        BLOCK + "attn1_to_v": random_module(Layout((320, 64)), alpha=1.0),
        "stranger": random_module(DORA_LAYOUTS["tucker, dora out"], alpha=0.5),
    }
    others = {BLOCK + "attn1_to_k": {"lora_up.weight": torch.zeros(320, 2), "lora_down.weight": torch.zeros(2, 320)}}
    tags = {"1_b": {"solo": 3, " 1girl": 5}, "1_a": {"solo": 4, "hat\n": 1}}
    return Loha(modules, others, {"broken": "its name is empty"}, {"ss_tag_frequency": json.dumps(tags)}, SOURCE,
                ("the scale is a guess",))


def _norm_lines(binding):
    return report.norm_lines(report.block_norms(binding, torch.device("cpu")))


def test_the_report_in_full(loha):
    assert report.binding_lines(bind(loha, TARGETS)) == [
        "modules: 6",
        "applied: 3",
        "skipped: 2",
        "unknown: 1",
        "left off 1: its name is empty (broken)",
        "left off 1: a product of 320×64 does not fit the weight 320×320 of "
        f"diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight ({BLOCK}attn1_to_v)",
        "left off 1: no weight of this model has that name (stranger)",
        "made for: SD 1.5",
        "model: SD 1.5",
        "file: shiny\\x0amas.safetensors",
        "kinds: LoHa flat × 3, LoHa tucker+dora × 1, LoRA × 1",
        "ranks: 4 × 3, 4/2 × 1",
        "alphas: 1 × 2, none × 1, 0.5 × 1",
        "top tags: solo 7, 1girl 5, hat 1",
        "note: the scale is a guess",
    ]


def test_every_line_is_one_line_and_a_key_with_its_value(loha):
    for line in report.binding_lines(bind(loha, TARGETS)):
        assert "\n" not in line
        assert ": " in line


def test_many_modules_of_one_reason_share_a_line():
    loha = Loha({f"stranger_{n}": random_module(Layout((4, 4))) for n in range(5)})
    assert report.binding_lines(bind(loha, TARGETS))[4] == (
        "left off 5: no weight of this model has that name (stranger_0, stranger_1, stranger_2, …)")


def test_a_trained_loha_has_no_file_lines():
    trained = Loha({QUERY: random_module(Layout((4, 4)), alpha=1.0)})
    assert report.file_lines(trained) == ["kinds: LoHa flat × 1", "ranks: 4 × 1", "alphas: 1 × 1"]
    assert report.hash_lines(trained) == []


def test_the_hash_in_full_and_as_other_tools_cut_it(loha):
    assert report.hash_lines(loha) == ["sha256: " + "ab" * 32, "short hash: ababababab"]


def test_norms_by_block_in_the_order_of_the_blocks():
    layout = Layout((320, 320))
    modules = {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": random_module(Layout((1280, 1280))),
        QUERY: random_module(layout, seed=1),
        BLOCK + "attn1_to_k": random_module(layout, seed=2),
    }
    lines = _norm_lines(bind(Loha(modules), TARGETS, lambda target: 0.3))
    both = sum(float(exact_delta(modules[name], layout.shape).square().sum())
               for name in (QUERY, BLOCK + "attn1_to_k")) ** 0.5
    assert [line.split(":")[0] for line in lines] == ["norm IN01", "norm MID"]
    assert float(lines[0].split()[2]) == pytest.approx(both, rel=1e-3)  # whatever the strength
    assert lines[1].endswith(" " + "█" * 24)


def test_norms_beyond_float64_are_not_drawn_and_the_others_are():
    wide = torch.full((320, 1), 1e45, dtype=torch.float64)
    modules = {QUERY: LohaModule(QUERY, wide, wide.t(), wide, wide.t()),
               "lora_unet_mid_block_attentions_0_proj_in": random_module(Layout((1280, 1280)))}
    targets = [replace(target, dtype=torch.float64) for target in TARGETS]
    lines = _norm_lines(bind(Loha(modules), targets))
    assert lines[0] == "norm IN01: too large to draw"
    assert lines[1].endswith("█" * 24)


def test_norms_of_zeros_draw_no_bar():
    zeros = random_module(Layout((320, 320)), alpha=0.0)
    assert _norm_lines(bind(Loha({QUERY: zeros}), TARGETS)) == ["norm IN01: 0"]


@pytest.mark.parametrize("text", [
    "", "[]", "{", "null", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": {"b": null}}', '{"a": {"b": NaN}}',
    '{"a": {"b": Infinity}}', "[" * 100_000,
], ids=lambda text: text[:12] or "empty")
def test_unusable_tag_frequencies_are_no_tags(text):
    assert report.top_tags({"ss_tag_frequency": text}) == []


def test_top_tags_break_ties_by_name_and_end_at_20():
    tags = {f"tag {n:02d}": 1 for n in range(30)} | {"solo": 2}
    found = report.top_tags({"ss_tag_frequency": json.dumps({"folder": tags})})
    assert found == [("solo", 2), *((f"tag {n:02d}", 1) for n in range(19))]


@pytest.mark.parametrize("suffixes, kind", [
    (["lora_up.weight", "lora_down.weight"], "LoRA"),
    (["lora_up.weight", "lora_mid.weight", "lora_down.weight"], "LoCon"),
    (["lokr_w1", "lokr_w2_a"], "LoKr"),
    (["diff"], "full difference"),
    (["set_weight"], "replaced weight"),
    (["w_norm", "b_norm"], "norm difference"),
    (["oft_blocks"], "OFT"),
    (["a1.weight", "b1.weight"], "GLoRA"),
    (["something"], "unknown kind"),
])
def test_kinds_of_other_modules(suffixes, kind):
    assert report.kind_of(suffixes) == kind
