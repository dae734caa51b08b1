"""One pass over every kernel, on shapes that fill no tile: small enough to be run under `compute-sanitizer`.

A script: `python tests/cuda/one_pass.py`. Ends with 0 where every result agrees with float64. On a CPU it runs with
TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: E402, F401  # loads the pack
from shinymas_loha.loha.kernels import Group, PackedFactors, gradients, merge_  # noqa: E402
from shinymas_loha.tests.unit.kernels_helpers import (  # noqa: E402
    LAYOUTS,
    assert_merged,
    merged64,
    random_factors,
    random_weight,
    relative_error,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    done = []
    for route in ("fused-triton", "grouped-torch"):
        os.environ["SHINYMAS_LOHA_ROUTE"] = route
        for layout in LAYOUTS:
            for rank in (3, 40):
                weight = random_weight(0, 67, 37, layout, torch.float16, DEVICE)
                factors = random_factors(0, 67, weight[0].numel(), rank, 16, torch.float16, DEVICE)
                truth = merged64(weight, factors, 0.5)
                taken = merge_(weight, factors, 0.5)
                assert taken == route, f"{taken} instead of {route}"
                assert_merged(weight.cpu(), truth)
                done.append(route)
    for route in ("grouped-triton", "grouped-torch"):
        os.environ["SHINYMAS_LOHA_ROUTE"] = route
        for columns in (64, 75):  # rows on boundaries of 16 bytes, and not
            bases = [random_weight(n, 40 + n, columns, "contiguous", torch.float16, DEVICE) for n in range(3)]
            modules = [random_factors(n, 40 + n, columns, 5, 9, torch.float16) for n in range(3)]
            outs = [torch.full_like(base, torch.nan) for base in bases]
            taken = Group(outs, PackedFactors(modules, torch.device(DEVICE)), bases).merge([0.5] * 3)
            assert {one.name for one in taken} == {route}, taken
            for out, base, factors in zip(outs, bases, modules, strict=True):
                assert_merged(out.cpu(), merged64(base, factors, 0.5))
            done.append(route)
    os.environ["SHINYMAS_LOHA_ROUTE"] = "fused-triton"
    for rank in (5, 20, 40):  # one for each tile
        factors = random_factors(0, 67, 91, rank, rank, torch.float32, DEVICE)
        grad = torch.randn(67, 91, device=DEVICE)
        few = torch.randn(67, 3, device=DEVICE), torch.randn(3, 91, device=DEVICE)
        for given in (grad, grad.t().contiguous().t(), few):
            _check_gradients(given, factors)
            done.append("gradient")
        _check_together(rank)
        done.append("gradients together")
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    counts = ", ".join(f"{name} × {done.count(name)}" for name in dict.fromkeys(done))
    print(f"one pass on {DEVICE}: {counts}, all as float64 has them")


def _check_together(rank: int) -> None:
    from shinymas_loha.loha.kernels.gradient.many_modules import GroupedGradients

    for shapes in (((64, 344), (40, 24)), ((67, 91), (21, 330))):
        modules = [random_factors(n, *shape, rank, rank, torch.float32, DEVICE) for n, shape in enumerate(shapes)]
        grads = [torch.randn(shape, device=DEVICE).half() for shape in shapes]
        together = GroupedGradients(modules, [0.5, 0.5])
        together.compute([0, 1], grads)
        for results, grad, factors in zip(together.results, grads, modules, strict=True):
            _assert_gradients(results, grad, factors)


def _check_gradients(grad, factors) -> None:
    _assert_gradients(gradients(grad, factors, 0.5), grad, factors)


def _assert_gradients(found, grad, factors) -> None:
    whole = grad if isinstance(grad, torch.Tensor) else grad[0] @ grad[1]
    leaves = [factor.double().cpu().requires_grad_() for factor in factors]
    a1, b1, a2, b2 = leaves
    truths = torch.autograd.grad((0.5 * (a1 @ b1) * (a2 @ b2) * whole.double().cpu()).sum(), leaves)
    for one, truth in zip(found, truths, strict=True):
        assert relative_error(one, truth) <= 1e-5


if __name__ == "__main__":
    main()
