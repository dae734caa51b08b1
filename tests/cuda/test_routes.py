"""Every route of a GPU against float64: dtypes, ranks 1 to 128, layouts, edges, Tucker, the page's whole set."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from shinymas_loha.loha import product
from shinymas_loha.loha.kernels import Factors, Group, PackedFactors, gradients, merge_
from shinymas_loha.loha.module import LohaModule
from shinymas_loha.tests.unit.kernels_helpers import (
    LAYOUTS,
    WEIGHT_DTYPES,
    assert_close_by_norm,
    assert_merged,
    merged64,
    random_factors,
    random_weight,
    relative_error,
)

CUDA = torch.device("cuda")
SINGLE = ("fused-triton", "grouped-torch", "reference")
TABLE = Path(__file__).resolve().parents[1] / "data" / "sd15-modules.tsv"


@pytest.fixture
def force(monkeypatch):
    return lambda route: monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", route)


@pytest.mark.parametrize("route", SINGLE)
@pytest.mark.parametrize("rank", [1, 16, 33, 128])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_ranks_and_dtypes(force, route, rank, dtype):
    force(route)
    for factor_dtype in {torch.float16, torch.float32, dtype}:
        weight = random_weight(rank, 321, 200, "contiguous", dtype, "cuda")
        factors = random_factors(rank, 321, 200, rank, rank, factor_dtype, "cuda")
        truth = merged64(weight, factors, 0.25)
        assert merge_(weight, factors, 0.25) == route
        assert_merged(weight.cpu(), truth)


@pytest.mark.parametrize("route", SINGLE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (65, 129), (320, 960)])
def test_layouts_and_edges(force, route, layout, shape):
    force(route)
    weight = random_weight(5, *shape, layout, torch.float16, "cuda")
    factors = random_factors(5, shape[0], weight[0].numel(), 16, 7, torch.float16, "cuda")
    truth = merged64(weight, factors, -1.3)
    assert merge_(weight, factors, -1.3) == route
    assert_merged(weight.cpu(), truth)


@pytest.mark.parametrize("route", ["grouped-triton", "grouped-torch", "reference"])
@pytest.mark.parametrize("rank", [1, 16, 33, 128])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_groups_from_kept_originals(force, route, rank, dtype):
    force(route)
    shapes = [(320, 320), (64, 1280), (31, 45), (320, 320)]
    bases = [random_weight(n, *shape, "contiguous", dtype, "cuda") for n, shape in enumerate(shapes)]
    modules = [random_factors(n, *shape, rank, rank, torch.float16) for n, shape in enumerate(shapes)]
    outs = [torch.full_like(base, torch.nan) for base in bases]
    group = Group(outs, PackedFactors(modules, CUDA), bases)
    scales = [0.5, -0.25, 1.0, 0.0]
    taken = group.merge(scales)
    assert {one.name for one in taken} == {route}
    for out, *given in zip(outs, bases, modules, scales, strict=True):
        assert_merged(out.cpu(), merged64(*given))
    first = [out.clone() for out in outs]
    group.merge([2.0] * 4)
    group.merge(scales)
    assert all(map(torch.equal, outs, first))


@pytest.mark.parametrize("route", SINGLE)
@pytest.mark.parametrize("rank", [4, 16])
def test_tucker(force, route, rank):
    force(route)
    draw = torch.Generator().manual_seed(rank)

    def normal(*shape):
        return torch.randn(shape, generator=draw) * 0.4

    module = LohaModule("m", normal(rank, 96), normal(rank, 40), normal(rank, 96), normal(rank, 40),
                        t1=normal(rank, rank, 3, 3), t2=normal(rank, rank, 3, 3), alpha=1.0)
    sides = [torch.einsum("pqhw,po,qi->oihw", *(one.double() for one in side))
             for side in ((module.t1, module.w1_a, module.w1_b), (module.t2, module.w2_a, module.w2_b))]
    weight = random_weight(0, 96, 40, "contiguous", torch.float16)[:, :, None, None].expand(96, 40, 3, 3).contiguous()
    truth = weight.double() + module.scale * sides[0] * sides[1]
    merged = weight.cuda()
    flat = Factors(*product.flat_factors(module))
    assert merge_(merged, Factors(*(factor.cuda() for factor in flat)), module.scale) == route
    assert_merged(merged.cpu(), truth)


def _page_shapes() -> list[tuple[int, int]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["in_seed_set"] == "1"]
    sizes = [tuple(map(int, row["shape"].split("x"))) for row in rows]
    return [(out, torch.Size(rest).numel()) for out, *rest in sizes]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_page_s_302_modules_in_one_launch(dtype):
    shapes = _page_shapes()
    assert len(shapes) == 302
    bases = [random_weight(n, *shape, "contiguous", dtype, "cuda") * 0.02 for n, shape in enumerate(shapes)]
    modules = [random_factors(n, *shape, 16, 16, torch.float16) for n, shape in enumerate(shapes)]
    packed = PackedFactors(modules, CUDA)
    outs = [torch.empty_like(base) for base in bases]
    group = Group(outs, packed, bases)
    assert {route.name: count for route, count in group.merge([0.0625] * 302).items()} == {"grouped-triton": 302}
    for out, base, factors in zip(outs, bases, packed, strict=True):
        a1, b1, a2, b2 = (factor.double() for factor in factors)
        truth = base.double() + 0.0625 * (a1 @ b1) * (a2 @ b2)
        assert_merged(out.cpu(), truth.cpu())


@pytest.mark.parametrize("rank", [1, 16, 64, 128])
@pytest.mark.parametrize("shape", [(1280, 5120), (320, 2880), (2560, 1280), (37, 211)])
def test_gradients_to_float32_s_accuracy(rank, shape):
    """Three tf32 products for one: nothing of tf32's 1e-3 may be left."""
    factors = random_factors(rank, *shape, rank, rank, torch.float32, "cuda")
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(rank)).cuda()
    leaves = [factor.double().requires_grad_() for factor in factors]
    a1, b1, a2, b2 = leaves
    truths = torch.autograd.grad((0.5 * (a1 @ b1) * (a2 @ b2) * grad.double()).sum(), leaves)
    found, again = gradients(grad, factors, 0.5), gradients(grad, factors, 0.5)
    for one, same, truth in zip(found, again, truths, strict=True):
        assert torch.equal(one, same)
        assert relative_error(one, truth.cpu()) <= 1e-5
    operands = grad[:, :8].contiguous(), grad[:8, :].contiguous()
    whole = operands[0].double() @ operands[1].double()
    truths = torch.autograd.grad((0.5 * (a1 @ b1) * (a2 @ b2) * whole).sum(), leaves)
    for one, truth in zip(gradients(operands, factors, 0.5), truths, strict=True):
        assert relative_error(one, truth.cpu()) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_halves_in_blocks_agree_with_the_kernel(force, dtype):
    factors = random_factors(3, 640, 1280, 16, 16, torch.float32, "cuda")
    grad = torch.randn((640, 1280), generator=torch.Generator().manual_seed(3)).to(CUDA, dtype)
    with_triton = gradients(grad, factors, 0.5)
    force("grouped-torch")
    for one, other in zip(with_triton, gradients(grad, factors, 0.5), strict=True):
        assert_close_by_norm(one, other.double().cpu(), 1e-5)
