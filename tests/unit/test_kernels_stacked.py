"""The merge in plain torch: chunks of any size against float64, and how few operations a file takes."""

from collections import Counter

import pytest
import torch
from shinymas_loha.loha.kernels import Group, PackedFactors
from shinymas_loha.loha.kernels.merging import stacked
from shinymas_loha.tests.unit.kernels_helpers import (
    LAYOUTS,
    WEIGHT_DTYPES,
    assert_merged,
    merged64,
    random_factors,
    random_weight,
)
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
SHAPES = [(40, 24), (24, 40), (40, 24), (7, 300), (40, 24), (1, 500), (40, 24), (300, 9)]
# Start no kernel, or none of their own: views, and memory as it is.
VIEWS = {"view", "_unsafe_view", "slice", "split", "split_with_sizes", "unbind", "transpose", "empty", "detach"}


class Counted(TorchDispatchMode):
    """Counts torch's operations, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.operations[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _stacked(monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", "grouped-torch")


@pytest.mark.parametrize("limits", [(1, 1), (900, 1 << 20), (5_000, 1_000), (1 << 20, 1 << 20)],
                         ids=["a row", "less than a weight", "some", "all"])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("ranks", [(4, 4), (3, 20)])
@pytest.mark.parametrize("kept", ["none", "some", "all"])
def test_chunks_of_any_size(monkeypatch, limits, dtype, ranks, kept):
    monkeypatch.setattr(stacked, "_LIMITS_ELSEWHERE", stacked._Limits(*limits))
    layouts = [LAYOUTS[place * 5 // 2 % len(LAYOUTS)] for place in range(2 * len(SHAPES))]
    bases = [random_weight(place, *shape, layout, dtype)
             for place, (shape, layout) in enumerate(zip(2 * SHAPES, layouts, strict=True))]
    bases += [random_weight(place, 40, 24, "contiguous", dtype) for place in range(4)]
    factors = [random_factors(place, base.shape[0], base[0].numel(), *ranks, torch.float16)
               for place, base in enumerate(bases)]
    scales = [0.3 * place - 1.0 for place in range(len(bases))]
    truths = [merged64(*each) for each in zip(bases, factors, scales, strict=True)]
    every = {"none": 0, "some": 2, "all": 1}[kept]
    outs = [torch.full_like(base, torch.nan) if every and place % every == 0 else base
            for place, base in enumerate(bases)]
    given = PackedFactors(factors, CPU)
    taken = Group(outs, given, bases).merge(scales)
    assert {route.name: count for route, count in taken.items()} == {"grouped-torch": len(bases)}
    for out, truth in zip(outs, truths, strict=True):
        assert_merged(out, truth)
    assert all(torch.equal(one, other) for kept_, first in zip(given, factors, strict=True)
               for one, other in zip(kept_, first, strict=True))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 12), (torch.float32, 9)])
def test_forty_weights_of_two_shapes_take_few_operations(dtype, most):
    """Two products, what makes their operands of the factors, and what adds them: none a weight."""
    shapes = [(32, 48), (48, 16)] * 20
    outs = [random_weight(place, *shape, "contiguous", dtype) for place, shape in enumerate(shapes)]
    factors = [random_factors(place, *shape, 8, 8, torch.float16) for place, shape in enumerate(shapes)]
    group = Group(outs, PackedFactors(factors, CPU))
    group.merge([0.0] * len(outs))  # plans
    truths = [merged64(out, module, 0.5) for out, module in zip(outs, factors, strict=True)]
    with Counted() as counted:
        group.merge([0.5] * len(outs))
    assert counted.operations.total() <= most, counted.operations
    for out, truth in zip(outs, truths, strict=True):
        assert_merged(out, truth)


def test_a_chunk_holds_what_it_may_and_no_more(monkeypatch):
    monkeypatch.setattr(stacked, "_LIMITS_ELSEWHERE", stacked._Limits(10_000, 1 << 20))
    held = []
    empty = torch.empty
    monkeypatch.setattr(stacked.torch, "empty", lambda size, **rest: held.append(size) or empty(size, **rest))
    outs = [torch.zeros(shape) for shape in 3 * SHAPES]
    factors = [random_factors(place, *out.shape, 4, 4, torch.float16) for place, out in enumerate(outs)]
    Group(outs, factors).merge([1.0] * len(outs))
    assert len(held) == 1 and 5_000 < held[0] <= 10_000
