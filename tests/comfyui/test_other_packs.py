"""What newer cores and other packs put beside a LoHa: bypass loaders, torch.compile, other merges and weights."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import pytest
import torch
from safetensors.torch import load_file
from shinymas_loha.loha import BindError, files

STRENGTHS = (0.7, -0.3, 0.7)


@pytest.fixture
def pack(comfy):
    from shinymas_loha.patcher import adapter, patching

    return SimpleNamespace(adapter=adapter, patching=patching)


@pytest.fixture
def loha(base, sample_loha):
    return files.read(base / "models" / "loras" / sample_loha)


@pytest.fixture
def apply(pack):
    def put(model, loha, strength):
        binding = pack.patching.bind_to(loha, model, None, pack.patching.Strengths(strength, 0.0))
        patched, _, binding = pack.patching.patch(binding, model, None)
        return patched

    return put


@pytest.fixture
def sample(comfy, small_model):
    """The latent that a model draws; the same noise and prompt each time."""
    import comfy.sample

    clip = small_model[1]
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("girl, smile", "blurry"))
    latent = torch.zeros(1, 4, 8, 8)

    def draw(model):
        noise = comfy.sample.prepare_noise(latent, 3)
        return comfy.sample.sample(
            model, noise, 2, 3.0, "euler", "normal", positive, negative, latent, seed=3).clone()

    yield draw
    comfy.model_management.unload_all_models()


def _near(found, expected, plain):
    """The same change of the picture, but for rounding."""
    change = (expected - plain).abs().max()
    assert change > 1e-2
    assert (found - expected).abs().max() <= 5e-3 * change


@pytest.mark.parametrize("first", ["compile", "loha"])
def test_beside_torch_compile(small_model, loha, apply, sample, first):
    """As TorchCompileModel does it; by dynamo alone, since inductor takes minutes on a CPU."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def compiled(model):
        model = model.clone()
        set_torch_compile_wrapper(model=model, backend="eager")
        return model

    def at(strength):
        if first == "compile":
            return apply(compiled(small_model[0]), loha, strength)
        return compiled(apply(small_model[0], loha, strength))

    plain = sample(small_model[0])
    found = [sample(at(strength)) for strength in STRENGTHS]
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    for strength, one in zip(STRENGTHS, found, strict=True):
        _near(one, sample(apply(small_model[0], loha, strength)), plain)
    torch._dynamo.reset()


@pytest.mark.parametrize("first", ["bypass", "loha"])
def test_beside_cores_bypass_loader(comfy, small_model, base, sample_loha, loha, apply, sample, first):
    bypass = getattr(comfy.sd, "load_bypass_lora_for_models", None)
    if bypass is None:
        pytest.skip("this ComfyUI has no bypass loader: it came with 0.11")
    tensors = load_file(base / "models" / "loras" / sample_loha)
    tensors = {key: tensor for key, tensor in tensors.items() if key.startswith("lora_unet_mid")}

    def bypassed(model):
        return bypass(model, None, tensors, 0.5, 0.0)[0]

    def at(strength):
        if first == "bypass":
            return apply(bypassed(small_model[0]), loha, strength)
        return bypassed(apply(small_model[0], loha, strength))

    plain = sample(small_model[0])
    found = [sample(at(strength)) for strength in STRENGTHS]
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    patches = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(small_model[0].model, {}))
    merged = apply(small_model[0], loha, STRENGTHS[0])
    assert merged.add_patches(patches, 0.5)
    _near(found[0], sample(merged), plain)
    assert torch.equal(sample(small_model[0]), plain)


def test_cores_question_for_a_shape_is_answered(comfy, pack, small_model, loha, apply):
    """Newer cores ask each patch whether it changes its weight's shape before they attach it."""
    ask = getattr(comfy.lora, "calculate_shape", None)
    if ask is None:
        pytest.skip("this ComfyUI asks for no shape: newer ones do")
    patched = apply(small_model[0], loha, 1.0)
    weights = patched.model_state_dict()
    for key, patches in patched.patches.items():
        assert ask(patches, weights[key], key) == weights[key].shape


def _older(patches, weight, key):
    """A merge as packs had it before cores passed a dtype; it knows adapters."""
    for strength, adapter, strength_model, offset, function, *_ in patches:
        weight = adapter.calculate_weight(weight, key, strength, strength_model, offset, function)
    return weight


def _oldest(patches, weight, key):
    """A merge from before there were adapters: a patch is a tuple of its kind and its tensors."""
    for strength, patch, *_ in patches:
        kind, tensors = (patch[0], patch[1]) if len(patch) == 2 else ("diff", patch)
        if kind == "diff":
            weight += strength * tensors[0]
    return weight


def _deaf(patches, weight, key, intermediate_dtype=torch.float32, original_weights=None):
    """A merge that passes over what it does not know."""
    return weight


def test_a_merge_of_an_older_signature_works(comfy, monkeypatch, small_model, loha, apply, sample):
    expected = [sample(apply(small_model[0], loha, strength)) for strength in STRENGTHS]
    monkeypatch.setattr(comfy.lora, "calculate_weight", _older)
    comfy.model_management.unload_all_models()
    assert all(torch.equal(sample(apply(small_model[0], loha, strength)), one)
               for strength, one in zip(STRENGTHS, expected, strict=True))


@pytest.mark.parametrize(("merge", "what"), [
    (_oldest, "fails with TypeError: object of type 'LohaAdapter' has no len"), (_deaf, "does not add them")])
def test_a_merge_that_does_not_know_adapters_is_told(comfy, monkeypatch, small_model, loha, apply, merge, what):
    monkeypatch.setattr(comfy.lora, "calculate_weight", merge)
    with pytest.raises(BindError) as refused:
        apply(small_model[0], loha, 1.0)
    said = str(refused.value)
    assert said.startswith(f"'{__name__}' has replaced ComfyUI's merge of weights") and what in said
    assert said.endswith("Update that pack, or remove it; no LoHa can be applied beside it.")


@pytest.mark.parametrize("shape", [None, (4, 51200)], ids=["as large", "packed smaller"])
def test_packed_weights_are_left_alone_and_said(comfy, small_model, loha, pack, shape):
    """As 8-bit and 4-bit formats of other packs keep them: integers, of the weight's shape or of none like it."""
    patcher = small_model[0].clone()
    weight = next(key for key in patcher.model_state_dict() if key.endswith("attn2.to_k.weight"))
    before = comfy.utils.get_attr(patcher.model, weight)
    packed = torch.nn.Parameter(torch.ones(shape or before.shape, dtype=torch.int8), requires_grad=False)
    comfy.utils.set_attr(patcher.model, weight, packed)
    try:
        binding = pack.patching.bind_to(loha, patcher, None, pack.patching.Strengths(1.0, 0.0))
        (skip,) = [skip for skip in binding.skipped.values() if skip.where == weight]
        size = "×".join(map(str, packed.shape))
        assert str(skip) == f"a LoHa cannot be added to quantised numbers, packed as int8 {size}, of {weight}"
        patched, _, _ = pack.patching.patch(binding, patcher, None)
        assert weight not in patched.patches
    finally:
        comfy.utils.set_attr(patcher.model, weight, before)


def test_a_model_that_is_packed_throughout_says_what_helps(pack, small_model, loha, monkeypatch):
    comfyui, model_weights = (importlib.import_module(f"shinymas_loha.patcher.{name}")
                              for name in ("comfyui", "model_weights"))
    monkeypatch.setattr(comfyui, "is_packed", lambda tensor: True)
    monkeypatch.setattr(model_weights, "_known", WeakKeyDictionary())  # neither known before, nor remembered after
    binding = pack.patching.bind_to(loha, small_model[0], small_model[1], pack.patching.Strengths(1.0, 1.0))
    with pytest.raises(BindError, match="(?s)quantised numbers, packed as .* Load a checkpoint that is not quantised"):
        binding.demand(strict=False)
