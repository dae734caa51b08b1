"""The Triton kernels against float64. Run by `test_kernels_triton.py` in a process of its own.

On the CPU with TRITON_INTERPRET=1, which has to be set before anything imports Triton; without it on
CUDA. The interpreter multiplies bfloat16 as if it were integers and truncates on conversion to it (Triton
3.6), so there bfloat16 factors are left to the GPU, and bfloat16 weights get their one unit in the last place.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.loha.kernels import Group, PackedFactors, gradients, merge, merge_
from shinymas_loha.loha.kernels.route import TRITON_ROUTES, _failed
from shinymas_loha.tests.unit.kernels_helpers import (
    LAYOUTS,
    WEIGHT_DTYPES,
    assert_close_by_norm,
    assert_merged,
    delta64,
    merged64,
    random_factors,
    random_weight,
    scales,
    seeds,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
FACTOR_DTYPES = [torch.float32, torch.float16] if INTERPRETED else list(WEIGHT_DTYPES)

# The interpreter takes milliseconds a tile: extents of one to a few tiles, mostly small ranks.
extents = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 129] if INTERPRETED else [640, 1281, 3000]))
ranks = st.one_of(st.integers(1, 17), st.sampled_from([32, 33, 64, 128]))


@pytest.fixture(autouse=True, scope="module")
def _forced():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHINYMAS_LOHA_ROUTE", "grouped-triton")
        yield


@pytest.fixture(autouse=True)
def _nothing_failed():
    yield
    _failed.clear()


@settings(deadline=None, max_examples=30)
@given(seed=seeds, out=extents, inputs=extents, rank1=ranks, rank2=ranks, scale=scales,
       layout=st.sampled_from(LAYOUTS), weight=st.sampled_from(WEIGHT_DTYPES), factor=st.sampled_from(FACTOR_DTYPES))
def test_one_weight(seed, out, inputs, rank1, rank2, scale, layout, weight, factor):
    target = random_weight(seed, out, inputs, layout, weight, DEVICE)
    factors = random_factors(seed, out, target[0].numel(), rank1, rank2, factor, DEVICE)
    truth = merged64(target, factors, scale)
    assert merge_(target, factors, scale) == "fused-triton"
    assert_merged(target, truth)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, out=extents, inputs=extents, rank1=ranks, rank2=ranks, count=st.integers(1, 4),
       kept=st.booleans(), layout=st.sampled_from(LAYOUTS), weight=st.sampled_from(WEIGHT_DTYPES),
       factor=st.sampled_from(FACTOR_DTYPES))
def test_a_group(seed, out, inputs, rank1, rank2, count, kept, layout, weight, factor):
    bases = [random_weight(seed + n, out + 30 * n, inputs, layout, weight, DEVICE) for n in range(count)]
    modules = [
        random_factors(seed + n, base.shape[0], base[0].numel(), rank1, rank2, factor)
        for n, base in enumerate(bases)
    ]
    strengths = [0.3 * n - 0.5 for n in range(count)]
    truths = [merged64(*each) for each in zip(bases, modules, strengths, strict=True)]
    outs = [torch.full_like(base, torch.nan) for base in bases] if kept else bases
    group = Group(outs, PackedFactors(modules, torch.device(DEVICE)), bases if kept else None)
    taken = group.merge(strengths)
    assert sum(taken.values()) == count and all(route.name in TRITON_ROUTES for route in taken)
    for found, truth in zip(outs, truths, strict=True):
        assert_merged(found, truth)


def test_modules_of_one_kind_share_a_launch_whatever_their_shapes_and_ranks(monkeypatch):
    from shinymas_loha.loha.kernels.merging import triton as triton_merge

    launches = []
    merge = triton_merge.Table.merge
    monkeypatch.setattr(triton_merge.Table, "merge", lambda *args: (launches.append(1), merge(*args)))
    weights = [random_weight(n, 8 * n, 24 * n, "contiguous", torch.float16, DEVICE) for n in range(1, 8)]
    modules = [
        random_factors(n, *weight.shape, n, 17 - n, torch.float16) for n, weight in enumerate(weights, 1)
    ]
    truths = [merged64(weight, module, 0.5) for weight, module in zip(weights, modules, strict=True)]
    Group(weights, PackedFactors(modules, torch.device(DEVICE))).merge([0.5] * 7)
    assert len(launches) == 1
    for weight, truth in zip(weights, truths, strict=True):
        assert_merged(weight, truth)


def test_fp64_factors_are_taken_as_fp32_and_spoil_no_route():
    weights = [random_weight(n, 20, 30, "contiguous", torch.float32, DEVICE) for n in range(2)]
    factors = random_factors(0, 20, 30, 5, 3, torch.float64, DEVICE)
    truths = [merged64(weight, factors, 0.5) for weight in weights]
    assert merge_(weights[0], factors, 0.5) == "fused-triton"
    packed = PackedFactors([type(factors)(*(factor.cpu() for factor in factors))], torch.device(DEVICE))
    assert [route.name for route in Group(weights[1:], packed).merge([0.5])] == ["grouped-triton"]
    for weight, truth in zip(weights, truths, strict=True):
        assert_merged(weight, truth)


def test_from_an_original_that_lies_otherwise_in_memory():
    for layout in ("conv", "channels last"):
        base = random_weight(3, 20, 30, layout, torch.float16, DEVICE)
        other = torch.channels_last if layout == "conv" else torch.contiguous_format
        out = torch.full_like(base, torch.nan, memory_format=other)
        factors = random_factors(3, 20, base[0].numel(), 5, 4, torch.float16, DEVICE)
        truth = merged64(base, factors, 0.5)
        assert merge(out, base, factors, 0.5) == ("cpu-blocked" if INTERPRETED else "grouped-torch")
        assert_merged(out, truth)
        packed = PackedFactors([type(factors)(*(factor.cpu() for factor in factors))], torch.device(DEVICE))
        Group([out.fill_(torch.nan)], packed, [base]).merge([0.5])
        assert_merged(out, truth)
    assert not _failed


@pytest.mark.parametrize("mixed", [False, True])
def test_a_group_packs_what_is_not_packed(mixed):
    weights = [random_weight(n, 40, 70, "contiguous", torch.float16, DEVICE) for n in range(2)]
    modules = [random_factors(n, 40, 70, 5, 3, torch.float16, DEVICE) for n in range(2)]
    if mixed:
        modules[1] = modules[1]._replace(w1_b=modules[1].w1_b.float())
    truths = [merged64(weight, module, 0.5) for weight, module in zip(weights, modules, strict=True)]
    taken = Group(weights, modules).merge([0.5] * 2)
    assert [route.name for route in taken] == ["grouped-triton"]
    for weight, truth in zip(weights, truths, strict=True):
        assert_merged(weight, truth)


@pytest.mark.skipif(not INTERPRETED, reason="takes 9 GB, which the host lends without using them")
def test_offsets_beyond_32_bits():
    """Rank 128 over 17 million columns, of which the views show 40."""
    def far(rank):
        return torch.empty((rank - 1) * 17_000_000 + 40, dtype=torch.float16).as_strided((rank, 40), (17_000_000, 1))

    factors = random_factors(0, 10, 40, 128, 128, torch.float16)
    apart = factors._replace(w1_b=far(128).copy_(factors.w1_b), w2_b=far(128).copy_(factors.w2_b))
    weight = random_weight(0, 10, 40, "contiguous", torch.float32)
    truth = merged64(weight, factors, 0.1)
    assert merge_(weight, apart, 0.1) == "fused-triton"
    assert_merged(weight, truth)
    grad = torch.randn(10, 40)
    for one, other in zip(gradients(grad, apart, 0.1), gradients(grad, factors, 0.1), strict=True):
        assert torch.equal(one, other)


def test_nothing_outside_a_view_is_written():
    whole = torch.full((40, 90), 7.0, dtype=torch.float16, device=DEVICE)
    view = whole[3:30, 5:80]
    factors = random_factors(0, 27, 75, 4, 4, torch.float16, DEVICE)
    truth = merged64(view, factors, 1.0)
    merge_(view, factors, 1.0)
    assert_merged(view, truth)
    view.fill_(7.0)
    assert bool((whole == 7.0).all())


def test_grouped_and_single_agree_bit_for_bit():
    weight = random_weight(0, 130, 200, "contiguous", torch.float16, DEVICE)
    factors = random_factors(0, 130, 200, 16, 16, torch.float16, DEVICE)
    single = weight.clone()
    merge_(single, factors, 0.3)
    Group([weight], PackedFactors([factors], torch.device(DEVICE))).merge([0.3])
    assert torch.equal(single, weight)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, out=extents, columns=extents, rank1=ranks, rank2=ranks, scale=scales, inner=st.integers(0, 20),
       flipped=st.booleans(), factor=st.sampled_from(FACTOR_DTYPES), half=st.booleans())
def test_gradients(seed, out, columns, rank1, rank2, scale, inner, flipped, factor, half):
    factors = random_factors(seed, out, columns, rank1, rank2, factor, DEVICE)
    draw = torch.Generator().manual_seed(seed)
    dtype = torch.float16 if half else torch.float32

    def normal(rows, cols):
        values = torch.randn(cols, rows, generator=draw).t() if flipped else torch.randn(rows, cols, generator=draw)
        return values.to(DEVICE, dtype)

    grad = (normal(out, inner), normal(inner, columns)) if inner else normal(out, columns)
    whole = grad[0].double() @ grad[1].double() if inner else grad
    leaves = [one.double().cpu().requires_grad_() for one in factors]
    a1, b1, a2, b2 = leaves
    truths = torch.autograd.grad((scale * (a1 @ b1) * (a2 @ b2) * whole.double().cpu()).sum(), leaves)
    found = gradients(grad, factors, scale)
    again = gradients(grad, factors, scale)
    allowed = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}[factor]
    for one, same, truth in zip(found, again, truths, strict=True):
        assert_close_by_norm(one, truth, allowed)
        assert torch.equal(one, same)
    assert not _failed


@pytest.mark.parametrize("rank", [16, 20, 32, 33, 64, 128])
def test_gradients_at_every_tile(rank):
    """At 17 to 32 Triton's code for sm_90 once read what was not there: seen on a GPU alone."""
    rows, columns = (70, 40) if INTERPRETED else (640, 1280)
    factors = random_factors(rank, rows, columns, rank, rank, torch.float32, DEVICE)
    grad = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rank)).to(DEVICE)
    leaves = [one.double().cpu().requires_grad_() for one in factors]
    a1, b1, a2, b2 = leaves
    truths = torch.autograd.grad((0.5 * (a1 @ b1) * (a2 @ b2) * grad.double().cpu()).sum(), leaves)
    for one, truth in zip(gradients(grad, factors, 0.5), truths, strict=True):
        assert_close_by_norm(one, truth, 1e-5)
    assert not _failed


def test_a_kernel_that_fails_is_left_for_the_next_path_and_not_tried_again(monkeypatch, caplog):
    """In-place weights get ΔW once: by whichever path ends up doing it."""
    from shinymas_loha.loha.kernels.merging import triton as triton_merge

    tried = []

    def refused(*args):
        tried.append(args)
        raise RuntimeError("the driver refuses\nfor a reason on a second line")

    monkeypatch.setattr(triton_merge, "Table", refused)
    monkeypatch.setattr(triton_merge, "merge_one", refused)
    weights = [random_weight(n, 20, 24, layout, torch.float32, DEVICE) for n, layout in enumerate(LAYOUTS[:4])]
    modules = [random_factors(n, *weight.shape, 3, 3, torch.float16) for n, weight in enumerate(weights)]
    truths = [merged64(weight, module, 0.5) for weight, module in zip(weights, modules, strict=True)]
    group = Group(weights, PackedFactors(modules, torch.device(DEVICE)))
    (route,) = group.merge([0.5] * 4)
    assert route.name == ("cpu-blocked" if INTERPRETED else "grouped-torch")
    assert "RuntimeError: the driver refuses" in route.why and "second line" not in route.why
    for weight, truth in zip(weights, truths, strict=True):
        assert_merged(weight, truth)
    group.merge([0.5] * 4)
    merge_(weights[0], modules[0].cast(torch.float32, DEVICE), 0.5)
    assert len(tried) == 2, "the table once, the single kernel once"
    assert caplog.text.count("is not tried again") == 2


def test_running_out_of_memory_in_a_kernel_is_no_failure_of_it(monkeypatch):
    from shinymas_loha.loha.kernels.merging import triton as triton_merge

    def full(*args):
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr(triton_merge, "merge_one", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        merge_(torch.zeros(8, 8, device=DEVICE), random_factors(0, 8, 8, 2, 2, torch.float16, DEVICE), 1.0)
    assert not _failed


def test_a_product_beyond_fp16_is_infinite_not_wrapped():
    factors = random_factors(0, 16, 16, 4, 4, torch.float32, DEVICE)
    weight = torch.zeros(16, 16, dtype=torch.float16, device=DEVICE)
    merge_(weight, factors, 1e9)
    truth = (1e9 * delta64(factors)).to(torch.float16)
    assert torch.equal(weight.cpu().isinf(), truth.isinf()) and bool(truth.isinf().any())
