"""ΔW, merging and gradients against float64 einsum, autograd and finite differences."""

from dataclasses import replace

import pytest
import reference
import torch
from lohas import DORA_LAYOUTS, LAYOUTS, Layout, exact_delta, random_module, random_weight, rounded_once
from shinymas_loha.loha import LohaModule, product

EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
EVERY_DORA = pytest.mark.parametrize("layout", DORA_LAYOUTS.values(), ids=DORA_LAYOUTS)
FACTOR_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
# Several row blocks, the last one short.
LARGE = Layout((700, 1000), ranks=(16, 16))


@EVERY_LAYOUT
@pytest.mark.parametrize("dtype", FACTOR_DTYPES, ids=str)
def test_delta_equals_the_definition(layout, dtype):
    module = random_module(layout, dtype=dtype)
    found = reference.delta(module, layout.shape)
    exact = exact_delta(module, layout.shape)
    assert found.shape == layout.shape
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    assert (found.double() - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("alpha, scale", [(None, 1.0), (1.0, 0.25), (0.0, 0.0), (-2.0, -0.5)])
def test_scale_is_alpha_over_rank_of_w1(alpha, scale):
    layout = Layout((23, 14), ranks=(4, 8))
    one, other = random_module(layout, alpha=None), random_module(layout, alpha=alpha)
    torch.testing.assert_close(reference.delta(other), reference.delta(one) * scale)


def test_delta_has_the_modules_own_shape_unless_told():
    assert reference.delta(random_module(LAYOUTS["conv3x3"])).shape == (11, 7 * 9)
    assert reference.delta(random_module(LAYOUTS["tucker"])).shape == (11, 7, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_delta_is_rounded_once(dtype):
    module = random_module(LARGE, dtype=dtype)
    assert rounded_once(reference.delta(module, dtype=dtype), exact_delta(module, LARGE.shape))


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), LARGE], ids=[*LAYOUTS, "large"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_merge_adds_in_place_with_one_rounding(layout, dtype):
    module, weight = random_module(layout), random_weight(layout.shape, dtype)
    exact = weight.double() + 0.75 * exact_delta(module, layout.shape)
    merged = product.merge_(weight, product.flat_factors(module), 0.75 * module.scale)
    assert merged.data_ptr() == weight.data_ptr()
    assert rounded_once(merged, exact)


@pytest.mark.parametrize("layout", [LAYOUTS["conv3x3"], *DORA_LAYOUTS.values()], ids=["conv3x3", *DORA_LAYOUTS])
def test_a_float8_weight_is_rounded_once_too(layout):
    module, weight = random_module(layout), random_weight(layout.shape).to(torch.float8_e4m3fn)
    factors, expected = product.flat_factors(module), weight.float()
    if module.dora_scale is None:
        product.merge_(weight, factors, 0.5)
        product.merge_(expected, factors, 0.5)
    else:
        product.merge_dora_(weight, factors, module.scale, module.dora_scale, 0.5)
        product.merge_dora_(expected, factors, module.scale, module.dora_scale, 0.5)
    assert torch.equal(weight.float(), expected.to(torch.float8_e4m3fn).float())


def _views(shape):
    """A weight of `shape` inside a larger tensor, in every way that ComfyUI or torch hands one over."""
    rows = random_weight((shape[0] + 6, *shape[1:]))
    yield "narrowed rows", rows, rows.narrow(0, 4, shape[0])
    columns = random_weight((shape[0], shape[1] + 6, *shape[2:]))
    yield "narrowed columns", columns, columns.narrow(1, 3, shape[1])
    turned = random_weight((shape[1], shape[0], *shape[2:]))
    yield "transposed", turned, turned.transpose(0, 1)
    stepped = random_weight((shape[0] * 2, *shape[1:]))
    yield "every other row", stepped, stepped[::2]
    if len(shape) == 4:
        channels_last = random_weight(shape).contiguous(memory_format=torch.channels_last)
        yield "channels last", channels_last, channels_last


@pytest.mark.parametrize("layout", [LAYOUTS["linear"], LAYOUTS["conv3x3"], LAYOUTS["tucker"],
                                    DORA_LAYOUTS["linear, dora out"], DORA_LAYOUTS["conv3x3, dora in"]],
                         ids=["linear", "conv3x3", "tucker", "linear, dora", "conv3x3, dora"])
def test_a_strided_weight_is_changed_where_it_lies_and_nothing_beside_it(layout):
    module = random_module(layout)
    factors = product.flat_factors(module)
    for kind, whole, view in _views(layout.shape):
        before, outside = view.clone(), whole.clone()
        alone = before.clone(memory_format=torch.contiguous_format)
        for weight in (view, alone):
            if module.dora_scale is None:
                product.merge_(weight, factors, module.scale)
            else:
                product.merge_dora_(weight, factors, module.scale, module.dora_scale, 0.5)
        torch.testing.assert_close(view, alone, msg=kind)
        assert not torch.equal(view, before), kind
        view.copy_(before)
        assert torch.equal(whole, outside), kind


def _exact_dora(module, weight, strength):
    changed = weight.double() + exact_delta(module, weight.shape)
    axis = [n for n, size in enumerate(module.dora_scale.shape) if size > 1]
    others = [n for n in range(weight.dim()) if n not in axis]
    norm = changed.square().sum(others, keepdim=True).sqrt()
    return weight.double() + strength * (module.dora_scale.double() * changed / norm - weight.double())


@EVERY_DORA
@pytest.mark.parametrize("strength", [1.0, 0.6, -1.0])
def test_dora_normalises_the_changed_weight(layout, strength):
    module, weight = random_module(layout), random_weight(layout.shape)
    exact = _exact_dora(module, weight, strength)
    product.merge_dora_(weight, product.flat_factors(module), module.scale, module.dora_scale, strength)
    torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_dora_over_several_blocks_of_rows(axis):
    layout = Layout(LARGE.shape, ranks=LARGE.ranks, dora=axis)
    module, weight = random_module(layout), random_weight(layout.shape, torch.float16)
    exact = _exact_dora(module, weight, 1.0)
    product.merge_dora_(weight, product.flat_factors(module), module.scale, module.dora_scale, 1.0)
    assert rounded_once(weight, exact)


def test_dora_of_a_flat_scale_lies_on_the_outputs():
    assert product.dora_axis((8,), (8, 8)) == 0
    assert product.dora_axis((8, 1), (8, 8, 3, 3)) == 0
    assert product.dora_axis((1, 8), (8, 8)) == 1
    assert product.dora_axis((8, 8), (8, 8)) is None
    assert product.dora_axis((1, 8, 3, 3), (8, 8, 3, 3)) == 1
    assert product.dora_axis((1, 8, 3, 1), (8, 8, 3, 3)) is None
    assert product.dora_axis((1, 1, 8), (8, 8)) is None


def test_a_dora_scale_of_no_axis_is_refused():
    module = random_module(LAYOUTS["linear"])
    with pytest.raises(ValueError, match=r"dora_scale \(9, 1\) does not fit a weight \(23, 14\)"):
        product.merge_dora_(random_weight((23, 14)), product.flat_factors(module), 1.0, torch.ones(9, 1), 1.0)


@EVERY_LAYOUT
def test_gradients_equal_autograd_in_float64(layout):
    module = random_module(layout, dtype=torch.float64)
    leaves = [tensor.clone().requires_grad_() for tensor in
              (module.w1_a, module.w1_b, module.w2_a, module.w2_b, module.t1, module.t2) if tensor is not None]
    grad = random_weight(layout.shape, torch.float64, seed=2)
    (exact_delta(type(module)("m", *leaves, alpha=module.alpha), layout.shape) * grad).sum().backward()

    factors = product.flat_factors(module)
    found = list(reference.gradients(grad.flatten(1), factors, module.scale))
    if module.is_tucker:
        core_1, found[1] = reference.core_gradients(module.t1, module.w1_b, found[1])
        core_2, found[3] = reference.core_gradients(module.t2, module.w2_b, found[3])
        found = [found[0].t(), found[1], found[2].t(), found[3], core_1, core_2]
    for ours, leaf in zip(found, leaves, strict=True):
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-11, atol=1e-11)


@EVERY_LAYOUT
def test_gradients_equal_finite_differences_of_delta(layout):
    """Each number is linear in ΔW, so that a central difference has no error but rounding."""
    module = random_module(layout, dtype=torch.float64)
    grad = random_weight(layout.shape, torch.float64, seed=2)
    found = reference.gradients(grad.flatten(1), product.flat_factors(module), module.scale)
    stored = (module.w1_a, module.w1_b, module.w2_a, module.w2_b)
    chained = [reference.core_gradients(core, b, found[n])[1] if module.is_tucker else found[n]
               for n, core, b in ((1, module.t1, module.w1_b), (3, module.t2, module.w2_b))]
    ours = (found[0].t() if module.is_tucker else found[0], chained[0],
            found[2].t() if module.is_tucker else found[2], chained[1])
    for factor, gradient in zip(stored, ours, strict=True):
        for place in range(0, factor.numel(), 13):
            step, losses = 1e-3, []
            original = factor.view(-1)[place].item()
            for sign in (1, -1):
                factor.view(-1)[place] = original + sign * step
                losses.append(float((reference.delta(module, layout.shape) * grad).sum()))
            factor.view(-1)[place] = original
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(
                float(gradient.reshape(-1)[place]), rel=1e-8, abs=1e-9)


def test_gradients_over_several_blocks_of_rows():
    module = random_module(LARGE)
    leaves = [tensor.double().requires_grad_() for tensor in (module.w1_a, module.w1_b, module.w2_a, module.w2_b)]
    grad = random_weight(LARGE.shape, seed=2)
    (exact_delta(type(module)("m", *leaves, alpha=module.alpha), LARGE.shape) * grad.double()).sum().backward()
    found = reference.gradients(grad, product.flat_factors(module), module.scale)
    for ours, leaf in zip(found, leaves, strict=True):
        assert ours.dtype == torch.float32
        assert (ours.double() - leaf.grad).norm() <= 1e-5 * leaf.grad.norm()


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), LARGE], ids=[*LAYOUTS, "large"])
def test_norm_and_largest_number(layout):
    module = random_module(layout, alpha=-3.0)
    exact = exact_delta(module, layout.shape)
    assert product.squared_norms([module])[0] == pytest.approx(float(exact.square().sum()), rel=1e-5)
    assert product.largest(module) == pytest.approx(float(exact.abs().max()), rel=1e-5)
    assert module.ceiling >= float(exact.abs().max())


def test_norms_of_many_are_those_of_each():
    """Whatever their shapes and dtypes, and whether some are known already."""
    modules = [random_module(layout, alpha=2.0, seed=seed) for seed, layout in enumerate((*LAYOUTS.values(), LARGE))]
    wide = (factor.double() for factor in modules[0].factors)
    modules.append(LohaModule("wide", *wide, alpha=1.0))
    alone = [product.squared_norms([replace(module)])[0] for module in modules]
    product.squared_norms(modules[1:3])
    assert product.squared_norms(modules) == alone
    assert product.squared_norms([]) == []


def test_largest_tells_what_is_not_finite():
    module = random_module(LAYOUTS["linear"], alpha=1e38, size=1e3)
    assert not product.largest(module) <= torch.finfo(torch.float32).max


@pytest.mark.parametrize("sizes", [(1e20, 1e20, 1e-20, 1e-20), (1e-20, 1e-20, 1e20, 1e20), (0.0, 1e30, 1.0, 1.0)],
                         ids=str)
def test_a_step_on_the_way_that_is_not_finite_counts_too(sizes):
    """ΔW itself is 1, or 0: in float32, which every route multiplies in, it comes out as infinity or NaN."""
    w1_a, w1_b, w2_a, w2_b = (torch.full((2, 2), size) for size in sizes)
    module = LohaModule("m", w1_a, w1_b, w2_a, w2_b, alpha=1e300 if not sizes[0] else None)
    assert product.largest(module) == float("inf")
    assert module.step_ceiling * max(1.0, abs(module.scale)) > torch.finfo(torch.float32).max


def test_the_norm_of_what_is_beyond_float32_when_squared():
    wide = torch.full((20, 2), 6e4, dtype=torch.float16)
    module = LohaModule("m", wide, wide.t(), wide, wide.t(), alpha=1e-170)
    assert product.squared_norms([module])[0] ** 0.5 == pytest.approx(20 * (2 * 6e4**2) ** 2 * 5e-171, rel=1e-5)
