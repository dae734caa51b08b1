"""The gradients of many modules in three launches: what a training step of a whole network needs.

The formulas are those of `triton`: both sides of a module's problem, (G, A, B) and (Gᵀ, Bᵀ, Aᵀ), are summed
along rows by one kernel, each in a launch over the tiles of all modules. A program takes `SPAN` columns; the
partial sums of the programs of a row are added up in a fixed order by the third launch, which writes the results.

Import this module only where Triton is known to exist (`choose` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...factors import Factors
from ..merging.triton import TRITON_DTYPES, on_device, rank_product
from ..packing import padded_rank, staging
from .triton import PRECISION

# Columns of G that one program sums over: every width of SD 1.5 but 768 is a multiple of it.
SPAN = 320
_MODULE_COLUMNS = 6  # four pointers, two extents
_SLOT_COLUMNS = 4  # module, first program, row tiles, where its partial sums begin
_JOB_COLUMNS = 4  # where its partial sums begin, numbers, splits, pointer of the result
_SUMMED = 1024  # numbers that a program of the last launch adds up
_MOST_PLANS = 64


class Tile(NamedTuple):
    """Tile of G that a program takes at a time, the part of the rank multiplied at once, warps."""

    rows: int
    columns: int
    rank_step: int
    warps: int


def tile_for(pad: int) -> Tile:
    """Tile by padded rank, by ptxas' counts for sm_90 and sm_80: no spills."""
    return Tile(64, 32, 16, 4) if pad <= 32 else Tile(32, 32, 16, 8)


@triton.jit
def _left_gradients_of_many(
    modules, slots, grads, program_slot, scales, partials,
    MODULE_PITCH: tl.constexpr, SLOT_PITCH: tl.constexpr, GRAD: tl.constexpr, FACTOR: tl.constexpr,
    RANK: tl.constexpr, PAD: tl.constexpr, TRANSPOSED: tl.constexpr, ALIGNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):
    program = tl.program_id(0)
    slot = tl.load(program_slot + program)
    place = slots + slot.to(tl.int64) * SLOT_PITCH
    module = tl.load(place)
    local = program - tl.load(place + 1)
    row_tiles = tl.load(place + 2)
    offset = tl.load(place + 3)
    entry = modules + module * MODULE_PITCH
    w1_a = tl.multiple_of(tl.load(entry).to(tl.pointer_type(FACTOR)), 16)
    w1_b = tl.multiple_of(tl.load(entry + 1).to(tl.pointer_type(FACTOR)), 16)
    w2_a = tl.multiple_of(tl.load(entry + 2).to(tl.pointer_type(FACTOR)), 16)
    w2_b = tl.multiple_of(tl.load(entry + 3).to(tl.pointer_type(FACTOR)), 16)
    out_count = tl.load(entry + 4)
    in_count = tl.load(entry + 5)
    grad = tl.multiple_of(tl.load(grads + slot).to(tl.pointer_type(GRAD)), 16)
    scale = tl.load(scales + module)
    if ALIGNED:
        out_count = tl.multiple_of(out_count, 8)
        in_count = tl.multiple_of(in_count, 8)
    split = local // row_tiles
    rows = (local % row_tiles) * ROWS + tl.arange(0, ROWS)
    ranks = tl.arange(0, PAD).to(tl.int64)
    ranks_inside = (ranks < RANK)[None, :]
    if TRANSPOSED:
        row_count = in_count
        column_count = out_count
        a1 = w1_b
        a2 = w2_b
        b1 = w1_a
        b2 = w2_a
    else:
        row_count = out_count
        column_count = in_count
        a1 = w1_a
        a2 = w2_a
        b1 = w1_b
        b2 = w2_b
    row_inside = (rows < row_count)[:, None]
    sum1 = tl.zeros((ROWS, PAD), dtype=tl.float32)
    sum2 = tl.zeros((ROWS, PAD), dtype=tl.float32)
    for tile in range(TILES):
        columns = (split * TILES + tile) * COLUMNS + tl.arange(0, COLUMNS)
        column_inside = (columns < column_count)[:, None]
        inside = row_inside & (columns < column_count)[None, :]
        if TRANSPOSED:
            g = tl.load(grad + columns[None, :] * row_count + rows[:, None], mask=inside, other=0.0).to(tl.float32)
            product2 = rank_product(a2, b2, rows, columns, RANK, 1, row_count, 1, RANK, PAD, STEP, RANK == PAD,
                                    row_count, column_count, PRECISION)
            product1 = rank_product(a1, b1, rows, columns, RANK, 1, row_count, 1, RANK, PAD, STEP, RANK == PAD,
                                    row_count, column_count, PRECISION)
            right = columns[:, None] * RANK + ranks[None, :]
        else:
            g = tl.load(grad + rows[:, None] * column_count + columns[None, :], mask=inside, other=0.0).to(tl.float32)
            product2 = rank_product(a2, b2, rows, columns, RANK, RANK, 1, column_count, 1, PAD, STEP, RANK == PAD,
                                    row_count, column_count, PRECISION)
            product1 = rank_product(a1, b1, rows, columns, RANK, RANK, 1, column_count, 1, PAD, STEP, RANK == PAD,
                                    row_count, column_count, PRECISION)
            right = ranks[None, :] * column_count + columns[:, None]
        right1 = tl.load(b1 + right, mask=column_inside & ranks_inside, other=0.0).to(tl.float32)
        sum1 = tl.dot(g * product2, right1, sum1, input_precision=PRECISION)
        right2 = tl.load(b2 + right, mask=column_inside & ranks_inside, other=0.0).to(tl.float32)
        sum2 = tl.dot(g * product1, right2, sum2, input_precision=PRECISION)
    # As the factor lies: (out, rank) for a, (rank, in) for b. First all splits of one, then all of the other.
    size = row_count * RANK
    splits = (column_count + TILES * COLUMNS - 1) // (TILES * COLUMNS)
    to = partials + offset + split * size
    if TRANSPOSED:
        to += ranks[None, :] * row_count + rows[:, None]
    else:
        to += rows[:, None] * RANK + ranks[None, :]
    tl.store(to, sum1 * scale, mask=row_inside & ranks_inside)
    tl.store(to + splits * size, sum2 * scale, mask=row_inside & ranks_inside)


@triton.jit
def _add_up(jobs, program_job, program_start, partials, PITCH: tl.constexpr, MOST: tl.constexpr,
            COUNT: tl.constexpr, ADDS: tl.constexpr):
    program = tl.program_id(0)
    job = jobs + tl.load(program_job + program).to(tl.int64) * PITCH
    offset = tl.load(job)
    size = tl.load(job + 1)
    splits = tl.load(job + 2)
    out = tl.multiple_of(tl.load(job + 3).to(tl.pointer_type(tl.float32)), 16)
    numbers = tl.load(program_start + program) + tl.arange(0, COUNT)
    inside = numbers < size
    total = tl.zeros((COUNT,), dtype=tl.float32)
    for split in range(MOST):
        total += tl.load(partials + offset + split * size + numbers, mask=inside & (split < splits), other=0.0)
    if ADDS:
        total += tl.load(out + numbers, mask=inside, other=0.0)
    tl.store(out + numbers, total, mask=inside)


class _Side(NamedTuple):
    """One launch's share of a plan: of its programs, on the device."""

    slots: Tensor
    program_slot: Tensor


class _Plan(NamedTuple):
    """What is the same each time that the same modules' gradients are asked for together."""

    sides: tuple[_Side, _Side]
    jobs: Tensor
    program_job: Tensor
    program_start: Tensor
    most_splits: int
    partials: int  # numbers
    aligned: bool


class GroupedGradients:
    """The gradients of the factors of many modules, written to `results` without a host sync.

    Args:
        factors: of each module, float32, contiguous, on boundaries of 16 bytes on one CUDA device (or the CPU
            under Triton's interpreter), all of one rank, 1 to 128, for both products.
        scales: alpha / rank of each.

    Attributes:
        results: of each module, float32 tensors like its factors.

    The tables stay valid as long as no factor moves.
    """

    def __init__(self, factors: Sequence[Factors], scales: Sequence[float]) -> None:
        self._factors = list(factors)
        self._device = self._factors[0].w1_a.device
        self.rank = self._factors[0].rank1
        sizes = [-(-factor.numel() // 4) * 4 for module in self._factors for factor in module]
        whole = torch.empty(sum(sizes), dtype=torch.float32, device=self._device)
        views = iter(whole.split(sizes))
        self.results = [
            Factors(*(next(views)[: factor.numel()].view(factor.shape) for factor in module))
            for module in self._factors]
        self._modules = self._upload(
            [(*(factor.data_ptr() for factor in module), *module.shape) for module in self._factors])
        self._scales = torch.tensor(list(scales), dtype=torch.float32).to(self._device)
        self._tile = tile_for(padded_rank(self.rank))
        self._plans: dict[tuple[int, ...], _Plan] = {}

    def compute(self, modules: Sequence[int], grads: Sequence[Tensor], *, adds: bool = False) -> None:
        """Write the gradients of these modules, by their places in `factors`, to `results`.

        Args:
            grads: ∂L/∂ΔW of each, (out, in·kernel), contiguous, of one dtype (fp16, bf16 or fp32).
            adds: add to what `results` holds.
        """
        plan = self._plan(tuple(modules))
        pointers = staging(8 * len(grads), self._device).view(torch.int64)
        pointers.copy_(torch.tensor([grad.data_ptr() for grad in grads]))
        pointers = pointers.to(self._device, non_blocking=True)
        partials = torch.empty(plan.partials, dtype=torch.float32, device=self._device)
        tile = self._tile
        with on_device(partials):
            for transposed, side in enumerate(plan.sides):
                _left_gradients_of_many[(side.program_slot.numel(),)](
                    self._modules, side.slots, pointers, side.program_slot, self._scales, partials,
                    MODULE_PITCH=_MODULE_COLUMNS, SLOT_PITCH=_SLOT_COLUMNS, GRAD=TRITON_DTYPES[grads[0].dtype],
                    FACTOR=tl.float32, RANK=self.rank, PAD=padded_rank(self.rank), TRANSPOSED=bool(transposed),
                    ALIGNED=plan.aligned, ROWS=tile.rows, COLUMNS=tile.columns, TILES=SPAN // tile.columns,
                    STEP=tile.rank_step, PRECISION=PRECISION, num_warps=tile.warps, num_stages=1,
                )
            _add_up[(plan.program_job.numel(),)](
                plan.jobs, plan.program_job, plan.program_start, partials, PITCH=_JOB_COLUMNS,
                MOST=plan.most_splits, COUNT=_SUMMED, ADDS=adds)

    def _plan(self, modules: tuple[int, ...]) -> _Plan:
        if modules not in self._plans:
            if len(self._plans) >= _MOST_PLANS:  # dropout of modules makes a new one at every step
                self._plans.clear()
            self._plans[modules] = self._planned(modules)
        return self._plans[modules]

    def _planned(self, modules: tuple[int, ...]) -> _Plan:
        rank, offset = self.rank, 0
        sides: list[tuple[list, list]] = [([], []), ([], [])]
        jobs, job_programs, starts = [], [], []
        most = 1
        for module in modules:
            out, columns = self._factors[module].shape
            results = self.results[module]
            for (slots, counts), rows, summed, pair in (
                (sides[0], out, columns, (results.w1_a, results.w2_a)),
                (sides[1], columns, out, (results.w1_b, results.w2_b)),
            ):
                row_tiles, splits = triton.cdiv(rows, self._tile.rows), triton.cdiv(summed, SPAN)
                slots.append((module, sum(counts), row_tiles, offset))
                counts.append(row_tiles * splits)
                for result in pair:
                    programs = triton.cdiv(rows * rank, _SUMMED)
                    starts += range(0, programs * _SUMMED, _SUMMED)
                    job_programs.append(programs)
                    jobs.append((offset, rows * rank, splits, result.data_ptr()))
                    offset += splits * rows * rank
                most = max(most, splits)
        return _Plan(
            tuple(_Side(self._upload(slots), self._repeated(counts)) for slots, counts in sides),
            self._upload(jobs), self._repeated(job_programs), torch.tensor(starts).to(self._device),
            triton.next_power_of_2(most), offset,
            all(extent % 8 == 0 for module in modules for extent in self._factors[module].shape))

    def _upload(self, rows: list[tuple[int, ...]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64).to(self._device)

    def _repeated(self, counts: list[int]) -> Tensor:
        """Each place in `counts`, as often as it says: int32."""
        places = torch.arange(len(counts), dtype=torch.int32)
        return places.repeat_interleave(torch.tensor(counts)).to(self._device)
