"""Apply LoHa on a real checkpoint in ComfyUI's own patcher, in every mode that it has on a CPU."""

import contextlib
import importlib
import json
from dataclasses import replace

import pytest
import torch
from lohas import DORA_LAYOUTS, Layout, random_module
from safetensors.torch import load_file, save_file
from shinymas_loha.loha import BindError, FileError, Loha, SettingsError, files

CPU = torch.device("cpu")
EVERYTHING = 1 << 40
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
QUERY, KEY, VALUE, OUT = (BLOCK + layer for layer in ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0"))
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
FC1 = "lora_te_text_model_encoder_layers_0_mlp_fc1"
WEIGHTS = {
    QUERY: "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    KEY: "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight",
    VALUE: "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight",
    OUT: "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight",
    CONV: "diffusion_model.input_blocks.1.0.in_layers.2.weight",
}
SQUARE = Layout((320, 320))
TUCKER = Layout((320, 320, 3, 3), tucker=True)


@pytest.fixture(scope="module")
def nodes(comfy):
    """The pack's nodes, as ComfyUI has them in this process."""
    return importlib.import_module("shinymas_loha.nodes")


@pytest.fixture
def apply(nodes):
    """Apply LoHa as the executor calls it: (model, clip, report)."""
    def run(model, loha, strength_model=1.0, strength_clip=1.0, strict=False, **optional):
        return nodes.ApplyLoha.execute(model, loha, strength_model, strength_clip, strict, **optional).result

    return run


@pytest.fixture(scope="module")
def sample(nodes, sample_loha):
    return nodes.LoadLoha.execute(sample_loha).result[0]


@pytest.fixture
def loras(base):
    return base / "models" / "loras"


def _small(seed=0, **more):
    """A LoHa of two U-Net layouts and one text encoder module; `more` modules besides."""
    return Loha({
        QUERY: random_module(SQUARE, seed=seed, size=0.3),
        CONV: random_module(TUCKER, seed=seed + 1, size=0.2),
        FC1: random_module(Layout((3072, 768)), seed=seed + 2, size=0.3),
        **more,
    })


@contextlib.contextmanager
def _loaded(patcher, memory=EVERYTHING):
    """The model with its patches in place, as ComfyUI's memory management loads and unloads it.

    Below the model's size, `memory` (bytes) is the low-VRAM mode.
    """
    patcher.detach()  # ComfyUI has the checkpoint's CLIP loaded from the start
    patcher.partially_load(CPU, memory)
    try:
        yield patcher.model
    finally:
        patcher.detach()


def _computed(patcher, names):
    """Copies of the weights that the loaded model computes with."""
    modules = dict(patcher.model.named_modules())
    found = {}
    for name in names:
        module = modules[name.removesuffix(".weight")]
        weight = module.weight.detach().clone()
        for function in getattr(module, "weight_function", ()):
            weight = function(weight)
        found[name] = weight
    return found


def _weights(patcher, names=None, memory=EVERYTHING):
    with _loaded(patcher, memory):
        return _computed(patcher, names or patcher.patches)


def _assert_close(ours, theirs):
    """Neighbours at most where a weight is kept in 16 bits; in float32 within 1e-5 of its largest number."""
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if weight.dtype == torch.float32:
            assert (weight - theirs[name]).abs().max() <= 1e-5 * theirs[name].abs().max(), name
        else:
            assert (_place(weight) - _place(theirs[name])).abs().max() <= 1, name


def _place(weight):
    """Where each 16-bit number stands in the order of all that its dtype has."""
    bits = weight.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_whole_file_patches_as_cores_loader_does(comfy, small_model, apply, sample, loras, sample_loha):
    model, clip, _ = small_model
    ours = apply(model, sample, 0.8, 0.6, strict=True, clip=clip)
    core = comfy.sd.load_lora_for_models(model, clip, load_file(loras / sample_loha), 0.8, 0.6)
    for mine, theirs in ((ours[0], core[0]), (ours[1].patcher, core[1].patcher)):
        assert len(mine.patches) > 40
        _assert_close(_weights(mine), _weights(theirs))


def test_the_report_begins_as_promised(small_model, apply, sample, sample_loha):
    model, clip, _ = small_model
    lines = apply(model, sample, clip=clip)[2].splitlines()
    count = len(sample)
    assert lines[:4] == [f"modules: {count}", f"applied: {count}", "skipped: 0", "unknown: 0"]
    # What nobody reads comes last.
    assert [line.split(":")[0] for line in lines[-3:]] == ["sha256", "short hash", "route"]
    assert f"file: {sample_loha}" in lines
    assert "made for: SD 1.5" in lines
    assert "model: SD 1.5" in lines
    assert any(line.startswith("norm IN01: ") for line in lines)


def test_the_shared_model_is_untouched_and_unpatching_restores_its_bits(small_model, apply):
    model, clip, _ = small_model
    before = _weights(model, list(WEIGHTS.values()))
    patched, patched_clip, _ = apply(model, _small(), clip=clip)
    assert (model.patches, clip.patcher.patches) == ({}, {})
    assert set(patched.patches) == {WEIGHTS[QUERY], WEIGHTS[CONV]}
    assert len(patched_clip.patcher.patches) == 1
    changed = _weights(patched)
    assert not any(torch.equal(changed[name], before[name]) for name in changed)
    _assert_same(_weights(model, list(WEIGHTS.values())), before)


def test_strengths_a_b_a_give_the_same_bits(small_model, apply):
    """One after the other in a model that stays loaded, and each from a fresh load."""
    model, clip, _ = small_model
    first, other, again = (apply(model, _small(), strength, clip=clip)[0] for strength in (0.7, -1.3, 0.7))
    before, names = _weights(model, list(WEIGHTS.values())), list(first.patches)
    fresh, fresh_other = _weights(first), _weights(other)
    assert not any(torch.equal(fresh[name], fresh_other[name]) for name in names)
    with _loaded(first):
        _assert_same(_computed(first, names), fresh)
        other.partially_load(CPU, EVERYTHING)
        _assert_same(_computed(other, names), fresh_other)
        again.partially_load(CPU, EVERYTHING)
        _assert_same(_computed(again, names), fresh)
    _assert_same(_weights(model, list(WEIGHTS.values())), before)


def test_strength_0_returns_the_very_same_objects(small_model, apply):
    model, clip, _ = small_model
    same_model, same_clip, report = apply(model, _small(), 0.0, 0.0, strict=True, clip=clip)
    assert same_model is model
    assert same_clip is clip
    assert report.splitlines()[:4] == ["modules: 3", "applied: 0", "skipped: 3", "unknown: 0"]
    assert apply(model, _small(), 1.0, 0.0, clip=clip)[1] is clip
    assert apply(model, _small(), 0.0, 1.0, clip=clip)[0] is model


def test_without_clip_its_modules_are_counted_as_skipped(small_model, apply):
    model, _, _ = small_model
    patched, clip, report = apply(model, _small())
    assert clip is None
    assert len(patched.patches) == 2
    assert report.splitlines()[:4] == ["modules: 3", "applied: 2", "skipped: 1", "unknown: 0"]
    assert f"left off 1: a text encoder's module, but no CLIP is connected ({FC1})" in report


def test_block_weights_scale_their_block(small_model, apply):
    model, clip, _ = small_model
    half = apply(model, _small(), 2.0, clip=clip, block_weights="1,0,0.25" + ",0" * 23)
    assert set(half[0].patches) == {WEIGHTS[QUERY], WEIGHTS[CONV]}
    _assert_same(_weights(half[0]), _weights(apply(model, _small(), 0.5, clip=clip)[0]))
    none = apply(model, _small(), clip=clip, block_weights="none", strict=True)
    assert none[0] is model
    assert none[1] is clip


def test_several_in_a_row_add_up_in_any_order_also_with_cores_loader(comfy, small_model, apply):
    model, clip, _ = small_model
    lora = {f"{QUERY}.lora_up.weight": torch.full((320, 4), 0.1), f"{QUERY}.lora_down.weight": torch.eye(4, 320)}
    steps = {
        "one": lambda model: apply(model, _small(), 0.5, clip=clip)[0],
        "two": lambda model: apply(model, _small(seed=7), -0.8, clip=clip)[0],
        "core": lambda model: comfy.sd.load_lora_for_models(model, None, lora, 0.9, 0.0)[0],
    }

    def stacked(*order):
        patched = model
        for step in order:
            patched = steps[step](patched)
        return _weights(patched)

    start, alone = _weights(model, [WEIGHTS[QUERY]])[WEIGHTS[QUERY]].double(), {}
    for step in steps:
        alone[step] = stacked(step)[WEIGHTS[QUERY]].double() - start
    everything = stacked("one", "two", "core")
    for order in (("core", "one", "two"), ("two", "core", "one")):
        other = stacked(*order)
        for name in everything:
            torch.testing.assert_close(everything[name], other[name], rtol=1e-3, atol=1e-5)
    expected = start + sum(alone.values())
    assert (everything[WEIGHTS[QUERY]].double() - expected).abs().max() <= 5e-3 * expected.abs().max()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_low_vram_computes_with_the_same_weights(small_model, apply, sample, share):
    """Weights that stay outside are patched at each use, on a copy: `share` of the model's bytes is inside."""
    model, clip, _ = small_model
    patched = apply(model, sample, 0.7, clip=clip)[0]
    names = list(patched.patches)
    untouched = _weights(model, names)
    memory = 1 + int(share * patched.model_size())
    with _loaded(patched, memory) as inside:
        assert inside.model_lowvram
        modules = dict(inside.named_modules())
        outside = [name for name in names if modules[name.removesuffix(".weight")].weight_function]
        assert outside
        assert (len(outside) == len(names)) == (share == 0.0)
        for name in outside:
            assert torch.equal(modules[name.removesuffix(".weight")].weight, untouched[name])
    _assert_same(_weights(patched, memory=memory), _weights(patched))
    _assert_same(_weights(model, names), untouched)


def test_dora_reaches_the_weight(small_model, apply):
    """Core's arithmetic differs here; what holds is the definition: rows as long as `dora_scale` says."""
    model, _, _ = small_model
    module = random_module(Layout((320, 320), dora=DORA_LAYOUTS["linear, dora out"].dora), size=0.2)
    weight = _weights(apply(model, Loha({QUERY: module}))[0])[WEIGHTS[QUERY]]
    torch.testing.assert_close(weight.float().norm(dim=1), module.dora_scale.flatten(), rtol=2e-3, atol=1e-4)


def test_modules_of_other_kinds_go_through_cores_adapters(comfy, small_model, apply, nodes, loras):
    model, clip, _ = small_model
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.1

    tensors = {
        **{f"{QUERY}.{name}": tensor for name, tensor in random_module(SQUARE, size=0.3).tensors().items()},
        f"{QUERY}.alpha": torch.tensor(2.0),
        f"{KEY}.lora_up.weight": draw(320, 4), f"{KEY}.lora_down.weight": draw(4, 320),
        f"{KEY}.alpha": torch.tensor(2.0),
        f"{VALUE}.lokr_w1": draw(16, 16), f"{VALUE}.lokr_w2": draw(20, 20), f"{VALUE}.alpha": torch.tensor(1.0),
        f"{OUT}.diff": draw(320, 320),
    }
    save_file(tensors, loras / "mixed.safetensors")
    loha = nodes.LoadLoha.execute("mixed.safetensors").result[0]
    ours, _, report = apply(model, loha, 0.7, strict=True, clip=clip)
    assert report.splitlines()[:4] == ["modules: 4", "applied: 4", "skipped: 0", "unknown: 0"]
    kinds = next(line for line in report.splitlines() if line.startswith("kinds: "))
    assert set(kinds.removeprefix("kinds: ").split(", ")) == {
        "LoHa flat × 1", "LoRA × 1", "LoKr × 1", "full difference × 1"}
    core = comfy.sd.load_lora_for_models(model, None, tensors, 0.7, 0.0)[0]
    assert set(ours.patches) == {WEIGHTS[name] for name in (QUERY, KEY, VALUE, OUT)}
    _assert_close(_weights(ours), _weights(core))


def test_a_lora_of_the_wrong_shape_is_skipped_and_not_only_logged(small_model, apply):
    model, clip, _ = small_model
    wrong = {"lora_up.weight": torch.zeros(640, 4), "lora_down.weight": torch.zeros(4, 320)}
    patched, _, report = apply(model, Loha({QUERY: random_module(SQUARE)}, {KEY: wrong}), clip=clip)
    assert set(patched.patches) == {WEIGHTS[QUERY]}
    assert f"left off 1: a LoRA of 640×320 does not fit 320×320 ({KEY})" in report


@pytest.mark.parametrize("blocks", [4, 7])
def test_an_oft_is_applied_where_comfyui_can(small_model, apply, blocks):
    """Its shape does not show in its tensors: 320 rows are 4 blocks of 80, and 7 blocks of 80 are more."""
    rotations = {"oft_blocks": torch.randn(blocks, 80, 80, generator=torch.Generator().manual_seed(0))}
    patched, _, report = apply(small_model[0], Loha({KEY: random_module(SQUARE)}, {QUERY: rotations}))
    assert (WEIGHTS[QUERY] in patched.patches) == (blocks == 4)
    assert ("left off 1: ComfyUI's adapter cannot put it on 320×320" in report) == (blocks == 7)


def test_a_file_for_the_text_encoder_alone_asks_for_clip(small_model, apply):
    with pytest.raises(BindError) as error:
        apply(small_model[0], Loha({FC1: random_module(Layout((3072, 768)))}))
    assert str(error.value) == (f"None of the file's 1 modules can be applied. The first, '{FC1}': a text encoder's "
                                "module, but no CLIP is connected. Connect the clip input.")


def test_strict_refuses_what_would_be_left_off(small_model, apply):
    model, clip, _ = small_model
    loha = _small(stranger=random_module(SQUARE))
    with pytest.raises(BindError) as error:
        apply(model, loha, strict=True, clip=clip)
    assert str(error.value) == (
        "strict: 1 of the file's 4 modules would not be applied:\n- stranger: no weight of this model has that name\n"
        "Turn `strict` off to apply the others.")
    assert "unknown: 1" in apply(model, loha, clip=clip)[2]


def test_an_sdxl_file_is_refused_by_name(small_model, apply):
    model, clip, _ = small_model
    loha = Loha({
        f"{BLOCK}attn2_to_k": random_module(Layout((640, 2048))),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": random_module(Layout((5120, 1280))),
    })
    with pytest.raises(BindError) as error:
        apply(model, loha, clip=clip)
    assert str(error.value).startswith("This LoHa was made for SDXL (its cross-attention reads text 2048 wide), and "
                                       "the model is SD 1.5: none of its 2 modules is applied.")


def test_a_replaced_file_is_read_anew(nodes, loras):
    name, path = "replaced.safetensors", loras / "replaced.safetensors"
    files.save(Loha({QUERY: random_module(SQUARE)}), path)
    before = nodes.LoadLoha.fingerprint_inputs(name)
    assert nodes.LoadLoha.fingerprint_inputs(name) == before
    assert nodes.LoadLoha.execute(name).result[0].modules[QUERY].alpha == 2.0

    files.save(Loha({QUERY: random_module(SQUARE, alpha=3.0)}), path, overwrite=True)
    assert nodes.LoadLoha.fingerprint_inputs(name) != before
    assert nodes.LoadLoha.execute(name).result[0].modules[QUERY].alpha == 3.0


def test_a_peft_file_whose_configuration_came_later_is_read_anew(nodes, loras):
    folder = loras / "peft"
    name = "peft/adapter_model.safetensors"
    files.save(Loha({f"base_model.model.{QUERY}": replace(random_module(SQUARE), alpha=None)}), loras / name)
    before = nodes.LoadLoha.fingerprint_inputs(name)
    assert "beside it, where its alpha stands, is missing." in nodes.LoadLoha.execute(name).result[1]
    rank = SQUARE.ranks[0]
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA", "alpha": 8, "r": rank}))
    assert nodes.LoadLoha.fingerprint_inputs(name) != before
    assert "alphas: 8 × 1" in nodes.LoadLoha.execute(name).result[1]


def test_a_name_that_comes_over_a_link_is_checked_at_the_run(nodes, sample_loha):
    """ComfyUI asks with None, which it does not know yet."""
    assert nodes.LoadLoha.validate_inputs(None) is True
    assert nodes.LoadLoha.fingerprint_inputs(sample_loha)[0] in nodes.LoadLoha.fingerprint_inputs(None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(small_model, apply, sample, value):
    model, clip, _ = small_model
    with pytest.raises(SettingsError, match="strength_clip is (nan|inf); give a finite number"):
        apply(model, sample, strength_clip=value, clip=clip)


def test_clip_strength_0_without_clip_passes_strict(small_model, apply):
    model, _, _ = small_model
    report = apply(model, _small(), strength_clip=0.0, strict=True)[2]
    assert f"left off 1: strength 0 for the text encoder ({FC1})" in report


def test_a_layer_that_only_comfyuis_map_knows_is_unknown(small_model, apply):
    """The map names a shortcut for every block, also where the block has none."""
    model, clip, _ = small_model
    shortcut = "lora_unet_down_blocks_0_resnets_0_conv_shortcut"
    assert "unknown: 1" in apply(model, _small(**{shortcut: random_module(SQUARE)}), clip=clip)[2]


def test_other_formats_are_neither_offered_nor_read(nodes, loras):
    (loras / "old.ckpt").write_bytes(b"PK")
    assert "old.ckpt" not in nodes.LoadLoha.INPUT_TYPES()["required"]["lora_name"][1]["options"]
    assert nodes.LoadLoha.validate_inputs("old.ckpt") == (
        "'old.ckpt' is not a .safetensors file; other formats can run code when they are read. Convert it, or choose "
        "another.")


def test_a_file_that_is_not_there_is_said_before_anything_runs(nodes):
    says = nodes.LoadLoha.validate_inputs("no\nsuch.safetensors")
    assert says.startswith("'no\\x0asuch.safetensors' is not in the models/loras folder")
    with pytest.raises(FileError):
        nodes.LoadLoha.execute("../outside.safetensors")


def test_a_bad_block_list_is_said_before_anything_runs(nodes):
    assert nodes.ApplyLoha.validate_inputs("") is True
    assert nodes.ApplyLoha.validate_inputs("1,2").startswith("block_weights: 2 numbers given")
