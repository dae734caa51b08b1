"""Hooks and a LoHa: whatever stands before, after or around it, the weights are what the graph asks for."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch
from shinymas_loha.loha import Loha, LohaModule, files

TEXT = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"
TEXT_MODULE = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture
def pack(comfy):
    from shinymas_loha.patcher import hook, patching, strength_change

    return SimpleNamespace(hook=hook, patching=patching, strength_change=strength_change)


@pytest.fixture
def hook_nodes(comfy):
    """ComfyUI's own hook nodes."""
    from comfy_extras import nodes_hooks

    return nodes_hooks


@pytest.fixture
def loha(base, sample_loha):
    return files.read(base / "models" / "loras" / sample_loha)


@pytest.fixture
def ones():
    """A LoHa whose ΔW is 1 everywhere on one weight of the text encoder."""
    return Loha({TEXT_MODULE: LohaModule(
        TEXT_MODULE, torch.ones(768, 1), torch.ones(1, 768), torch.ones(768, 1), torch.ones(1, 768), alpha=1.0)})


def _hook(comfy, weights, strength=1.0):
    """A hook of ComfyUI's own that adds ready patches to the text encoder."""
    hook = comfy.hooks.WeightHook(strength, strength)
    hook.need_weight_init, hook.weights, hook.weights_clip = False, {}, weights
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


@pytest.fixture
def apply_clip(pack):
    def put(model, clip, loha, strength):
        binding = pack.patching.bind_to(loha, model, clip, pack.patching.Strengths(0.0, strength))
        return pack.patching.patch(binding, model, clip)[1]

    return put


def _change(comfy, clip, plain):
    """What the loaded text encoder's weight has gained over the plain one."""
    comfy.model_management.load_models_gpu([clip.patcher])
    change = comfy.utils.get_attr(clip.patcher.model, TEXT).float() - plain.float()
    low, high = change.min().item(), change.max().item()
    assert high - low < 0.02  # one number everywhere, but for the weight's own rounding
    return round(high, 1)


@pytest.fixture
def plain(comfy, small_model):
    comfy.model_management.unload_all_models()
    yield comfy.utils.get_attr(small_model[1].patcher.model, TEXT).clone()
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("first", ["hooks", "loha"])
def test_a_forced_hook_and_a_changed_strength(comfy, small_model, hook_nodes, ones, apply_clip, plain, first):
    """Set CLIP Hooks before Apply LoHa kept the old strength, and lost the hook, until 0.1.0."""
    model, clip, _ = small_model
    hooks = _hook(comfy, {TEXT: ("diff", (torch.full((768, 768), 10.0),))})
    (hooked,) = hook_nodes.SetClipHooks().apply_hooks(clip, False, False, hooks)

    def at(strength):
        if first == "hooks":
            return apply_clip(model, hooked, ones, strength)
        return hook_nodes.SetClipHooks().apply_hooks(apply_clip(model, clip, ones, strength), False, False, hooks)[0]

    got = [_change(comfy, at(strength), plain) for strength in (1.0, 0.5, 0.5, 1.0, 0.5)]
    assert got == [11.0, 10.5, 10.5, 11.0, 10.5]
    assert _change(comfy, clip, plain) == 0.0


def test_hooks_forced_on_a_clone_of_a_patched_clip(comfy, small_model, ones, apply_clip, plain):
    """A clone that took over hooks without a new identity: rewriting in place would write under them."""
    model, clip, _ = small_model
    hooks = _hook(comfy, {TEXT: ("diff", (torch.full((768, 768), 10.0),))})
    patched = []
    for strength in (1.0, 0.5):
        one = apply_clip(model, clip, ones, strength)
        identity = one.patcher.patches_uuid
        one.patcher.forced_hooks = hooks.clone()
        one.patcher.register_all_hook_patches(
            hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip))
        one.patcher.patches_uuid = identity
        patched.append(one)
    assert [_change(comfy, patched[turn], plain) for turn in (0, 1, 1, 0, 1)] == [11.0, 10.5, 10.5, 11.0, 10.5]


@pytest.fixture
def tokens():
    return "a girl with a hat"


def _encoded(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0].clone()


def test_the_hook_is_apply_loha_where_it_acts_everywhere(
    comfy, small_model, pack, loha, apply_clip, hook_nodes, tokens
):
    model, clip, _ = small_model
    said = []
    hook = pack.hook.LohaHook(loha, pack.patching.Strengths(0.8, 0.7), lambda *words: said.append(words))
    hooks = pack.hook.loha_hooks(hook, None)
    (hooked,) = hook_nodes.SetClipHooks().apply_hooks(clip, False, True, hooks)
    ours = _encoded(hooked, tokens)
    expected = _encoded(apply_clip(model, clip, loha, 0.7), tokens)
    bare = _encoded(clip, tokens)
    scale = (expected - bare).abs().max()
    assert scale > 1e-3 and (ours - expected).abs().max() <= 2e-2 * scale
    assert said[0][0].splitlines()[0] == "LoHa Hook: 72 modules on the text encoder"


def _sampled(comfy, model, positive, negative, steps=2, seed=3):
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(model, noise, steps, 5.0, "euler", "normal", positive, negative, latent, seed=seed)


@pytest.fixture
def sampled(comfy):
    import comfy.sample

    def sample(*args, **more):
        return _sampled(comfy, *args, **more)

    return sample


@torch.inference_mode()
def test_the_hook_samples_as_apply_loha_and_as_cores_own(comfy, small_model, base, sample_loha, pack, loha, sampled,
                                                         tokens):
    model, clip, _ = small_model
    text = clip.encode_from_tokens_scheduled(clip.tokenize(tokens))
    strengths = pack.patching.Strengths(0.8, 0.0)
    ours = pack.hook.loha_hooks(pack.hook.LohaHook(loha, strengths), None)
    core = comfy.hooks.create_hook_lora(
        comfy.utils.load_torch_file(str(base / "models" / "loras" / sample_loha)), 0.8, 0.0)

    def under(hooks):
        return comfy.hooks.set_hooks_for_conditioning(text, hooks)

    by_hook = sampled(model.clone(), under(ours), under(ours))
    by_core = sampled(model.clone(), under(core), under(core))
    binding = pack.patching.bind_to(loha, model, None, strengths)
    applied = sampled(pack.patching.patch(binding, model, None)[0], text, text)
    bare = sampled(model.clone(), text, text)
    scale = (applied - bare).abs().max()
    assert scale > 1e-3
    assert (by_hook - applied).abs().max() <= 1e-2 * scale
    assert (by_hook - by_core).abs().max() <= 1e-2 * scale
    assert torch.equal(sampled(model.clone(), text, text), bare)


@torch.inference_mode()
def test_a_hook_under_a_changing_strength_of_apply_loha(comfy, small_model, pack, loha, sampled, tokens):
    """Conditioning hooks around a patched model: each strength, the second time as the first, to the bit."""
    model, clip, _ = small_model
    text = clip.encode_from_tokens_scheduled(clip.tokenize(tokens))
    hooks = pack.hook.loha_hooks(pack.hook.LohaHook(loha, pack.patching.Strengths(-0.4, 0.0)), None)
    hooks.set_keyframes_on_hooks(_keyframes(comfy))
    positive = comfy.hooks.set_hooks_for_conditioning(text, hooks)

    def at(strength):
        binding = pack.patching.bind_to(loha, model, None, pack.patching.Strengths(strength, 0.0))
        return sampled(pack.patching.patch(binding, model, None)[0], positive, text, steps=3)

    fresh = {}
    for strength in (1.0, 0.5):
        comfy.model_management.unload_all_models()
        fresh[strength] = at(strength)
    for strength in (1.0, 0.5, 0.5, 1.0, 0.5):
        assert torch.equal(at(strength), fresh[strength])
    assert not torch.equal(fresh[1.0], fresh[0.5])
    gc.collect()


def _keyframes(comfy):
    group = comfy.hooks.HookKeyframeGroup()
    group.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
    group.add(comfy.hooks.HookKeyframe(strength=0.2, start_percent=0.5))
    return group


def test_a_hook_for_another_model_is_an_error_and_not_silence(comfy, small_model, pack):
    _, clip, _ = small_model
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    wide = Loha({name: LohaModule(name, torch.ones(4096, 1), torch.ones(1, 1024), torch.ones(4096, 1),
                                  torch.ones(1, 1024), alpha=1.0)})
    hooks = pack.hook.loha_hooks(pack.hook.LohaHook(wide, pack.patching.Strengths(1.0, 1.0)), None)
    from shinymas_loha.loha import BindError

    with pytest.raises(BindError, match="None of the file's 1 modules fits this model"):
        clip.clone().patcher.register_all_hook_patches(
            hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip))


def test_strengths_of_zero_and_earlier_hooks(comfy, pack, loha):
    earlier = _hook(comfy, {})
    nothing = pack.hook.loha_hooks(pack.hook.LohaHook(loha, pack.patching.Strengths(0.0, 0.0)), earlier)
    both = pack.hook.loha_hooks(pack.hook.LohaHook(loha, pack.patching.Strengths(1.0, 1.0)), earlier)
    assert (len(nothing), len(both), len(earlier)) == (1, 2, 1)
