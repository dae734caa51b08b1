"""The merge on a CPU: row blocks small enough for the cache, written once."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision
from .workspace import Workspace

# Elements a block. Measured on two Zen 3 cores over the page's 302 shapes: below 2^19 the matrix
# product's start-up shows, above it the buffers leave the cache; 2^19 makes 4 MB of them for a
# float32 weight and 6 MB for a half. Whole-weight temporaries, as core has them, cost three times
# the time, most of it in the page faults of allocating them afresh for each weight.
_BLOCK = 1 << 19
_ALIGN = 64  # elements: whole cache lines, whatever the dtype


@full_precision()
def merge(out: Tensor, base: Tensor, factors: Factors, scale: float, workspace: Workspace | None = None) -> None:
    """`out = base + scale·ΔW`, rounded once; temporaries of at most 6 MB (float64: 8 MB) and the factors' size.

    Args:
        out, base: (out, in, *kernel) on the CPU, of one dtype (float16, bfloat16, float32 or float64), any
            strides; the same tensor, or two that do not overlap.
        factors: flat factors on the CPU.
        scale: alpha / rank · strength.
        workspace: where the temporaries lie, for the next weight too; None takes them for this one alone.

    Torch's own threads share each block; threads of ours over blocks were no faster.
    """
    dtype = torch.float64 if out.dtype is torch.float64 else torch.float32
    rank, (rows, columns) = max(factors.rank1, factors.rank2), factors.shape
    step = min(rows, max(1, _BLOCK // columns))
    block = step * columns
    parts = [2 * rows * rank, 2 * rank * columns, 2 * block, 0 if out.dtype is dtype else block]
    with (workspace or Workspace()).lend(sum(map(_aligned, parts)) * dtype.itemsize) as memory:
        left, right, products, sums = _divided(memory.view(dtype), parts)
        left, right = factors.stacked(dtype, (left.view(2, rows, rank), right.view(2, rank, columns)))
        left[0] *= scale  # on the small factor: one pass over the weight less
        for start in range(0, rows, step):
            _merge_rows(out[start:start + step], base[start:start + step], left[:, start:start + step], right,
                        products, sums)


def _merge_rows(target: Tensor, source: Tensor, left: Tensor, right: Tensor, products: Tensor, sums: Tensor) -> None:
    both = products[: 2 * target.numel()].view(2, -1, right.shape[2])
    # Both in one call: threads meet half as often, which on a busy machine is what takes the time.
    torch.bmm(left, right, out=both)
    product1, product2 = both.view(2, *target.shape)
    if not sums.numel():
        torch.addcmul(source, product1, product2, out=target)
    else:
        total = sums[: target.numel()].view(target.shape).copy_(source)
        target.copy_(total.addcmul_(product1, product2))


def _divided(memory: Tensor, parts: list[int]) -> list[Tensor]:
    starts = accumulate(map(_aligned, parts), initial=0)
    return [memory[start:start + part] for start, part in zip(starts, parts, strict=False)]


def _aligned(elements: int) -> int:
    return -(-elements // _ALIGN) * _ALIGN
