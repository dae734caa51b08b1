"""Files of other years and tools: the ΔW that they were trained with, and what the report says of it."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lohas import Layout, random_module
from reference import delta
from shinymas_loha.loha import product, report
from shinymas_loha.loha.binding import Target, bind
from shinymas_loha.loha.errors import BindError, FileError
from shinymas_loha.loha.files import read, save
from shinymas_loha.loha.module import Loha
from shinymas_loha.tests.unit.files_helpers import file_bytes, flat

TESTS = Path(__file__).resolve().parent.parent
OLD = TESTS.parent / ".tools" / "lycoris-2023"
EARLY, LATE = "1690000000.0", "1700000000.0"
LYCORIS = {"ss_network_module": "lycoris.kohya"}


def _read(tmp_path, tensors, metadata=None):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(tensors, metadata))
    return read(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def of_2023(tmp_path_factory):
    """A Tucker module as LyCORIS of 2023 saves it after training, and the ΔW that it drew with."""
    if not OLD.is_dir():
        pytest.skip("`make test` installs the LyCORIS of 2023")
    path = tmp_path_factory.mktemp("2023") / "module.pt"
    subprocess.run([sys.executable, TESTS / "support" / "lycoris_2023_module.py", path], check=True,
                   env=os.environ | {"PYTHONPATH": str(OLD)})
    saved = torch.load(path)
    return {f"lora_unet_conv.{name}": tensor for name, tensor in saved["tensors"].items()}, saved["delta"]


def test_a_second_core_that_was_never_trained_is_not_used(tmp_path, of_2023):
    tensors, expected = of_2023
    loha = _read(tmp_path, tensors, LYCORIS | {"ss_training_started_at": EARLY})
    torch.testing.assert_close(delta(loha.modules["lora_unet_conv"]), expected, rtol=1e-5, atol=1e-7)
    (note,) = loha.notes
    assert note.startswith("Tucker: hada_t2 of the 1 module with a Tucker core looks as it was before training")
    save(loha, tmp_path / "b.safetensors", torch.float32)
    torch.testing.assert_close(delta(read(tmp_path / "b.safetensors").modules["lora_unet_conv"]), expected,
                               rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("metadata", "note"), [
    (None, "the file does not say when and by what it was trained"),
    ({"ss_training_started_at": EARLY}, "the file does not say when and by what it was trained"),
    (LYCORIS | {"ss_training_started_at": "?"}, "the file does not say when and by what it was trained"),
    (LYCORIS | {"ss_training_started_at": LATE}, None),
    ({"ss_network_module": "networks.loha"}, None),
])
def test_a_second_core_is_used_where_the_file_does_not_say_otherwise(tmp_path, of_2023, metadata, note):
    tensors, _ = of_2023
    loha = _read(tmp_path, tensors, metadata)
    assert torch.equal(loha.modules["lora_unet_conv"].t2, tensors["lora_unet_conv.hada_t2"])
    assert [note in said for said in loha.notes] == ([True] if note else [])


def test_a_second_core_that_was_trained_is_used_whatever_the_year(tmp_path, of_2023):
    tensors, _ = of_2023
    tensors = tensors | {"lora_unet_conv.hada_t2": tensors["lora_unet_conv.hada_t2"] * 1.5}
    loha = _read(tmp_path, tensors, LYCORIS | {"ss_training_started_at": EARLY})
    assert torch.equal(loha.modules["lora_unet_conv"].t2, tensors["lora_unet_conv.hada_t2"]) and not loha.notes


def _rank_stabilised(tmp_path, alphas, typed="1.0", args='{"algo": "loha", "rs_lora": "True", "conv_alpha": "4"}'):
    tensors = {}
    for index, alpha in enumerate(alphas):
        tensors |= flat(f"m{index}", rank=4, alpha=alpha)
    return _read(tmp_path, tensors, {"ss_network_args": args, "ss_network_alpha": typed})


def test_rank_stabilised_alphas_as_they_were_typed_are_scaled_by_the_root(tmp_path):
    loha = _rank_stabilised(tmp_path, (1.0, 4.0))
    assert [module.scale for module in loha.modules.values()] == [0.5, 2.0]
    assert "scaled by alpha / √rank" in loha.notes[0] and "2 modules" in loha.notes[0]
    save(loha, tmp_path / "b.safetensors")
    again = read(tmp_path / "b.safetensors")
    assert [module.scale for module in again.modules.values()] == [0.5, 2.0] and not again.notes


def test_rank_stabilised_alphas_of_later_files_are_left_alone(tmp_path):
    loha = _rank_stabilised(tmp_path, (2.0, 8.0))
    assert [module.scale for module in loha.modules.values()] == [0.5, 2.0] and not loha.notes


@pytest.mark.parametrize(("alphas", "typed"), [((4.0,), "2.0"), ((3.0,), "1.0"), ((1.0, 3.0), "1.0"), ((1.0,), "None")])
def test_rank_stabilised_alphas_that_tell_nothing_are_said_to(tmp_path, alphas, typed):
    loha = _rank_stabilised(tmp_path, alphas, typed)
    assert [module.alpha for module in loha.modules.values()] == list(alphas)
    assert "it cannot be told" in loha.notes[0]


@pytest.mark.parametrize("args", ["", "{", "[]", '{"rs_lora": "False"}', '{"rs_lora": null}', "9" * 5000])
def test_files_that_do_not_ask_for_rank_stabilising_are_left_alone(tmp_path, args):
    loha = _rank_stabilised(tmp_path, (1.0,), args=args)
    assert loha.modules["m0"].scale == 0.25 and not loha.notes


@pytest.mark.parametrize(("alpha", "scale"), [(3.0, 3 / 2 * -0.25), (None, -0.25)])
def test_a_scalar_beside_the_factors_is_multiplied_in(tmp_path, alpha, scale):
    loha = _read(tmp_path, flat("m", rank=2, alpha=alpha) | {"m.scalar": torch.tensor(-0.25)})
    assert loha.modules["m"].scale == scale
    assert "multiplied by the number beside the factors" in loha.notes[-1]


@pytest.mark.parametrize(("scalar", "reason"), [
    (torch.ones(2), "scalar has shape"), (torch.tensor(math.nan), "scalar is nan"), (torch.tensor(True), "is bool")])
def test_a_scalar_is_one_finite_number(tmp_path, scalar, reason):
    with pytest.raises(FileError, match=reason):
        _read(tmp_path, flat("m") | {"m.scalar": scalar})


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
@pytest.mark.parametrize("first_days", [True, False])
def test_dora_by_mean_is_merged_as_it_was_trained(tmp_path, kernel, first_days):
    """weight / mean(weight) · m, as in LyCORIS's first DoRA, over dim 0 alone in its first hours."""
    shape = (11, 16, *kernel)
    module = random_module(Layout(shape), size=0.1)
    weight = torch.randn(shape, dtype=torch.float64)
    dims = (0,) if first_days else tuple(dim for dim in range(len(shape)) if dim != 1)
    magnitude = weight.mean(dim=dims, keepdim=True)
    module = replace(module, dora_scale=magnitude.float())
    changed = weight + delta(module, shape, dtype=torch.float64)
    expected = changed / changed.mean(dim=dims, keepdim=True) * magnitude.float().double()
    merged = product.merge_dora_(weight.clone(), product.flat_factors(module, dtype=torch.float64), module.scale,
                                 module.dora_scale, 0.7)
    torch.testing.assert_close(merged, weight + 0.7 * (expected - weight), rtol=1e-6, atol=1e-8)
    save(Loha({"m": module}), tmp_path / "a.safetensors", torch.float32)
    assert "1 module the magnitudes are means" in read(tmp_path / "a.safetensors").notes[-1]


def test_dora_by_mean_tells_of_numbers_that_it_holds():
    """A column whose mean is nothing: its numbers end at float16's edge, which no picture survives unsaid."""
    weight = torch.ones(4, 3, dtype=torch.float64)
    weight[:, 1] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    module, told = random_module(Layout((4, 3)), size=0.1), []
    factors = product.flat_factors(module, dtype=torch.float64)
    product.merge_dora_(weight, factors, 0.0, torch.tensor([[1.0, -1.0, 1.0]]), 1.0, told.append)
    assert told == [4] and weight[:, 1].abs().eq(65504).all() and weight[:, ::2].eq(1).all()
    product.merge_dora_(weight[:, ::2].clone(), factors._replace(w1_b=factors.w1_b[:, ::2], w2_b=factors.w2_b[:, ::2]),
                        0.0, torch.tensor([[1.0, -1.0]]), 1.0, told.append)
    assert told == [4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_dora_by_norm_has_no_note(tmp_path, dtype):
    module = random_module(Layout((23, 14), dora=1))
    save(Loha({"m": replace(module, dora_scale=module.dora_scale.abs())}), tmp_path / "a.safetensors", dtype)
    assert not read(tmp_path / "a.safetensors").notes


def test_embeddings_beside_the_modules_are_named_and_no_modules(tmp_path):
    loha = _read(tmp_path, flat("m") | {"bundle_emb.shiny.clip_l": torch.ones(2, 768),
                                        "bundle_emb.bad.string_to_param.*": torch.ones(1, 768)})
    assert len(loha) == 1
    (note,) = loha.notes
    assert "shiny, bad" in note and "models/embeddings" in note


@pytest.mark.parametrize("suffix", ["Hada_W1_A", "HADA_W1_A", "hada_w1a", "hada-w1-a", "hada_w1__a"])
def test_a_tensor_that_is_nearly_right_is_said_to_be(tmp_path, suffix):
    tensors = flat("m")
    tensors[f"m.{suffix}"] = tensors.pop("m.hada_w1_a")
    with pytest.raises(FileError, match=f"'{suffix}' is nearly 'hada_w1_a', and has to be to the letter"):
        _read(tmp_path, tensors)


def test_a_module_whose_capital_letters_are_wrong_is_said_to_be_nearly_right(tmp_path):
    weight = "diffusion_model.middle_block.1.proj_in.weight"
    loha = _read(tmp_path, flat("lora_UNet_mid_block_attentions_0_proj_in", out=6, in_=5))
    skip = bind(loha, [Target(weight, (6, 5), torch.float32)]).skipped["lora_UNet_mid_block_attentions_0_proj_in"]
    assert skip.reason == "no weight of this model has that name; in small letters one has"


def test_a_file_all_in_capitals_is_said_to_be_nearly_right(tmp_path):
    tensors = {f"m.{name.rpartition('.')[2].upper()}": tensor for name, tensor in flat("m").items()}
    with pytest.raises(FileError, match="is nearly 'hada_w1_a', and has to be to the letter"):
        _read(tmp_path, tensors)
    loha = _read(tmp_path, tensors | flat("other"))
    assert any("is nearly 'hada_w1_a'" in note for note in loha.notes)


def test_strict_refuses_a_scale_that_is_a_guess(tmp_path):
    loha = _read(tmp_path, flat("base_model.model.down", out=4, in_=4, alpha=None))
    (doubt,) = loha.doubts
    assert f"note: {doubt}" in report.file_lines(loha)
    binding = bind(loha, [])
    with pytest.raises(BindError, match="strict: The scale is a guess .* Turn `strict` off"):
        replace(binding, unknown=(), skipped={}).demand(strict=True)
