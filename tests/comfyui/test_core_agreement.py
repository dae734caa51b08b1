"""ComfyUI's own arithmetic and names beside ours: one adapter, every layout and dtype; three architectures.

DoRA is left out: core normalises by the norm of W where LyCORIS, which trains such files, takes W+ΔW's.
"""

import importlib

import pytest
import torch
from lohas import LAYOUTS, random_module, random_weight, ulp
from shinymas_loha.loha import Loha, naming

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LEVELS = {
    "demo": dict(channel_mult=[1, 2], num_res_blocks=[1, 1], transformer_depth=[1, 1], transformer_depth_output=[1] * 4,
                 transformer_depth_middle=1, num_heads=8, context_dim=768),
    "SD 1.5": dict(channel_mult=[1, 2, 4, 4], num_res_blocks=[2] * 4, transformer_depth=[1] * 6 + [0, 0],
                   transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, num_heads=8,
                   context_dim=768),
    "SDXL": dict(channel_mult=[1, 2, 4], num_res_blocks=[2] * 3, transformer_depth=[0, 0, 2, 2, 10, 10],
                 transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10,
                 num_head_channels=64, context_dim=2048, adm_in_channels=2816, num_classes="sequential",
                 use_linear_in_transformer=True),
}


def _patcher(comfy, weight):
    """A real ModelPatcher around a model of one layer."""
    model = torch.nn.Module()
    model.diffusion_model = torch.nn.Module()
    model.diffusion_model.layer = torch.nn.Module()
    model.diffusion_model.layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def _patched(patcher):
    patcher.partially_load(torch.device("cpu"), 1 << 40)
    changed = patcher.model.diffusion_model.layer.weight.detach().clone()
    patcher.detach()
    return changed


def _both(comfy, module, weight, strength):
    """`weight` as our patch leaves it, and as core's adapter does with the same factors."""
    patching = importlib.import_module("shinymas_loha.patcher.patching")
    patcher = _patcher(comfy, weight)
    loha = Loha({"diffusion_model.layer": module})
    binding = patching.bind_to(loha, patcher, None, patching.Strengths(strength, 0.0))
    ours, _, binding = patching.patch(binding, patcher, None)
    assert binding.applied == 1

    core = _patcher(comfy, weight)
    adapter = importlib.import_module("comfy.weight_adapter").LoHaAdapter(set(), (
        module.w1_a, module.w1_b, module.alpha, module.w2_a, module.w2_b, module.t1, module.t2, None))
    assert core.add_patches({"diffusion_model.layer.weight": adapter}, strength)
    return _patched(ours), _patched(core)


def _close(ours, core):
    if ours.dtype == torch.float32:
        assert (ours - core).abs().max() <= 1e-5 * core.abs().max()
    else:
        assert ((ours.double() - core.double()).abs() <= ulp(core, core.dtype)).all()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("weight_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor_dtype", DTYPES, ids=str)
def test_a_patched_weight_is_cores(comfy, layout, weight_dtype, factor_dtype):
    weight = random_weight(layout.shape, weight_dtype)
    ours, core = _both(comfy, random_module(layout, dtype=factor_dtype), weight, 0.7)
    assert not torch.equal(core, weight)
    _close(ours, core)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_weight_kept_in_8_bits_is_cores(comfy, layout, dtype):
    """Core rounds these at random, seeded by the key: a number in between may fall to the other side."""
    ours, core = _both(comfy, random_module(layout), random_weight(layout.shape, dtype), 1.0)
    _close(ours, core)
    assert (ours.float() != core.float()).float().mean() < 0.01


@pytest.mark.parametrize("alpha", [None, 0.0, -4.0])
def test_alphas_mean_what_they_mean_to_core(comfy, alpha):
    _close(*_both(comfy, random_module(LAYOUTS["linear"], alpha=alpha), random_weight((23, 14)), 1.0))


@pytest.mark.parametrize("kind", LEVELS)
def test_names_are_those_of_cores_unet_to_diffusers(comfy, kind):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    levels = LEVELS[kind]
    with torch.device("meta"):
        unet = UNetModel(image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True,
                         legacy=False, device="meta", operations=comfy.ops.disable_weight_init,
                         **{name: list(value) if isinstance(value, list) else value for name, value in levels.items()})
    weights = {f"diffusion_model.{name}" for name in unet.state_dict()}
    core = {f"lora_unet_{to.removesuffix('.weight').replace('.', '_')}": f"diffusion_model.{own}"
            for to, own in comfy.utils.unet_to_diffusers(levels).items()
            # Its list also holds shortcuts and samplers that this model has no weight for.
            if to.endswith(".weight") and f"diffusion_model.{own}" in weights and not to.startswith("class_embedding")}
    index = naming.index(weights)
    assert {name: index.get(naming.address(name)) for name in core} == core
    assert len(core) > 50
    two_dimensional = {f"diffusion_model.{name}" for name, tensor in unet.state_dict().items() if tensor.dim() > 1}
    assert two_dimensional <= set(core.values())
