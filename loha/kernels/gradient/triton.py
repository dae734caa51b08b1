"""The merge's gradient as one Triton kernel, run twice.

With P1 = A1·B1, P2 = A2·B2 and G = ∂L/∂ΔW: `∂A1 = s·(G∘P2)·B1ᵀ`, `∂A2 = s·(G∘P1)·B2ᵀ`, and
`∂B1ᵀ = s·(G∘P2)ᵀ·A1`, which is the first formula for the transposed problem (G, A, B → Gᵀ, Bᵀ, Aᵀ).
So one kernel that sums along rows gives all four: G is read twice, P1 and P2 live in registers only.
Sums are split among programs by shape alone and added up in a fixed order: the same bits every time.

Import this module only where Triton is known to exist (`choose` does).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...factors import Factors
from ..merging.triton import on_device, rank_product
from ..packing import padded_rank

# Programs wanted a launch: some two for each multiprocessor of a large GPU.
_PROGRAMS = 264
# Three tf32 products for each fp32 one: fp32's accuracy on tensor cores. Plain FMAs, which "ieee"
# means, spill registers at any tile worth having: four products of them a tile.
PRECISION = "tf32x3"


class Tile(NamedTuple):
    """Tile of G that a program takes at a time, the part of the rank multiplied at once, and how it runs."""

    rows: int
    columns: int
    rank_step: int
    warps: int
    stages: int


def tile_for(pad1: int, pad2: int) -> Tile:
    """Tile by padded ranks, by ptxas' counts for sm_90 and sm_80: no spills; 128 registers at rank 16.

    64 rows take four warps, not eight: with eight, Triton 3.6 makes code for sm_90 that reads past its
    shared memory, seen on an H200 as wrong sums and illegal addresses.
    """
    return Tile(64, 32, 16, 4, 2) if max(pad1, pad2) <= 16 else Tile(32, 32, 16, 8, 1)


@triton.jit
def _left_gradients(
    grad, left, right, a1, b1, a2, b2, out1, out2, scale, row_count, column_count, inner, rank1, rank2,
    grad_row, grad_column, left_row, left_inner, right_inner, right_column,
    a1_row, a1_rank, b1_rank, b1_column, a2_row, a2_rank, b2_rank, b2_column,
    row_tiles, TILES: tl.constexpr, OPERANDS: tl.constexpr, PAD_INNER: tl.constexpr,
    PAD1: tl.constexpr, PAD2: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    split = program // row_tiles
    rows = (program % row_tiles) * ROWS + tl.arange(0, ROWS)
    row_inside = (rows < row_count)[:, None]
    ranks1 = tl.arange(0, PAD1).to(tl.int64)
    ranks2 = tl.arange(0, PAD2).to(tl.int64)
    sum1 = tl.zeros((ROWS, PAD1), dtype=tl.float32)
    sum2 = tl.zeros((ROWS, PAD2), dtype=tl.float32)
    # A constant bound: Triton's interpreter takes no other under NumPy 2.4, and shapes are few.
    for tile in range(TILES):
        columns = (split * TILES + tile) * COLUMNS + tl.arange(0, COLUMNS)
        inside = row_inside & (columns < column_count)[None, :]
        if OPERANDS:
            g = rank_product(
                left, right, rows, columns, inner, left_row, left_inner, right_inner, right_column,
                PAD_INNER, STEP, False, row_count, column_count, PRECISION,
            )
        else:
            offsets = rows[:, None] * grad_row + columns[None, :] * grad_column
            g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        product2 = rank_product(
            a2, b2, rows, columns, rank2, a2_row, a2_rank, b2_rank, b2_column,
            PAD2, STEP, False, row_count, column_count, PRECISION,
        )
        right1 = tl.load(
            b1 + columns[:, None] * b1_column + ranks1[None, :] * b1_rank,
            mask=(columns < column_count)[:, None] & (ranks1 < rank1)[None, :], other=0.0,
        )
        sum1 = tl.dot(g * product2, right1.to(tl.float32), sum1, input_precision=PRECISION)
        product1 = rank_product(
            a1, b1, rows, columns, rank1, a1_row, a1_rank, b1_rank, b1_column,
            PAD1, STEP, False, row_count, column_count, PRECISION,
        )
        right2 = tl.load(
            b2 + columns[:, None] * b2_column + ranks2[None, :] * b2_rank,
            mask=(columns < column_count)[:, None] & (ranks2 < rank2)[None, :], other=0.0,
        )
        sum2 = tl.dot(g * product1, right2.to(tl.float32), sum2, input_precision=PRECISION)
    place = split * row_count + rows
    tl.store(
        out1 + place[:, None] * rank1 + ranks1[None, :], sum1 * scale,
        mask=row_inside & (ranks1 < rank1)[None, :],
    )
    tl.store(
        out2 + place[:, None] * rank2 + ranks2[None, :], sum2 * scale,
        mask=row_inside & (ranks2 < rank2)[None, :],
    )


def gradients(grad: Tensor | tuple[Tensor, Tensor], factors: Factors, scale: float) -> Factors:
    """The four factors' gradients, float32; arguments as in `gradient.gradients`, on one CUDA device."""
    grad_a1, grad_a2 = _left(grad, factors, scale)
    flipped = grad.t() if isinstance(grad, Tensor) else (grad[1].t(), grad[0].t())
    transposed = Factors(factors.w1_b.t(), factors.w1_a.t(), factors.w2_b.t(), factors.w2_a.t())
    grad_b1, grad_b2 = _left(flipped, transposed, scale)
    return Factors(grad_a1, grad_b1.t(), grad_a2, grad_b2.t())


def _left(grad: Tensor | tuple[Tensor, Tensor], factors: Factors, scale: float) -> tuple[Tensor, Tensor]:
    """Gradients of a1 (out, r1) and a2 (out, r2)."""
    rows, columns = factors.shape
    rank1, rank2 = factors.rank1, factors.rank2
    pad1, pad2 = padded_rank(rank1), padded_rank(rank2)
    whole = isinstance(grad, Tensor)
    left, right = (grad, grad) if whole else grad
    inner = 1 if whole else left.shape[1]
    tile = tile_for(pad1, pad2)
    row_tiles = triton.cdiv(rows, tile.rows)
    column_tiles = triton.cdiv(columns, tile.columns)
    # More splits fill the GPU, but their partial sums must stay well below the weight's own size.
    splits = max(1, min(triton.cdiv(_PROGRAMS, row_tiles), column_tiles, columns // (4 * (rank1 + rank2))))
    # A power of two: each count of tiles is a kernel to compile, which takes seconds.
    each = triton.next_power_of_2(triton.cdiv(column_tiles, splits))
    splits = triton.cdiv(column_tiles, each)
    partial1, partial2 = (
        torch.empty(splits, rows, rank, dtype=torch.float32, device=left.device) for rank in (rank1, rank2)
    )
    with on_device(left):
        _left_gradients[(row_tiles * splits,)](
            left, left, right, *factors, partial1, partial2, float(scale), rows, columns, inner, rank1, rank2,
            *left.stride(), *left.stride(), *right.stride(),
            *(stride for factor in factors for stride in factor.stride()), row_tiles,
            TILES=each, OPERANDS=not whole, PAD_INNER=padded_rank(inner), PAD1=pad1, PAD2=pad2,
            ROWS=tile.rows, COLUMNS=tile.columns, STEP=tile.rank_step, PRECISION=PRECISION,
            num_warps=tile.warps, num_stages=tile.stages,
        )
    return partial1.sum(0), partial2.sum(0)
