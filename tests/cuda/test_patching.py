"""Strengths on ComfyUI's own ModelPatcher on a GPU: to the bit there and back, and no weight leaves it."""

from __future__ import annotations

from functools import wraps

import pytest
import torch
from shinymas_loha.loha.block_weights import BLOCKS
from shinymas_loha.tests.unit.kernels_helpers import assert_merged, delta64


@pytest.fixture(params=["", "grouped-triton", "grouped-torch", "reference"])
def route(request, monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", request.param)
    return request.param


@pytest.fixture
def apply(comfy):
    from shinymas_loha.patcher import patching

    def put(model, loha, strength, blocks=None):
        binding = patching.bind_to(loha, model, None, patching.Strengths(strength, 0.0, blocks))
        return patching.patch(binding, model, None)[0]

    return put


@pytest.fixture
def loads(comfy, monkeypatch):
    """Counts ComfyUI's loads of weights: a resident change must cause none."""
    counted = []
    original = comfy.model_patcher.ModelPatcher.load

    @wraps(original)  # the pack looks whose it is
    def load(self, *args, **kwargs):
        counted.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load)
    return counted


def _bits(model) -> dict[str, torch.Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in model.model.state_dict().items()}


def _load(comfy, model) -> dict[str, torch.Tensor]:
    comfy.model_management.load_models_gpu([model])
    return _bits(model)


def _same(left, right) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def _devices(model) -> set[str]:
    return {tensor.device.type for tensor in model.model.state_dict().values()}


@torch.inference_mode()
@pytest.mark.parametrize("strengths", [(0.6, -1.1), (1.0, 1e-3), (100.0, 0.01)])
def test_there_and_back_to_the_bit(comfy, small_model, loha, apply, loads, route, strengths):
    plain = _bits(small_model)
    first, second = (apply(small_model, loha, strength) for strength in strengths)
    at_first = _load(comfy, first)
    assert _devices(first) == {"cuda"}
    places = {name: tensor.data_ptr() for name, tensor in first.model.state_dict().items()}
    loads.clear()
    at_second, again = _load(comfy, second), _load(comfy, first)
    assert not loads
    assert _devices(first) == {"cuda"}
    assert places == {name: tensor.data_ptr() for name, tensor in first.model.state_dict().items()}
    assert _same(at_first, again) and not _same(at_first, at_second)
    comfy.model_management.unload_all_models()
    fresh = _load(comfy, second)
    if route == "grouped-torch":  # cuBLAS may add up otherwise for a stack of weights than for one
        for name, weight in fresh.items():
            assert_merged(weight, at_second[name].double())
    else:
        assert _same(fresh, at_second), "a fresh load merges to the same bits"
    comfy.model_management.unload_all_models()
    assert _same(_bits(small_model), plain), "and taking it off restores every one"


@torch.inference_mode()
def test_every_weight_is_the_float64_merge_correctly_rounded(comfy, small_model, loha, apply, route):
    from shinymas_loha.loha.kernels import Factors

    plain = _bits(small_model)
    patched = apply(small_model, loha, 0.8)
    _load(comfy, apply(small_model, loha, 0.3))
    merged = _load(comfy, patched)
    assert len(patched.patches) > 50
    for weight, ((strength, adapter, *_), *_) in patched.patches.items():
        factors = Factors(*(factor.cpu() for factor in adapter.factors))
        truth = plain[weight].double() + strength * adapter.scale * delta64(factors).view(plain[weight].shape)
        assert_merged(merged[weight], truth)
    untouched = plain.keys() - patched.patches.keys()
    assert all(torch.equal(merged[name], plain[name]) for name in untouched)


@torch.inference_mode()
def test_block_weights_and_originals_that_are_not_kept(comfy, small_model, loha, apply, monkeypatch):
    middle_off = dict.fromkeys(BLOCKS, 1.0) | {"MID": 0.0}
    plain = _bits(small_model)
    expected = {}
    for kept in ("1", "0"):
        monkeypatch.setenv("SHINYMAS_LOHA_KEEP_ORIGINALS", kept)
        _load(comfy, apply(small_model, loha, 0.6))
        merged = _load(comfy, apply(small_model, loha, 0.6, middle_off))
        middle = [name for name in merged if "middle_block" in name]
        assert middle and all(torch.equal(merged[name], plain[name]) for name in middle)
        assert _same(expected or merged, merged)
        expected = merged
        comfy.model_management.unload_all_models()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_of_other_precisions(comfy, base, loha, apply, loads, dtype):
    from kit.workspace import CHECKPOINT

    path = base / "models" / "checkpoints" / CHECKPOINT
    model = comfy.sd.load_checkpoint_guess_config(
        str(path), output_vae=False, output_clip=False, model_options={"dtype": dtype})[0]
    first, second = apply(model, loha, 0.6), apply(model, loha, 0.9)
    at_first = _load(comfy, first)
    assert at_first["diffusion_model.middle_block.1.proj_in.weight"].dtype is dtype
    loads.clear()
    at_second = _load(comfy, second)
    assert _same(_load(comfy, first), at_first) and not _same(at_first, at_second)
    assert not loads


@torch.inference_mode()
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_partly_loaded(small_model, loha, apply, share):
    """Some weights in place, the others merged as they are streamed: a changed strength reaches both."""
    device = small_model.load_device
    memory = 1 + int(share * small_model.model_size())
    patchers = [apply(small_model, loha, 0.6), apply(small_model, loha, -0.9)]
    expected = []
    for patcher in patchers:
        patcher.partially_load(device, 1e32)
        expected.append(_bits(patcher))
        patcher.detach()
    try:
        for turn in (0, 1, 0):
            patchers[turn].partially_load(device, memory)
            memory = small_model.model_size() // 6 if share else 1  # more of it: the rest of a budget is loaded too
            assert small_model.model.model_lowvram
            for name, module in small_model.model.named_modules():
                weight = getattr(module, "weight", None)
                if not isinstance(weight, torch.Tensor) or f"{name}.weight" not in patchers[turn].patches:
                    continue
                functions = getattr(module, "weight_function", ())
                if functions and f"{name}.weight" in small_model.backup:
                    continue  # ComfyUI 0.3.75 merges twice what it moves out of a full budget
                for function in functions:
                    weight = function(weight.detach().to(device, copy=True))
                assert torch.equal(weight.cpu(), expected[turn][f"{name}.weight"]), (turn, name)
    finally:
        patchers[0].detach()
