"""A changed strength of the text encoder happens in place too; what is known of a model and a file is never stale."""

from __future__ import annotations

import gc
import weakref
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from lohas import Layout, random_module
from shinymas_loha.loha import Loha, files

pytestmark = pytest.mark.usefixtures("unloaded")
QUERY = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def pack(comfy):
    from shinymas_loha.loha import matching
    from shinymas_loha.patcher import comfyui, model_weights, patching

    return SimpleNamespace(patching=patching, weights=model_weights, matching=matching, fence=comfyui)


@pytest.fixture
def loha(base, sample_loha):
    return files.read(base / "models" / "loras" / sample_loha)


@pytest.fixture
def apply(pack, small_model, loha):
    """The CLIP with the LoHa at a strength, over the sample's or over another one."""
    def put(strength, clip=small_model[1], file=loha):
        binding = pack.patching.bind_to(file, small_model[0], clip, pack.patching.Strengths(0.0, strength))
        return pack.patching.patch(binding, small_model[0], clip)[1]

    return put


@pytest.fixture(params=["1", "0"], ids=["originals kept", "originals sent anew"])
def keeping(request, monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_KEEP_ORIGINALS", request.param)


@pytest.fixture
def loads(monkeypatch, comfy):
    """Counts ComfyUI's loads of weights."""
    counted = []
    original = comfy.model_patcher.ModelPatcher.load

    @wraps(original)
    def load(self, *args, **kwargs):
        counted.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load)
    return counted


def _encode(clip) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What CLIPTextEncode makes of a prompt, and the weights that it was made with."""
    with torch.inference_mode():
        text = clip.encode_from_tokens_scheduled(clip.tokenize("a girl"))[0][0]
    return text, {name: tensor.clone() for name, tensor in clip.patcher.model.state_dict().items()}


def _same(left, right) -> bool:
    return torch.equal(left[0], right[0]) and all(torch.equal(left[1][name], right[1][name]) for name in left[1])


def _freshly(comfy, clip):
    """The same by ComfyUI's own load, from the unpatched model."""
    comfy.model_management.unload_all_models()
    found = _encode(clip)
    comfy.model_management.unload_all_models()
    return found


def test_there_and_back_without_a_load(comfy, small_model, apply, loads, keeping):
    plain = _freshly(comfy, small_model[1])
    first, second = apply(0.6), apply(-1.1)
    at_first, at_second = _freshly(comfy, first), _freshly(comfy, second)
    assert not _same(at_first, at_second) and not _same(at_first, plain)
    _encode(first)
    loads.clear()
    for clip, expected in ((second, at_second), (first, at_first), (second, at_second), (first, at_first)):
        assert _same(_encode(clip), expected)
    assert not loads
    comfy.model_management.unload_all_models()
    assert _same(_encode(small_model[1]), plain)


def test_the_old_strengths_clip_is_gone_before_the_new_one_comes(comfy, apply, loads, keeping):
    """ComfyUI forgets the outputs of a changed node first; newer ones may keep them, see above."""
    expected = _freshly(comfy, apply(0.9))
    _encode(apply(0.6))
    loads.clear()
    assert _same(_encode(apply(0.9)), expected)
    assert not loads


@pytest.mark.parametrize("where", ["below", "above"])
def test_beside_another_lora(comfy, small_model, apply, loads, keeping, where):
    patch = {QUERY: ("diff", (torch.full_like(small_model[1].patcher.model.state_dict()[QUERY], 0.125),))}

    def both(strength):
        if where == "below":
            return apply(strength, below)
        clip = apply(strength)
        clip.add_patches(patch, 0.5)
        return clip

    below = small_model[1].clone()
    below.add_patches(patch, 0.5)
    first, second = both(0.3), both(0.8)
    at_first, at_second = _freshly(comfy, first), _freshly(comfy, second)
    assert not torch.equal(at_second[1][QUERY], _freshly(comfy, apply(0.8))[1][QUERY])
    _encode(first)
    loads.clear()
    assert _same(_encode(second), at_second) and _same(_encode(first), at_first)
    assert bool(loads) == (where == "above"), "what stands above has an identity of its own: ComfyUI's reload"


@pytest.mark.parametrize("away", ["unloaded", "partly", "under other patches"])
def test_away_means_comfyuis_own_load(comfy, small_model, apply, loads, away):
    first, second = apply(0.6), apply(0.9)
    expected = _freshly(comfy, second)
    other = small_model[1].clone()
    other.add_patches({QUERY: ("diff", (torch.ones_like(expected[1][QUERY]),))}, 0.5)
    _encode(first)
    if away == "unloaded":
        comfy.model_management.unload_all_models()
    elif away == "partly":
        first.patcher.partially_unload(torch.device("cpu"), 10**12)
    else:  # as where a cached text left the encoder to another loader
        _encode(other)
    loads.clear()
    assert _same(_encode(second), expected)
    assert loads


def test_a_cancelled_change_leaves_the_encoder_plain(comfy, small_model, apply, monkeypatch, keeping):
    plain = _freshly(comfy, small_model[1])
    first, second = apply(0.6), apply(0.9)
    _encode(first)
    from shinymas_loha.loha.kernels.merging import cpu

    def cancelled(*args, **kwargs):
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(cpu, "merge", cancelled)
    monkeypatch.setattr(cpu, "merge_", cancelled, raising=False)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        _encode(second)
    monkeypatch.undo()
    now = small_model[1].patcher.model.state_dict()
    assert all(torch.equal(now[name], plain[1][name]) for name in plain[1])
    assert _same(_encode(second), _freshly(comfy, second))


def test_a_file_that_knows_its_places_goes_without_a_collection(pack, small_model):
    """With it go its factors, which may lie on a GPU: ComfyUI counts memory without waiting for a collection."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    loha = Loha({name: random_module(Layout((320, 320)))})
    gc.collect()
    gc.disable()
    try:
        pack.patching.bind_to(loha, *small_model[:2], pack.patching.Strengths(1.0, 1.0))
        assert loha.memo["fits"]
        gone = weakref.ref(loha)
        del loha
        assert gone() is None
    finally:
        gc.enable()


def test_another_strength_searches_no_places(pack, small_model, loha, apply, monkeypatch):
    apply(0.6)
    monkeypatch.setattr(pack.patching, "find_fits", None)
    kept = apply(0.9)
    monkeypatch.undo()
    fresh = apply(0.9, file=files.read(loha.source.path))
    for weight, patches in fresh.patcher.patches.items():
        assert [patch[0] for patch in kept.patcher.patches[weight]] == [patch[0] for patch in patches] == [0.9]


@pytest.mark.parametrize(("unet", "text"), [(0.0, 1.0), (1.0, 0.0), (1e30, 1.0), (1.0, -127.5), (70000.0, 129.0)])
def test_what_is_remembered_says_the_same_as_what_is_found_anew(pack, small_model, loha, unet, text):
    from shinymas_loha.loha import report

    model, clip = small_model[:2]
    strengths = pack.patching.Strengths(unet, text)
    pack.patching.bind_to(loha, model, clip, pack.patching.Strengths(0.7, 0.7))
    kept = pack.patching.bind_to(loha, model, clip, strengths)
    fresh = pack.patching.bind_to(files.read(loha.source.path), model, clip, strengths)
    assert report.binding_lines(kept) == report.binding_lines(fresh)
    assert {name: bound.strength for name, bound in kept.modules.items()} == {
        name: bound.strength for name, bound in fresh.modules.items()}
    without = pack.patching.bind_to(loha, model, None, strengths)
    assert len(without.skipped) >= 1 and not any(not bound.target.is_unet for bound in without.modules.values())


@pytest.mark.parametrize("change", ["dtype", "another module", "taken out"])
def test_a_model_that_was_rebuilt_is_looked_at_again(comfy, base, checkpoint, pack, change):
    model = comfy.sd.load_checkpoint_guess_config(
        str(base / "models" / "checkpoints" / checkpoint), output_vae=False, output_clip=False)[0]
    before = pack.weights.targets(model, "diffusion_model.")
    assert pack.weights.targets(model.clone(), "diffusion_model.") is before
    out = model.model.diffusion_model.out
    if change == "dtype":
        out[2].weight.data = out[2].weight.data.to(torch.bfloat16)
    elif change == "another module":
        out[2] = torch.nn.Linear(3, 5)
    else:
        del out[2]
    after = pack.weights.targets(model, "diffusion_model.")
    assert after != before
    sizes = {name: (tuple(tensor.shape), tensor.dtype)
             for name, tensor in model.model_state_dict("diffusion_model.").items()}
    assert {target.weight: (target.shape, target.dtype) for target in after} == sizes


def test_patches_are_laid_out_as_comfyui_lays_them(pack, small_model, monkeypatch):
    weight = next(iter(small_model[1].patcher.model.state_dict()))
    patches = {weight: object(), (QUERY, (0, 1, 2)): object(), (QUERY, (0, 0, 1), abs): object()}
    ours, cores = small_model[1].patcher.clone(), small_model[1].patcher.clone()
    for patcher in (ours, cores):
        patcher.patches[QUERY] = ["another"]
    before = ours.patches_uuid
    pack.weights.add_patches(ours, patches, 0.3)
    cores.add_patches(patches, 0.3)
    assert ours.patches == cores.patches and ours.patches_uuid != before

    called = []
    monkeypatch.setattr(type(ours), "add_patches", lambda self, *args: called.append(args))
    pack.weights.add_patches(ours, patches, 0.3)
    assert called == [(patches, 0.3)], "another pack's add_patches is asked"
