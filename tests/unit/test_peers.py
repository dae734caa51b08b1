"""ΔW against LyCORIS and PEFT, which made most of the files that are about.

Not used as oracles: LyCORIS's `get_diff_weight`, which multiplies by the scale twice, and its Tucker
backward in 3.x, which is not the gradient.
"""

import lycoris.functional.loha as lycoris_loha
import pytest
import reference
import torch
from lohas import DORA_LAYOUTS, LAYOUTS, random_module, random_weight
from lycoris.modules.loha import LohaModule as LycorisModule
from peft.tuners.loha import LoHaConfig
from peft.tuners.loha.layer import Conv2d as PeftConv2d
from peft.tuners.loha.layer import Linear as PeftLinear
from shinymas_loha.loha import LohaModule, product
from shinymas_loha.loha.module import CORE_NAMES, FACTOR_NAMES

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
SINGLE_RANK = {name: layout for name, layout in LAYOUTS.items() if layout.ranks[0] == layout.ranks[1]}


def _close(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def _layer(shape):
    return torch.nn.Linear(shape[1], shape[0]) if len(shape) == 2 else torch.nn.Conv2d(shape[1], shape[0], shape[2:])


@EVERY_LAYOUT
@DTYPES
def test_lycoris_diff_weight(layout, dtype):
    module = random_module(layout, dtype=dtype)
    theirs = lycoris_loha.diff_weight(
        *(tensor if tensor is None else tensor.float() for tensor in
          (module.w1_b, module.w1_a, module.w2_b, module.w2_a, module.t1, module.t2)),
        gamma=torch.tensor(module.scale))
    _close(reference.delta(module, layout.shape), theirs.reshape(layout.shape))


@pytest.mark.parametrize("name", ["linear", "conv1x1", "conv3x3"])
def test_lycoris_gradients_of_flat_modules(name):
    module = random_module(LAYOUTS[name])
    leaves = [tensor.clone().requires_grad_() for tensor in (module.w1_b, module.w1_a, module.w2_b, module.w2_a)]
    grad = random_weight(tuple(module.delta_shape), seed=2)
    (lycoris_loha.diff_weight(*leaves, None, None, gamma=torch.tensor(module.scale)) * grad).sum().backward()
    ours = reference.gradients(grad, product.flat_factors(module), module.scale)
    for mine, leaf in zip(ours, (leaves[1], leaves[0], leaves[3], leaves[2]), strict=True):
        _close(mine, leaf.grad)


@pytest.mark.parametrize("layout", DORA_LAYOUTS.values(), ids=DORA_LAYOUTS)
def test_lycoris_weight_decomposition(layout):
    """LyCORIS's own module, filled with our factors, merged at multiplier 1, and its state read back."""
    module, layer = random_module(layout, alpha=2.0), _layer(layout.shape)
    theirs = LycorisModule("module", layer, lora_dim=4, alpha=2, use_tucker=layout.tucker, weight_decompose=True,
                           wd_on_out=layout.dora == 0)
    theirs.load_state_dict(module.tensors() | {"alpha": torch.tensor(module.alpha)})
    merged = theirs.apply_weight_decompose(layer.weight + theirs.get_weight(layer.weight.shape), 1)

    weight = layer.weight.detach().clone()
    product.merge_dora_(weight, product.flat_factors(module), module.scale, module.dora_scale, 1.0)
    _close(weight, merged.detach())


@pytest.mark.parametrize("layout", SINGLE_RANK.values(), ids=SINGLE_RANK)
def test_peft_delta_weight(layout):
    base = _layer(layout.shape)
    kind = PeftLinear if len(layout.shape) == 2 else PeftConv2d
    config = LoHaConfig(r=4, alpha=2, use_effective_conv2d=layout.tucker, init_weights=False)
    torch.manual_seed(0)
    peft = kind(base, "default", config, r=4, alpha=2)
    stored = {name: getattr(peft, name)["default"].detach() for name in (*FACTOR_NAMES, *CORE_NAMES)
              if "default" in getattr(peft, name)}
    assert ("hada_t1" in stored) == layout.tucker
    ours = LohaModule("module", *(stored.get(name) for name in (*FACTOR_NAMES, *CORE_NAMES)), alpha=2.0)
    _close(reference.delta(ours, layout.shape), peft.get_delta_weight("default").detach())
