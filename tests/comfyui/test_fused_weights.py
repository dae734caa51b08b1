"""Names that mean a part of one weight: q, k and v of SD 3, Flux and HunyuanVideo, as diffusers' names have them.

Small models of ComfyUI's own classes; ComfyUI's own loader beside ours.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from shinymas_loha.loha import Loha, LohaModule, files
from shinymas_loha.loha.binding import Skip, Target
from shinymas_loha.loha.targets import Place

SIZES = {
    "SD3": dict(in_channels=4, pos_embed_scaling_factor=None, input_size=None, patch_size=2, depth=2,
                adm_in_channels=32, context_embedder_config={
                    "target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}}),
    "Flux": dict(image_model="flux", in_channels=4, patch_size=2, out_channels=4, vec_in_dim=16, context_in_dim=32,
                 hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=1, depth_single_blocks=2, axes_dim=[8, 12, 12],
                 theta=10000, qkv_bias=True, guidance_embed=False),
}
RANK = 3


@pytest.fixture(params=SIZES)
def fresh(comfy, request):
    """Makes a patcher around a model of random weights in float16, each time the same."""
    def make():
        from comfy.ldm.flux.model import FluxParams

        sizes = dict(SIZES[request.param])
        if request.param == "Flux" and "txt_ids_dims" in FluxParams.__dataclass_fields__:
            sizes["txt_ids_dims"] = []
        config = getattr(comfy.supported_models, request.param)(sizes)
        config.set_inference_dtype(torch.float16, None)
        torch.manual_seed(0)
        made = config.get_model({}, device="cpu")
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.05)
        return comfy.model_patcher.ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))

    return make


@pytest.fixture
def model(fresh):
    return fresh()


@pytest.fixture
def pack(comfy):
    from shinymas_loha.patcher import comfyui, hook, patching

    return SimpleNamespace(comfyui=comfyui, hook=hook, patching=patching)


@pytest.fixture
def file(model, pack, tmp_path):
    """A LoHa for every name of diffusers' that ComfyUI knows of the model, written and read: it as file and tensors."""
    shapes = {name: tensor.shape for name, tensor in model.model.state_dict().items()}
    modules, taken, generator = {}, set(), torch.Generator().manual_seed(1)
    for name, place in pack.comfyui.names_of(model, is_text=False).items():
        shape = shapes.get(place.weight, ())
        if not name.startswith("transformer.") or len(shape) != 2 or place[:2] in taken:
            continue
        taken.add(place[:2])  # newer cores know two names of one weight
        if place.span is not None:
            shape = (place.span[2], shape[1])
        if place.reorder is not None and shape[0] % 2:
            continue
        a, b = (lambda rows: torch.randn(rows, RANK, generator=generator)), (
            lambda columns: torch.randn(RANK, columns, generator=generator) * 0.1)
        modules[name] = LohaModule(name, a(shape[0]), b(shape[1]), a(shape[0]), b(shape[1]), alpha=2.0)
    path = tmp_path / "fused.safetensors"
    files.save(Loha(modules), path, torch.float32)
    return files.read(path)


@pytest.fixture
def apply(pack):
    def put(model, loha, strength):
        binding = pack.patching.bind_to(loha, model, None, pack.patching.Strengths(strength, 0.0))
        patched, _, binding = pack.patching.patch(binding, model, None)
        return patched, binding

    return put


def _load(comfy, model):
    comfy.model_management.load_models_gpu([model])
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def _same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def _cores(comfy, model, loha, strength):
    tensors = {files.tensor_name(name, suffix): tensor
               for name, module in loha.modules.items()
               for suffix, tensor in (module.tensors() | {"alpha": torch.tensor(module.alpha)}).items()}
    patches = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {}))
    core = model.clone()
    assert len(core.add_patches(patches, strength)) == len(loha)
    return core


def test_every_part_is_applied_as_core_does(comfy, model, file, apply):
    ours, binding = apply(model, file, 0.7)
    assert (binding.applied, dict(binding.skipped), binding.unknown) == (len(file), {}, ())
    parts = [bound.target for bound in binding.modules.values() if bound.target.span is not None]
    assert len(parts) >= 9
    plain = _load(comfy, model)
    changed = _load(comfy, ours)
    comfy.model_management.unload_all_models()
    core = _load(comfy, _cores(comfy, model, file, 0.7))
    comfy.model_management.unload_all_models()
    for name in {bound.target.weight for bound in binding.modules.values()}:
        assert not torch.equal(changed[name], plain[name])
        assert (changed[name].float() - core[name].float()).abs().max() <= 2e-3 * core[name].float().abs().max(), name


def test_strengths_one_after_another_are_a_fresh_models(comfy, fresh, model, file, apply):
    plain = _load(comfy, model)
    alone = {}
    for strength in (0.7, -1.2):
        alone[strength] = _load(comfy, apply(fresh(), file, strength)[0])
        comfy.model_management.unload_all_models()
    for strength in (0.7, -1.2, -1.2, 0.7):
        assert _same(_load(comfy, apply(model, file, strength)[0]), alone[strength])
    nothing, binding = apply(model, file, 0.0)
    assert binding.applied == 0 and _same(_load(comfy, nothing), plain)
    comfy.model_management.unload_all_models()


def test_two_lohas_and_cores_own_on_one_weight(comfy, fresh, file, apply):
    """Parts of one weight from several sources, in either order."""
    def weights(*makes):
        made = fresh()
        for make in makes:
            made = make(made)
        found = _load(comfy, made)
        comfy.model_management.unload_all_models()
        return found

    def ours(patcher):
        return apply(patcher, file, 0.4)[0]

    def cores(patcher):
        return _cores(comfy, patcher, file, 0.3)

    mixed, turned, core = weights(ours, cores), weights(cores, ours), weights(cores, lambda one: _cores(
        comfy, one, file, 0.4))
    for name, expected in core.items():
        limit = 4e-3 * float(expected.float().abs().max()) + 1e-6
        assert (mixed[name].float() - expected.float()).abs().max() <= limit
        assert (turned[name].float() - expected.float()).abs().max() <= limit


def test_a_hook_puts_the_same_on(comfy, fresh, model, file, pack, apply):
    expected = _load(comfy, apply(fresh(), file, 0.7)[0])
    comfy.model_management.unload_all_models()
    hooks = pack.hook.loha_hooks(
        pack.hook.LohaHook(file, pack.patching.Strengths(0.7, 0.0), lambda *words: None), None)
    hooked = model.clone()
    plain = _load(comfy, hooked)
    hooked.register_all_hook_patches(hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
    hooked.patch_hooks(hooks)
    for name, tensor in hooked.model.state_dict().items():
        assert (tensor.float() - expected[name].float()).abs().max() <= 2e-3 * expected[name].float().abs().max()
    hooked.unpatch_hooks()
    assert _same(hooked.model.state_dict(), plain)
    comfy.model_management.unload_all_models()


def test_two_names_of_one_part_are_refused(model, file, apply):
    from shinymas_loha.loha import BindError

    name, module = next((name, module) for name, module in file.modules.items() if ".to_q" in name)
    other = name.replace("transformer.", "lora_transformer_", 1).replace(".", "_")
    with pytest.raises(BindError, match="both name the weight rows 0 to .*; a file must hold one of them"):
        apply(model, Loha({name: module, other: module}), 1.0)


def test_a_part_that_a_weight_does_not_have_is_said():
    target = Target("w", (6, 4), torch.float32)
    assert target.part(Place("w", (0, 2, 4))).shape == (4, 4)
    for span in ((0, 4, 4), (2, 0, 1), (0, -1, 2), (0, 0, 0)):
        assert isinstance(target.part(Place("w", span)), Skip)


@pytest.mark.parametrize("blocks", ["", "OUTALL"])
def test_block_weights_that_a_model_has_no_blocks_for_are_said(comfy, model, file, pack, blocks):
    """All of such a model is BASE, which every preset but NONE leaves at 1."""
    from shinymas_loha.loha import block_weights
    from shinymas_loha.nodes.apply import ApplyLoha

    note = "note: block_weights: this model has none of the blocks; all of it is BASE"
    lines = ApplyLoha.execute(model, file, 1.0, 0.0, False, None, blocks).args[2].splitlines()
    assert (note in lines) == bool(blocks)
    said = []
    strengths = pack.patching.Strengths(1.0, 0.0, block_weights.parse(blocks))
    hook = pack.hook.loha_hooks(pack.hook.LohaHook(file, strengths, lambda text, level: said.append(text)), None)
    model.clone().register_all_hook_patches(
        hook, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
    assert (note in said[0].splitlines()) == bool(blocks)
