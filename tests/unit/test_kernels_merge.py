"""Merging on the CPU: every torch path against float64, on any shape, dtype and layout."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.loha.kernels import Factors, Group, PackedFactors, merge, merge_
from shinymas_loha.loha.kernels.packing import is_packed, staging
from shinymas_loha.tests.unit.kernels_helpers import (
    LAYOUTS,
    WEIGHT_DTYPES,
    assert_merged,
    extents,
    merged64,
    random_factors,
    random_weight,
    ranks,
    scales,
    seeds,
)

FACTOR_DTYPES = (*WEIGHT_DTYPES, torch.float8_e4m3fn)
TORCH_ROUTES = ("cpu-blocked", "grouped-torch", "reference")


@pytest.mark.parametrize("route", TORCH_ROUTES)
@settings(deadline=None, max_examples=60)
@given(
    seed=seeds, out=extents, inputs=extents, rank1=ranks, rank2=ranks, scale=scales,
    layout=st.sampled_from(LAYOUTS), weight=st.sampled_from(WEIGHT_DTYPES), factor=st.sampled_from(FACTOR_DTYPES),
)
def test_a_weight(route, seed, out, inputs, rank1, rank2, scale, layout, weight, factor):
    target = random_weight(seed, out, inputs, layout, weight)
    factors = random_factors(seed, out, target[0].numel(), rank1, rank2, factor)
    truth = merged64(target, factors, scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHINYMAS_LOHA_ROUTE", route)
        assert merge_(target, factors, scale) == route
    assert_merged(target, truth)


@pytest.mark.parametrize("route", TORCH_ROUTES)
@settings(deadline=None, max_examples=30)
@given(seed=seeds, out=extents, inputs=extents, rank=ranks, count=st.integers(1, 5), kept=st.booleans(),
       layout=st.sampled_from(LAYOUTS), weight=st.sampled_from(WEIGHT_DTYPES))
def test_a_group_is_its_modules_one_by_one(route, seed, out, inputs, rank, count, kept, layout, weight):
    bases = [random_weight(seed + n, out + n // 3, inputs, layout, weight) for n in range(count)]
    modules = [
        random_factors(seed + n, base.shape[0], base[0].numel(), rank, rank + n, torch.float16)
        for n, base in enumerate(bases)
    ]
    strengths = [0.3 * n - 0.5 for n in range(count)]
    truths = [merged64(*each) for each in zip(bases, modules, strengths, strict=True)]
    outs = [torch.full_like(base, torch.nan) for base in bases] if kept else bases
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHINYMAS_LOHA_ROUTE", route)
        group = Group(outs, PackedFactors(modules, torch.device("cpu")), bases if kept else None)
        taken = group.merge(strengths)
    assert {one.name: n for one, n in taken.items()} == {route: count}
    for found, truth in zip(outs, truths, strict=True):
        assert_merged(found, truth)


def test_weights_larger_than_a_block():
    for dtype in (torch.float32, torch.float16):
        weight = random_weight(1, 1300, 5000, "contiguous", dtype)
        factors = random_factors(1, 1300, 5000, 4, 3, torch.float16)
        truth = merged64(weight, factors, 0.7)
        assert merge_(weight.view(1300, 5000, 1, 1), factors, 0.7) == "cpu-blocked"
        assert_merged(weight, truth)


def test_changing_the_scale_from_kept_originals_gives_the_same_bits():
    bases = [random_weight(n, 64, 96, "contiguous", torch.float16) for n in range(3)]
    outs = [base.clone() for base in bases]
    modules = [random_factors(n, 64, 96, 16, 16, torch.float16) for n in range(3)]
    group = Group(outs, PackedFactors(modules, torch.device("cpu")), bases)
    group.merge([0.5] * 3)
    first = [out.clone() for out in outs]
    group.merge([-2.0] * 3)
    assert not torch.equal(outs[0], first[0])
    group.merge([0.5] * 3)
    assert all(torch.equal(out, before) for out, before in zip(outs, first, strict=True))


def test_a_group_finds_a_weight_that_moved():
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    factors = random_factors(5, 8, 8, 2, 2, torch.float32)
    group = Group([weight], PackedFactors([factors], torch.device("cpu")))
    group.merge([1.0])
    weight.data = torch.zeros(8, 8)
    group.merge([1.0])
    assert_merged(weight.detach(), merged64(torch.zeros(8, 8), factors, 1.0))


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_a_weight_without_elements_is_left_alone(shape):
    weight = torch.empty(shape)
    factors = random_factors(0, *shape, 2, 3, torch.float16)
    assert merge_(weight, factors, 1.0) == "cpu-blocked"
    assert Group([weight], PackedFactors([factors], torch.device("cpu"))).merge([1.0]) == {}


def test_rank_zero_adds_nothing():
    weight = torch.ones(4, 6)
    factors = random_factors(0, 4, 6, 0, 3, torch.float16)
    merge_(weight, factors, 1.0)
    assert torch.equal(weight, torch.ones(4, 6))
    outs = [torch.full((4, 6), torch.nan) for _ in range(2)]
    merge(outs[0], weight, factors, 1.0)
    Group(outs[1:], [factors], [weight]).merge([1.0])
    assert all(torch.equal(out, weight) for out in outs)


def test_a_parameter_and_an_inference_tensor_are_weights_too():
    factors = random_factors(3, 8, 8, 2, 2, torch.float16)
    parameter = torch.nn.Parameter(torch.zeros(8, 8))
    with torch.inference_mode():
        buffer = torch.zeros(8, 8)
    merge_(parameter, factors, 1.0)
    merge_(buffer, factors, 1.0)
    assert torch.equal(parameter, buffer) and parameter.grad_fn is None


@pytest.mark.parametrize(
    ("weight", "sizes", "said"),
    [
        ((4, 6), (4, 7, 2, 2), "does not fit a weight of shape (4, 6)"),
        ((6, 4), (4, 6, 2, 2), "does not fit a weight of shape (6, 4)"),
        ((24,), (4, 6, 2, 2), "does not fit a weight of shape (24,)"),
    ],
)
def test_factors_that_do_not_fit_are_refused(weight, sizes, said):
    with pytest.raises(ValueError) as raised:
        merge_(torch.zeros(weight), random_factors(0, *sizes, torch.float16), 1.0)
    assert said in str(raised.value)


@pytest.mark.parametrize("base", [torch.zeros(6, 4), torch.zeros(4, 6, dtype=torch.float16),
                                  torch.zeros(4, 6, device="meta")])
def test_a_base_unlike_the_weight_is_refused(base):
    factors = random_factors(0, 4, 6, 2, 2, torch.float16)
    for refused in (lambda: merge(torch.zeros(4, 6), base, factors, 1.0),
                    lambda: Group([torch.zeros(4, 6)], [factors], [base])):
        with pytest.raises(ValueError, match=r"a weight \(4, 6\) torch.float32 on cpu cannot start from one \("):
            refused()


def test_factors_that_do_not_fit_one_another_are_refused():
    factors = random_factors(0, 4, 6, 2, 2, torch.float16)._replace(w2_b=torch.zeros(3, 6))
    with pytest.raises(ValueError, match="expected"):
        merge_(torch.zeros(4, 6), factors, 1.0)


def test_a_group_refuses_counts_that_differ():
    packed = PackedFactors([random_factors(0, 4, 6, 2, 2, torch.float16)], torch.device("cpu"))
    with pytest.raises(ValueError, match="2 weights"):
        Group([torch.zeros(4, 6)] * 2, packed)
    with pytest.raises(ValueError, match="0 scales"):
        Group([torch.zeros(4, 6)], packed).merge([])


def test_packed_factors_are_the_same_numbers_on_aligned_rows():
    modules = [random_factors(n, 5, 13, 3, 20, dtype) for n, dtype in enumerate(FACTOR_DTYPES)]
    modules.append(modules[0]._replace(w1_a=modules[1].w1_a))
    packed = PackedFactors(modules, torch.device("cpu"))
    for kept, given_ in zip(packed, modules, strict=True):
        assert all(torch.equal(one.double(), other.double()) for one, other in zip(kept, given_, strict=True))
        assert len({factor.dtype for factor in kept}) == 1
        assert all(factor.data_ptr() % 16 == 0 for factor in kept)
        assert all(factor.stride(0) * factor.element_size() % 16 == 0 for factor in kept)
    assert packed[3].dtype is torch.float16
    assert packed.nbytes == packed[0].w1_a.untyped_storage().nbytes()


def test_views_of_packed_factors_are_packed_anew():
    """Their rank's padding is other factors' numbers, which a kernel must not read as zeros."""
    (packed,) = PackedFactors([random_factors(0, 40, 70, 16, 16, torch.float16)], torch.device("cpu"))
    assert is_packed(packed, torch.device("cpu"))
    fewer = Factors(packed.w1_a[:, :8], packed.w1_b[:8], packed.w2_a[:, :8], packed.w2_b[:8])
    assert not is_packed(fewer, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here memory can be pinned")
def test_memory_that_cannot_be_pinned_is_used_as_it_is():
    buffer = staging(24, torch.device("cuda"))
    assert not buffer.any() and buffer.numel() == 24 and not buffer.is_pinned()
