"""The merge in plain torch for CUDA without Triton: few launches, because there the host is what takes the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision


class _Limits(NamedTuple):
    """How many float32 numbers are held at a time."""

    products: int
    factors: int


# CUDA: 128 MB of products, what core takes for SD 1.5's largest weight alone, and 32 MB of factors. Half of the
# products needs half as many launches again. A CPU: a quarter, which its caches would have smaller still.
_LIMITS = {"cuda": _Limits(1 << 25, 1 << 23)}
_LIMITS_ELSEWHERE = _Limits(1 << 23, 1 << 21)
_FEW = 2  # halves: more weights than these are joined, in two launches, instead of one each


class Stack:
    """Merges of one device, weight dtype, factor dtype and pair of ranks, planned once for many times.

    Args:
        outs, bases: as `merge` takes them; their shapes and strides are kept, they are not.
        factors: their flat factors on that device, of one dtype; kept.

    Weights of one shape share a batched product. Weights of all shapes share what makes operands of their factors,
    and, as many as fit into a chunk, what writes the sums. A weight larger than a chunk is taken in rows.
    """

    def __init__(self, outs: Sequence[Tensor], bases: Sequence[Tensor], factors: Sequence[Factors]) -> None:
        limits = _LIMITS.get(outs[0].device.type, _LIMITS_ELSEWHERE)
        dense = [out.is_contiguous() and base.is_contiguous() for out, base in zip(outs, bases, strict=True)]
        order = sorted(range(len(outs)), key=lambda index: (outs[index].shape, dense[index]))
        planned = _planned(order, outs, dense, factors, limits)
        self._batches = [(chunks, _Operands([run for chunk in chunks for run in chunk], factors))
                         for chunks in planned]
        self._numbers = max(sum(run.numbers for run in chunk) for chunks, _ in self._batches for chunk in chunks)

    @full_precision()
    def merge(self, outs: Sequence[Tensor], bases: Sequence[Tensor], scales: Sequence[float]) -> None:
        """`out = base + scale·ΔW`, one rounding, no host sync.

        Args:
            outs, bases: each (out, in, *kernel), float16, bfloat16 or float32, any strides; a base is its `out`, or
                does not overlap it.
            scales: alpha / rank · strength of each.

        Temporaries on CUDA: at most 128 MB of products, 32 MB of factors and, for halves, 32 MB of sums; less for
        fewer weights, more only where one row of a weight or one module's factors are more. On a CPU a quarter, and
        what torch takes there to promote halves.
        """
        memory = torch.empty(self._numbers, device=outs[0].device)
        for chunks, batch in self._batches:
            operands = batch.made(scales)
            for runs in chunks:
                _merge_chunk(runs, operands, outs, bases, memory)
            del operands  # before the next ones are there, not after


@dataclass(frozen=True)
class _Run:
    """Modules (their places in the stack) whose weights have one shape: all their rows, or some of one module's."""

    modules: list[int]
    shape: torch.Size  # of each weight's part that is merged here
    dense: bool  # whether weights and bases are contiguous
    rows: slice | None = None

    @property
    def numbers(self) -> int:
        """Of both products of all modules."""
        return 2 * len(self.modules) * self.shape.numel()

    def of(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """This run's part of them."""
        found = [weights[index] for index in self.modules]
        return found if self.rows is None else [weight[self.rows] for weight in found]

    def each(self, joined: Tensor) -> tuple[Tensor, ...]:
        """A tensor of all weights' numbers as a view for each of them."""
        return joined.view(-1, *self.shape).unbind()


@dataclass
class _Side:
    """`*_a` and `*_b` of every run one after the other, rows of each `*_a`, and how many each run has."""

    lefts: list[Tensor] = field(default_factory=list)
    rights: list[Tensor] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class _Operands:
    """Float32 operands of the batched products of these runs, made of their modules' factors."""

    def __init__(self, runs: list[_Run], factors: Sequence[Factors]) -> None:
        same = factors[runs[0].modules[0]].rank1 == factors[runs[0].modules[0]].rank2
        self._shapes = [(run.shape[0], run.shape[1:].numel()) for run in runs]
        # Of equal rank both products of a run are one batch.
        self._sides = [_Side()] if same else [_Side(), _Side()]
        # Where each w1_a is among the first side's, and its module in the stack.
        self._scaled: list[tuple[int, int]] = []
        for run in runs:
            mine, rows = [factors[index] for index in run.modules], run.rows or slice(None)
            ones = [(one.w1_a[rows], one.w1_b) for one in mine]
            twos = [(one.w2_a[rows], one.w2_b) for one in mine]
            self._scaled += enumerate(run.modules, len(self._sides[0].lefts))
            for side, pairs in zip(self._sides, [ones + twos] if same else [ones, twos], strict=True):
                side.lefts += [left for left, _ in pairs]
                side.rights += [right for _, right in pairs]
                side.heights += [len(left) for left, _ in pairs]
                side.counts.append(len(pairs))

    def made(self, scales: Sequence[float]) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """For each run the batches (n, out, rank) and (n, rank, in·kernel) whose products are, one batch after the
        other, the first ones of all its modules, scaled, and then the second ones."""
        found = []
        for number, side in enumerate(self._sides):
            # Along the rank's other axis, so that one launch joins factors of all shapes.
            left, right = torch.cat(side.lefts).float(), torch.cat(side.rights, 1).float()
            if not number:  # on the small factor: one pass over the products less
                parts = left.split(side.heights)
                torch._foreach_mul_([parts[place] for place, _ in self._scaled],
                                    [float(scales[index]) for _, index in self._scaled])
            sizes = [(count, *shape) for count, shape in zip(side.counts, self._shapes, strict=True)]
            lefts = left.split([count * rows for count, rows, _ in sizes])
            rights = right.split([count * columns for count, _, columns in sizes], 1)
            found.append([
                (lefts[place].view(count, rows, -1), rights[place].view(-1, count, columns).transpose(0, 1))
                for place, (count, rows, columns) in enumerate(sizes)
            ])
        return map(list, zip(*found, strict=True))


def _merge_chunk(runs: list[_Run], operands: Iterator[list[tuple[Tensor, Tensor]]], outs: Sequence[Tensor],
                 bases: Sequence[Tensor], memory: Tensor) -> None:
    """Merge these runs with the operands that come next; their products lie side by side in `memory`."""
    written, sources, ones, twos = [], [], [], []
    for run, products in zip(runs, memory.split_with_sizes(_sizes(runs, memory)), strict=False):
        one, two = _multiplied(next(operands), products).view(2, -1, *run.shape[1:])
        targets = run.of(outs)
        # Of a part each call makes another tensor: the copy below has to see that they are the same.
        starts = targets if all(outs[index] is bases[index] for index in run.modules) else run.of(bases)
        half = targets[0].dtype is not torch.float32
        if not run.dense or (half and len(targets) <= _FEW):
            for target, start, *both in zip(targets, starts, run.each(one), run.each(two), strict=True):
                torch.addcmul(start, *both, out=target)  # halves are promoted inside the kernel
            continue
        written += targets
        if half:
            # No launch adds several float32 products to several halves; joined they are one tensor.
            sources += run.each(torch.cat(starts).addcmul_(one, two))
        else:
            sources += starts
            ones += run.each(one)
            twos += run.each(two)
    if any(target is not source for target, source in zip(written, sources, strict=True)):
        torch._foreach_copy_(written, sources)
    if ones:
        torch._foreach_addcmul_(written, ones, twos)


def _sizes(runs: list[_Run], memory: Tensor) -> list[int]:
    """Numbers of each run, and of what is left of the memory."""
    sizes = [run.numbers for run in runs]
    return [*sizes, memory.numel() - sum(sizes)]


def _multiplied(batches: list[tuple[Tensor, Tensor]], products: Tensor) -> Tensor:
    start = 0
    for left, right in batches:
        shape = torch.Size((len(left), left.shape[1], right.shape[2]))
        torch.bmm(left, right, out=products[start : start + shape.numel()].view(shape))
        start += shape.numel()
    return products


def _planned(order: Sequence[int], weights: Sequence[Tensor], dense: Sequence[bool], factors: Sequence[Factors],
             limits: _Limits) -> Iterator[list[list[_Run]]]:
    """Batches of chunks of runs: of each batch the factors, of each chunk the products stay within the limits."""
    chunks: list[list[_Run]] = []
    products = held = 0
    for index in order:
        shape, ranks = weights[index].shape, factors[index].rank1 + factors[index].rank2
        columns = shape[1:].numel()
        step = max(1, min(shape[0], limits.products // 2 // columns))
        for start in range(0, shape[0], step):
            rows = min(step, shape[0] - start)
            more, operands = 2 * rows * columns, ranks * (rows + columns)
            if chunks and held + operands > limits.factors:
                yield chunks
                chunks, held = [], 0
            if not chunks or products + more > limits.products:
                chunks.append([])
                products = 0
            held, products = held + operands, products + more
            part, runs = torch.Size((rows, *shape[1:])), chunks[-1]
            if rows < shape[0]:
                runs.append(_Run([index], part, dense[index], slice(start, start + rows)))
            elif runs and (runs[-1].shape, runs[-1].dense, runs[-1].rows) == (part, dense[index], None):
                runs[-1].modules.append(index)
            else:
                runs.append(_Run([index], part, dense[index]))
    yield chunks
