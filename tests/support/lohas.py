"""Random LoHa modules of every layout, and SD 1.5's weights: what many tests start from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from shinymas_loha.loha.binding import Target
from shinymas_loha.loha.module import LohaModule
from torch import Tensor

_TABLE = Path(__file__).resolve().parent.parent / "data" / "sd15-modules.tsv"


@dataclass(frozen=True)
class Layout:
    """A weight's shape (out, in, *kernel) and how a module for it is stored."""

    shape: tuple[int, ...]
    tucker: bool = False
    ranks: tuple[int, int] = (4, 4)
    dora: int | None = None  # axis that keeps its length: 0 out, 1 in


# Small, with sizes that share no factor, so that a transposed or reshaped result cannot look right.
LAYOUTS = {
    "linear": Layout((23, 14)),
    "conv1x1": Layout((23, 14, 1, 1)),
    "conv3x3": Layout((11, 7, 3, 3)),
    "tucker": Layout((11, 7, 3, 3), tucker=True),
    "unequal ranks": Layout((23, 14), ranks=(5, 3)),
    "tucker, unequal ranks": Layout((11, 7, 3, 3), tucker=True, ranks=(3, 5)),
}
DORA_LAYOUTS = {
    "linear, dora out": Layout((23, 14), dora=0),
    "linear, dora in": Layout((23, 14), dora=1),
    "conv3x3, dora out": Layout((11, 7, 3, 3), dora=0),
    "conv3x3, dora in": Layout((11, 7, 3, 3), dora=1),
    "tucker, dora out": Layout((11, 7, 3, 3), tucker=True, dora=0),
}


def random_module(layout: Layout, *, name: str = "module", alpha: float | None = 2.0, seed: int = 0,
                  dtype: torch.dtype = torch.float32, size: float = 0.5) -> LohaModule:
    """A module with every factor N(0, size²), drawn in float64 and rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * size).to(dtype)

    out, inputs, *kernel = layout.shape
    factors, cores = [], []
    for rank in layout.ranks:
        if layout.tucker:
            factors += [draw(rank, out), draw(rank, inputs)]
            cores.append(draw(rank, rank, *kernel))
        else:
            factors += [draw(out, rank), draw(rank, inputs * torch.Size(kernel).numel())]
    dora = None
    if layout.dora is not None:
        sizes = [1] * len(layout.shape)
        sizes[layout.dora] = layout.shape[layout.dora]
        dora = (draw(*sizes).float().abs() + 0.5).to(dtype)
    return LohaModule(name, *factors, *(cores or (None, None)), alpha=alpha, dora_scale=dora)


def exact_delta(module: LohaModule, shape: tuple[int, ...]) -> Tensor:
    """ΔW in float64 as the definition has it, index by index."""
    w1_a, w1_b, w2_a, w2_b = (factor.double() for factor in (module.w1_a, module.w1_b, module.w2_a, module.w2_b))
    if module.t1 is None:
        first, second = torch.einsum("or,rc->oc", w1_a, w1_b), torch.einsum("or,rc->oc", w2_a, w2_b)
    else:
        form = "pqkl,qi,po->oikl"
        first = torch.einsum(form, module.t1.double(), w1_b, w1_a)
        second = torch.einsum(form, module.t2.double(), w2_b, w2_a)
    return (first * second).reshape(shape) * (1.0 if module.alpha is None else module.alpha / module.w1_b.shape[0])


def random_weight(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """A weight N(0, 1), seeded."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ulp(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance of neighbouring numbers of `dtype` around each of `exact`, in float64."""
    info = torch.finfo(dtype)
    return torch.exp2(torch.floor(torch.log2(exact.double().abs().clamp_min(info.tiny)))) * info.eps


def rounded_once(found: Tensor, exact: Tensor) -> bool:
    """Whether `found` is the float64 `exact`, reached in float32 arithmetic and rounded once to found's dtype."""
    arithmetic = 1e-6 * exact.abs().max()
    return bool(((found.double() - exact).abs() <= 0.5 * ulp(exact, found.dtype) + arithmetic).all())


@dataclass(frozen=True)
class Row:
    """A weight of SD 1.5 with two or more dimensions; `in_seed_set`: one of the 302 of the model page's files."""

    kohya_name: str
    weight: str
    kind: str
    shape: tuple[int, ...]
    in_seed_set: bool

    def target(self, dtype: torch.dtype = torch.float16) -> Target:
        return Target(self.weight, self.shape, dtype)


def sd15_rows() -> list[Row]:
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return [
            Row(row["kohya_name"], row["comfyui_weight"], row["kind"], tuple(map(int, row["shape"].split("x"))),
                row["in_seed_set"] == "1")
            for row in csv.DictReader(file, delimiter="\t")
        ]
