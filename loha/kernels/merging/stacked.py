"""The merge in plain torch for CUDA without Triton: few launches, because there the host is what takes the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision

# float32 numbers held at a time, products and factors together. CUDA: 128 MB, what core takes for SD 1.5's largest
# weight alone; a quarter of it needs three times the launches. A CPU: 32 MB.
_NUMBERS = {"cuda": 1 << 25}
_NUMBERS_ELSEWHERE = 1 << 23
_FEW = 2  # halves: more weights than these are joined, in two launches, instead of one each


class Stack:
    """Merges of one device, weight dtype, factor dtype and pair of ranks, planned once for many times.

    Args:
        outs, bases: as `merge` takes them; their shapes and strides are kept, they are not.
        factors: their flat factors on that device, of one dtype; kept.

    Weights of one shape share a batched product; weights of all shapes that fit into a chunk share what comes
    before and after it. A weight larger than a chunk is taken in rows.
    """

    def __init__(self, outs: Sequence[Tensor], bases: Sequence[Tensor], factors: Sequence[Factors]) -> None:
        numbers = _NUMBERS.get(outs[0].device.type, _NUMBERS_ELSEWHERE)
        dense = [out.is_contiguous() and base.is_contiguous() for out, base in zip(outs, bases, strict=True)]
        order = sorted(range(len(outs)), key=lambda index: (outs[index].shape, dense[index]))
        self._chunks = [_Chunk.of(runs, factors) for runs in _planned(order, outs, dense, factors, numbers)]

    @full_precision()
    def merge(self, outs: Sequence[Tensor], bases: Sequence[Tensor], scales: Sequence[float]) -> None:
        """`out = base + scale·ΔW`, one rounding, no host sync.

        Args:
            outs, bases: each (out, in, *kernel), float16, bfloat16 or float32, any strides; a base is its `out`, or
                does not overlap it.
            scales: alpha / rank · strength of each.

        Temporaries on CUDA: 128 MB, for halves up to 32 MB more for sums and as much again while factors are
        converted; on a CPU a quarter. One weight takes no more than its two products and its factors in float32.
        """
        memory = torch.empty(max(chunk.numbers for chunk in self._chunks), device=outs[0].device)
        for chunk in self._chunks:
            chunk.merge(outs, bases, scales, memory)


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


@dataclass
class _Side:
    """Operands of batched products: `*_a` and `*_b` of every run one after the other, and how many of each run."""

    lefts: list[Tensor] = field(default_factory=list)
    rights: list[Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self.lefts += [left for left, _ in pairs]
        self.rights += [right for _, right in pairs]
        self.counts.append(len(pairs))


@dataclass(frozen=True)
class _Chunk:
    """Runs whose products are held at the same time."""

    runs: list[_Run]
    sides: list[_Side]  # one for both products where the ranks are equal
    scaled: list[tuple[int, int]]  # place of each w1_a among the first side's, and its module's in the stack

    @classmethod
    def of(cls, runs: list[_Run], factors: Sequence[Factors]) -> _Chunk:
        same = factors[runs[0].modules[0]].rank1 == factors[runs[0].modules[0]].rank2
        sides, scaled = [_Side()] if same else [_Side(), _Side()], []
        for run in runs:
            mine, rows = [factors[index] for index in run.modules], run.rows or slice(None)
            ones = [(one.w1_a[rows], one.w1_b) for one in mine]
            twos = [(one.w2_a[rows], one.w2_b) for one in mine]
            scaled += enumerate(run.modules, len(sides[0].lefts))
            for side, pairs in zip(sides, [ones + twos] if same else [ones, twos], strict=True):
                side.add(pairs)
        return cls(runs, sides, scaled)

    @property
    def numbers(self) -> int:
        """Of all products."""
        return sum(run.numbers for run in self.runs)

    def merge(self, outs: Sequence[Tensor], bases: Sequence[Tensor], scales: Sequence[float], memory: Tensor) -> None:
        written, sources, ones, twos = [], [], [], []
        for run, products in zip(self.runs, self._products(scales, memory), strict=True):
            targets = run.of(outs)
            # Of a part each call makes another tensor: the copy below has to see that they are the same.
            starts = targets if all(outs[index] is bases[index] for index in run.modules) else run.of(bases)
            one, two = products.view(2, len(targets) * run.shape[0], *run.shape[1:])
            half = targets[0].dtype is not torch.float32
            if not run.dense or (half and len(targets) <= _FEW):
                for target, start, *both in zip(targets, starts, _each(one, run), _each(two, run), strict=True):
                    torch.addcmul(start, *both, out=target)  # halves are promoted inside the kernel
                continue
            written += targets
            if half:
                # Several tensors of two dtypes have no common launch; joined they are one tensor.
                sources += _each(torch.cat(starts).addcmul_(one, two), run)
            else:
                sources += starts
                ones += _each(one, run)
                twos += _each(two, run)
        if any(target is not source for target, source in zip(written, sources, strict=True)):
            torch._foreach_copy_(written, sources)
        if ones:
            torch._foreach_addcmul_(written, ones, twos)

    def _products(self, scales: Sequence[float], memory: Tensor) -> list[Tensor]:
        """Parts of `memory` with each run's products: the first ones of all its modules, then the second ones."""
        found = list(memory[: self.numbers].split([run.numbers for run in self.runs]))
        filled = [0] * len(found)
        for number, side in enumerate(self.sides):
            # Along the rank's other axis, whatever the shapes: one launch for all of a chunk's factors.
            left, right = torch.cat(side.lefts).float(), torch.cat(side.rights, 1).float()
            if not number:  # on the small factor: one pass over the products less
                parts = left.split([len(factor) for factor in side.lefts])
                torch._foreach_mul_([parts[place] for place, _ in self.scaled],
                                    [float(scales[index]) for _, index in self.scaled])
            sizes = [(count, run.shape[0], run.shape[1:].numel())
                     for count, run in zip(side.counts, self.runs, strict=True)]
            lefts = left.split([count * rows for count, rows, _ in sizes])
            rights = right.split([count * columns for count, _, columns in sizes], 1)
            for place, (count, rows, columns) in enumerate(sizes):
                start, filled[place] = filled[place], filled[place] + count * rows * columns
                torch.bmm(lefts[place].view(count, rows, -1),
                          rights[place].view(-1, count, columns).transpose(0, 1),
                          out=found[place][start : filled[place]].view(count, rows, columns))
        return found


def _planned(order: Sequence[int], weights: Sequence[Tensor], dense: Sequence[bool], factors: Sequence[Factors],
             numbers: int) -> Iterator[list[_Run]]:
    """Each chunk's runs, of at most `numbers` products and factors where a single row allows that."""
    runs: list[_Run] = []
    held = 0
    for index in order:
        shape, ranks = weights[index].shape, factors[index].rank1 + factors[index].rank2
        columns = shape[1:].numel()
        step = max(1, min(shape[0], numbers // 2 // columns))
        for start in range(0, shape[0], step):
            rows = min(step, shape[0] - start)
            size = 2 * rows * columns + ranks * (rows + columns)
            if runs and held + size > numbers:
                yield runs
                runs, held = [], 0
            held += size
            part = torch.Size((rows, *shape[1:]))
            if rows < shape[0]:
                runs.append(_Run([index], part, dense[index], slice(start, start + rows)))
            elif runs and (runs[-1].shape, runs[-1].dense, runs[-1].rows) == (part, dense[index], None):
                runs[-1].modules.append(index)
            else:
                runs.append(_Run([index], part, dense[index]))
    yield runs


def _each(joined: Tensor, run: _Run) -> tuple[Tensor, ...]:
    return joined.view(-1, *run.shape).unbind()
