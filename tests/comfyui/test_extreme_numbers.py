"""Apply LoHa on numbers that no training makes: a picture's weights stay finite, or the pack's own error says why."""

import importlib
import random

import pytest
import torch
from lohas import random_weight
from safetensors.torch import save_file
from shinymas_loha.loha import Loha, LohaError, LohaModule, files

CPU = torch.device("cpu")
SHAPES = {"linear": (20, 12), "conv1x1": (10, 6, 1, 1), "conv3x3": (8, 6, 3, 3)}
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
STORED = (torch.float16, torch.bfloat16, torch.float32, torch.float64, *EIGHT_BITS)
ALPHAS = (None, None, 1.0, 1.0, 0.0, -2.0, 1e30, 1e38, 1e300, 1e-30, 1e-300)
STRENGTHS = (1.0, 1.0, 1.0, 0.7, -100.0, 0.0, 1e-30, 1e30, 1e308, float("nan"), float("inf"))
BLOCKS = ("", "", "", "1e308" + ",1" * 25, "0" + ",1" * 25, "-3" + ",1" * 25, "1,2")
FINITE = {"normal": 0.5, "wide": 1e4, "huge": 1e19, "giant": 1e38, "tiny": 1e-30}


@pytest.fixture(scope="module")
def nodes(comfy):
    return importlib.import_module("shinymas_loha.nodes")


def _tensor(draw, shape, dtype):
    kind = draw.choice(["normal"] * 4 + ["zeros", "largest", "one is largest", "wide", "huge", "giant", "tiny"])
    most = torch.finfo(dtype).max
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    if kind in FINITE:
        wanted = torch.randn(shape, generator=generator, dtype=torch.float64) * FINITE[kind]
        return wanted.clamp(-most, most).to(dtype)
    found = torch.zeros(shape, dtype=torch.float64)
    if kind == "largest":
        found.fill_(most)
    elif kind == "one is largest":
        found.flatten()[0] = most
    return found.to(dtype)


def _module(draw, name, shape):
    """Tensors of one module as a file has them, ranks, layouts, dtypes and numbers drawn."""
    dtype, (out, inputs, *kernel) = draw.choice(STORED), shape
    tucker, found = bool(kernel) and draw.random() < 0.5, {}
    for w in (1, 2):
        rank = draw.choice((1, 2, 5))
        a, b = ((rank, out), (rank, inputs)) if tucker else ((out, rank), (rank, inputs * torch.Size(kernel).numel()))
        found |= {f"hada_w{w}_a": _tensor(draw, a, dtype), f"hada_w{w}_b": _tensor(draw, b, dtype)}
        if tucker:
            found[f"hada_t{w}"] = _tensor(draw, (rank, rank, *kernel), dtype)
    if draw.random() < 0.3:
        axis = draw.choice((0, 1))
        sizes = [size if place == axis else 1 for place, size in enumerate(shape)]
        found["dora_scale"] = _tensor(draw, sizes, draw.choice(STORED))
    alpha = draw.choice(ALPHAS)
    if alpha is not None:
        found["alpha"] = torch.tensor(alpha, dtype=torch.float64)
    return {f"diffusion_model.{name}.{suffix}": tensor for suffix, tensor in found.items()}


def _lora(draw, name, shape):
    dtype = draw.choice(STORED[:4])
    parts = {"lora_up.weight": (shape[0], 2), "lora_down.weight": (2, shape[1])}
    return {f"diffusion_model.{name}.{suffix}": _tensor(draw, part, dtype) for suffix, part in parts.items()}


def _weights(draw):
    """Three layers in any dtype that ComfyUI keeps weights in."""
    dtype = draw.choice((torch.float16, torch.bfloat16, torch.float32, *EIGHT_BITS))
    return {name: (torch.zeros(shape) if draw.random() < 0.2 else random_weight(shape)).to(dtype)
            for name, shape in SHAPES.items()}


def _patcher(comfy, weights):
    """A real ModelPatcher around a model of these layers."""
    model = torch.nn.Module()
    model.diffusion_model = torch.nn.Module()
    for name, weight in weights.items():
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        model.diffusion_model.add_module(name, layer)
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


def _apply_drawn(comfy, nodes, path, seed):
    """One drawn file on one drawn model, loaded: the error's text, or the report."""
    draw = random.Random(seed)
    tensors = {}
    for name, shape in SHAPES.items():
        make = _lora if name == "linear" and draw.random() < 0.1 else _module
        tensors |= make(draw, name, shape)
    save_file(tensors, path)
    patcher, arguments = _patcher(comfy, _weights(draw)), dict(
        strength_model=draw.choice(STRENGTHS), strength_clip=draw.choice(STRENGTHS), strict=draw.random() < 0.2,
        block_weights=draw.choice(BLOCKS))
    try:
        patched, _, text = nodes.ApplyLoha.execute(patcher, files.read(path), **arguments).result
    except LohaError as error:
        return str(error)
    lines = dict(line.split(": ", 1) for line in text.splitlines()[:4])
    assert int(lines["applied"]) + int(lines["skipped"]) + int(lines["unknown"]) == int(lines["modules"]) == 3
    patched.partially_load(CPU, 1 << 40)
    try:
        for name, tensor in patched.model.state_dict().items():
            assert tensor.float().isfinite().all(), f"{name} {tensor.dtype} {arguments}\n{text}"
    finally:
        patched.detach()
    return text


@pytest.mark.parametrize("seed", range(60))
def test_weights_stay_finite_or_the_packs_own_error_says_why(comfy, nodes, tmp_path, seed):
    for part in range(5):
        assert _apply_drawn(comfy, nodes, tmp_path / f"{part}.safetensors", 5 * seed + part)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_product_that_is_finite_but_huge_is_applied(comfy, nodes, dtype):
    """All factors 60 000 in fp16, rank 2: ΔW is 5.2e19 everywhere, and the sum of its squares is beyond float32."""
    wide = torch.full((320, 2), 6e4, dtype=torch.float16)
    module = LohaModule("m", wide, wide.t(), wide, wide.t())
    patcher = _patcher(comfy, {"linear": torch.zeros(320, 320, dtype=dtype)})
    patched, _, text = nodes.ApplyLoha.execute(patcher, Loha({"diffusion_model.linear": module}), 1.0, 1.0, True).result
    assert text.splitlines()[1] == "applied: 1"
    (norm,) = [line.split() for line in text.splitlines() if line.startswith("norm")]
    assert norm[:2] == ["norm", "BASE:"]
    assert float(norm[2]) == pytest.approx(320 * (2 * 6e4**2) ** 2, rel=1e-3)
    patched.partially_load(CPU, 1 << 40)
    assert float(patched.model.diffusion_model.linear.weight[7, 7]) == pytest.approx((2 * 6e4**2) ** 2, rel=1e-2)
    patched.detach()


@pytest.mark.parametrize("block, dtype", [("1e308", torch.bfloat16), ("1e38", torch.float16)], ids=str)
def test_a_block_weight_beyond_the_dtype_is_what_the_error_speaks_of(comfy, nodes, block, dtype):
    module = LohaModule("m", *(torch.full(shape, 0.1) for shape in ((20, 1), (1, 12)) * 2))
    patcher = _patcher(comfy, {"linear": torch.zeros(20, 12, dtype=dtype)})
    with pytest.raises(LohaError) as error:
        nodes.ApplyLoha.execute(patcher, Loha({"diffusion_model.linear": module}), 1.0, 1.0, False,
                                block_weights=block + ",1" * 25)
    assert str(error.value).endswith(
        f"its strength 1 × block weight {float(block):g} is not finite in the weight's dtype, "
        f"{str(dtype).removeprefix('torch.')}. Choose a lower strength or block weight.")
