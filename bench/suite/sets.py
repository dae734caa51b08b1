"""SD 1.5's module sets with seeded weights and factors, and the contenders' adapters for them."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.session import ROOT

_TABLE = ROOT / "tests" / "data" / "sd15-modules.tsv"
RANK, ALPHA = 16, 1.0  # the model page's files
SETS = {"264": "attention and MLP", "302": "linear and 1×1, as in the model page's files", "354": "with 3×3"}


@dataclass(frozen=True)
class Module:
    """One weight of SD 1.5: kohya's name, ComfyUI's, shape (out, in, *kernel)."""

    name: str
    weight: str
    shape: torch.Size

    @property
    def columns(self) -> int:
        return self.shape[1:].numel()


def modules(which: str, quick: bool) -> list[Module]:
    """The modules of the set of this size (a key of SETS); with `quick` every eighth of them."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if which != "354":
        rows = [row for row in rows if row["in_seed_set"] == "1"]
    if which == "264":
        rows = [row for row in rows if row["kohya_name"].startswith("lora_te") or "_attentions_" in row["kohya_name"]]
    assert len(rows) == int(which), f"{len(rows)} modules in the set of {which}"
    found = [Module(row["kohya_name"], row["comfyui_weight"], torch.Size(map(int, row["shape"].split("x"))))
             for row in rows]
    return found[::8] if quick else found


def label(which: str, quick: bool) -> str:
    """How many modules of which set `modules` returns."""
    return f"{len(modules(which, quick))} of {which} modules" if quick else f"{which} modules"


def weights(chosen: list[Module], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """A weight N(0, 0.02²) for each module, in memory of its own as in a model."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(module.shape.numel() for module in chosen), generator=generator) * 0.02
    return [noise[: module.shape.numel()].view(module.shape).to(device, dtype, copy=True) for module in chosen]


def factors(chosen: list[Module], dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """w1_a (out, rank), w1_b (rank, in·kernel), w2_a, w2_b of each module, N(0, 0.35²), on the CPU."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(0, 0.35, generator=generator).to(dtype)

    return [(draw(module.shape[0], RANK), draw(RANK, module.columns), draw(module.shape[0], RANK),
             draw(RANK, module.columns)) for module in chosen]


def bytes_to_merge(chosen: list[Module], dtype: torch.dtype, factor_dtype: torch.dtype) -> int:
    """What merging must move at least: each weight read and written, each factor read."""
    return sum(
        2 * module.shape.numel() * dtype.itemsize
        + 2 * RANK * (module.shape[0] + module.columns) * factor_dtype.itemsize
        for module in chosen
    )


def bytes_to_differentiate(chosen: list[Module], dtype: torch.dtype) -> int:
    """What the factors' gradients must move at least: ∂L/∂ΔW read, each factor read and its gradient written."""
    return sum(
        (module.shape.numel() + 4 * RANK * (module.shape[0] + module.columns)) * dtype.itemsize for module in chosen
    )
