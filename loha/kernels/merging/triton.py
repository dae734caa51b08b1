"""The merge `out = base + s·(A1·B1)∘(A2·B2)` as Triton kernels: one weight, or a file in one launch.

Import this module only where Triton is known to exist (`choose` does): the decorators need it.

Each program owns one tile of the weight. It asks for the tile first, so that memory works while
the two rank products are made in registers, and rounds once, when it stores. Per element of an
fp16 weight four bytes cross device memory; the factors (a few percent of that) come from L2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...factors import Factors
from ..layout import is_aligned, matrix_layout
from ..packing import padded_rank

TRITON_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
# Columns of the table: six pointers, two extents, strides of base, out, b1, b2, first tile, tiles across.
TABLE_COLUMNS = 14


class Tile(NamedTuple):
    """Tile of the weight that one program makes, the part of the rank it multiplies at once, its warps."""

    rows: int
    columns: int
    rank_step: int
    warps: int


def tile_for(factor_dtype: torch.dtype, pad: int) -> Tile:
    """Tile by factor dtype and padded rank.

    Halves: the fastest of 13 on an H200 over the page's 302 weights (bench/RESULTS.md), 14 % ahead of
    64 × 128 with 8 warps: small programs, many of them on a multiprocessor, hide memory's latency.
    fp32 factors go through plain FMAs (tensor cores would round them to tf32), whose operands
    take registers: narrower tiles, and the rank in steps.
    """
    if factor_dtype is torch.float32:
        return Tile(32, 64, 16, 4)
    return Tile(32, 128, min(pad, 64), 4)


@triton.jit
def rank_product(
    a, b, rows, columns, rank, a_row, a_rank, b_rank, b_column,
    PAD: tl.constexpr, STEP: tl.constexpr, EVEN: tl.constexpr, row_count, column_count,
    PRECISION: tl.constexpr,
):
    """fp32 tile of A·B at the given row and column indices; indices beyond the counts give zero.

    EVEN says that the rank fills PAD, or that zeros do: no mask on it. PRECISION matters to fp32
    factors only; halves multiply exactly on tensor cores and add up in fp32.
    """
    row_inside = (rows < row_count)[:, None]
    column_inside = (columns < column_count)[None, :]
    product = tl.zeros((rows.shape[0], columns.shape[0]), dtype=tl.float32)
    for start in tl.static_range(0, PAD, STEP):
        # 64 bits: rank · stride passes 2^31 from 16.9 million columns on.
        ranks = start + tl.arange(0, STEP).to(tl.int64)
        a_mask = row_inside
        b_mask = column_inside
        if not EVEN:
            a_mask = a_mask & (ranks < rank)[None, :]
            b_mask = b_mask & (ranks < rank)[:, None]
        a_tile = tl.load(a + rows[:, None] * a_row + ranks[None, :] * a_rank, mask=a_mask, other=0.0)
        b_tile = tl.load(b + ranks[:, None] * b_rank + columns[None, :] * b_column, mask=b_mask, other=0.0)
        product = tl.dot(a_tile, b_tile, product, input_precision=PRECISION)
    return product


@triton.jit
def _merge_one(
    base, out, a1, b1, a2, b2, scale, row_count, column_count, tiles_across, rank1, rank2,
    base_row, base_column, base_tap, out_row, out_column, out_tap,
    a1_row, a1_rank, b1_rank, b1_column, a2_row, a2_rank, b2_rank, b2_column,
    KERNEL: tl.constexpr, PAD1: tl.constexpr, PAD2: tl.constexpr, EVEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP1: tl.constexpr, STEP2: tl.constexpr,
):
    tile = tl.program_id(0).to(tl.int64)
    rows = (tile // tiles_across) * ROWS + tl.arange(0, ROWS)
    columns = (tile % tiles_across) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    if KERNEL == 1:
        base_offsets = rows[:, None] * base_row + columns[None, :] * base_column
        out_offsets = rows[:, None] * out_row + columns[None, :] * out_column
    else:
        channel = (columns // KERNEL)[None, :]
        tap = (columns % KERNEL)[None, :]
        base_offsets = rows[:, None] * base_row + channel * base_column + tap * base_tap
        out_offsets = rows[:, None] * out_row + channel * out_column + tap * out_tap
    weight = tl.load(base + base_offsets, mask=inside, other=0.0)
    product1 = rank_product(
        a1, b1, rows, columns, rank1, a1_row, a1_rank, b1_rank, b1_column,
        PAD1, STEP1, EVEN, row_count, column_count, "ieee",
    )
    product2 = rank_product(
        a2, b2, rows, columns, rank2, a2_row, a2_rank, b2_rank, b2_column,
        PAD2, STEP2, EVEN, row_count, column_count, "ieee",
    )
    merged = weight.to(tl.float32) + product1 * product2 * scale
    tl.store(out + out_offsets, merged.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _merge_table(
    table, tile_module, scales, PITCH: tl.constexpr, BASE: tl.constexpr, WEIGHT: tl.constexpr, FACTOR: tl.constexpr,
    RANK1: tl.constexpr, RANK2: tl.constexpr, PAD1: tl.constexpr, PAD2: tl.constexpr,
    PACKED: tl.constexpr, ALIGNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP1: tl.constexpr, STEP2: tl.constexpr,
):
    tile = tl.program_id(0)
    module = tl.load(tile_module + tile)
    entry = table + module.to(tl.int64) * PITCH
    a1 = tl.multiple_of(tl.load(entry).to(tl.pointer_type(FACTOR)), 16)
    b1 = tl.multiple_of(tl.load(entry + 1).to(tl.pointer_type(FACTOR)), 16)
    a2 = tl.multiple_of(tl.load(entry + 2).to(tl.pointer_type(FACTOR)), 16)
    b2 = tl.multiple_of(tl.load(entry + 3).to(tl.pointer_type(FACTOR)), 16)
    base = tl.load(entry + 4).to(tl.pointer_type(BASE))
    out = tl.load(entry + 5).to(tl.pointer_type(WEIGHT))
    row_count = tl.load(entry + 6)
    column_count = tl.load(entry + 7)
    base_row = tl.load(entry + 8)
    out_row = tl.load(entry + 9)
    b1_rank = tl.load(entry + 10)
    b2_rank = tl.load(entry + 11)
    if PACKED or ALIGNED:
        # Packed factors keep every row on a boundary of 16 bytes (packing.py); others where weights' rows do.
        b1_rank = tl.multiple_of(b1_rank, 8)
        b2_rank = tl.multiple_of(b2_rank, 8)
    if ALIGNED:
        # What a pointer argument would tell the compiler by itself; without it loads are not vectors.
        base = tl.multiple_of(base, 16)
        out = tl.multiple_of(out, 16)
        column_count = tl.multiple_of(column_count, 8)
        base_row = tl.multiple_of(base_row, 8)
        out_row = tl.multiple_of(out_row, 8)
    tile -= tl.load(entry + 12)
    tiles_across = tl.load(entry + 13)
    rows = (tile // tiles_across) * ROWS + tl.arange(0, ROWS)
    columns = (tile % tiles_across) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    weight = tl.load(base + rows[:, None] * base_row + columns[None, :], mask=inside, other=0.0)
    scale = tl.load(scales + module)
    product1 = rank_product(
        a1, b1, rows, columns, RANK1, RANK1, 1, b1_rank, 1, PAD1, STEP1, RANK1 == PAD1, row_count, column_count, "ieee",
    )
    product2 = rank_product(
        a2, b2, rows, columns, RANK2, RANK2, 1, b2_rank, 1, PAD2, STEP2, RANK2 == PAD2, row_count, column_count, "ieee",
    )
    merged = weight.to(tl.float32) + product1 * product2 * scale
    tl.store(out + rows[:, None] * out_row + columns[None, :], merged.to(WEIGHT), mask=inside)


def merge_one(out: Tensor, base: Tensor, factors: Factors, scale: float) -> None:
    """Write `base + scale·ΔW` to `out`; they may be the same tensor, but not overlap otherwise.

    Args:
        out, base: (out, in, *kernel), fp16, bf16 or fp32, same shape and dtype, any strides that
            `matrix_layout` describes with one kernel size for both, on one CUDA device (or the CPU
            under Triton's interpreter).
        factors: flat factors on that device, of one dtype (fp16, bf16 or fp32), ranks 1 to 128.
        scale: alpha / rank · strength.
    """
    rows, columns = factors.shape
    to, source = matrix_layout(out), matrix_layout(base)
    pad1, pad2 = padded_rank(factors.rank1), padded_rank(factors.rank2)
    tile1, tile2 = (tile_for(factors.dtype, pad) for pad in (pad1, pad2))
    tiles_across = triton.cdiv(columns, tile1.columns)
    grid = (triton.cdiv(rows, tile1.rows) * tiles_across,)
    with on_device(out):
        _merge_one[grid](
            base, out, *factors, float(scale), rows, columns, tiles_across, factors.rank1, factors.rank2,
            source.row, source.column, source.tap, to.row, to.column, to.tap,
            *factors.w1_a.stride(), *factors.w1_b.stride(), *factors.w2_a.stride(), *factors.w2_b.stride(),
            KERNEL=to.kernel, PAD1=pad1, PAD2=pad2, EVEN=(pad1, pad2) == (factors.rank1, factors.rank2),
            ROWS=tile1.rows, COLUMNS=tile1.columns, STEP1=tile1.rank_step, STEP2=tile2.rank_step,
            num_warps=tile1.warps,
        )


class Table:
    """Device-resident description of many merges of one kind, launched together.

    Args:
        outs, bases: per module, fp16, bf16 or fp32, outs of one dtype and bases of one, on one device,
            columns contiguous (`matrix_layout(...)` with column 1 and kernel 1), of any row stride.
        factors: per module, of one dtype: as `PackedFactors` lays them out, the ranks' padding (the
            same in all modules) filled with zeros, rows on boundaries of 16 bytes.
        packed: false for factors that lie each by itself, contiguous, on a boundary of 16 bytes, all
            of the same two ranks.
        tile: another than `tile_for` chooses, for both products, to measure it.

    The tables stay valid as long as no tensor moves; `Group` watches over that.
    """

    def __init__(
        self, outs: list[Tensor], bases: list[Tensor], factors: list[Factors], tile: Tile | None = None, *,
        packed: bool = True,
    ) -> None:
        first = factors[0]
        self._dtypes, self._packed = (bases[0].dtype, outs[0].dtype, first.dtype), packed
        self._pads = padded_rank(first.rank1), padded_rank(first.rank2)
        self._ranks = self._pads if packed else (first.rank1, first.rank2)
        self._tiles = (tile, tile) if tile else tuple(tile_for(first.dtype, pad) for pad in self._pads)
        self._aligned = all(is_aligned(weight) for weight in (*outs, *bases))
        tile = self._tiles[0]
        entries, counts, total = [], [], 0
        for out, base, module in zip(outs, bases, factors, strict=True):
            rows, columns = module.shape
            across = triton.cdiv(columns, tile.columns)
            entries.append((
                *(factor.data_ptr() for factor in module), base.data_ptr(), out.data_ptr(), rows, columns,
                matrix_layout(base).row, matrix_layout(out).row, module.w1_b.stride(0), module.w2_b.stride(0),
                total, across,
            ))
            counts.append(triton.cdiv(rows, tile.rows) * across)
            total += counts[-1]
        self._device = outs[0].device
        self._tile_count = total
        self._table = torch.tensor(entries, dtype=torch.int64).to(self._device)
        # A tile finds its module by one load; a search through the offsets would be nine in a row.
        modules = torch.arange(len(counts), dtype=torch.int32)
        self._tile_module = modules.repeat_interleave(torch.tensor(counts)).to(self._device)

    def merge(self, scales: Tensor) -> None:
        """One launch: every module's `out = base + scale·ΔW`; `scales` fp32 (modules,) on the device."""
        tile1, tile2 = self._tiles
        base, weight, factor = (TRITON_DTYPES[dtype] for dtype in self._dtypes)
        with on_device(scales):
            _merge_table[(self._tile_count,)](
                self._table, self._tile_module, scales, PITCH=TABLE_COLUMNS, BASE=base, WEIGHT=weight, FACTOR=factor,
                RANK1=self._ranks[0], RANK2=self._ranks[1], PAD1=self._pads[0], PAD2=self._pads[1],
                PACKED=self._packed, ALIGNED=self._aligned,
                ROWS=tile1.rows, COLUMNS=tile1.columns, STEP1=tile1.rank_step, STEP2=tile2.rank_step,
                num_warps=tile1.warps,
            )


def on_device(tensor: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; a negative index makes this a no-op (CPU, interpreter)."""
    return torch.cuda.device(tensor.device.index if tensor.is_cuda else -1)
