"""The merge on a CPU: row blocks small enough for the cache, written once."""

from __future__ import annotations

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision

# Elements a block. Measured on two Zen 3 cores over the page's 302 shapes: below 2^19 the matrix
# product's start-up shows, above it the buffers leave the cache; 2^19 makes 4 MB of them for a
# float32 weight and 6 MB for a half. Whole-weight temporaries, as core has them, cost three times
# the time, most of it in the page faults of allocating them afresh for each weight.
_BLOCK = 1 << 19


@full_precision()
def merge(out: Tensor, base: Tensor, factors: Factors, scale: float) -> None:
    """`out = base + scale·ΔW`, rounded once; temporaries of at most 6 MB (float64: 8 MB) and the factors' size.

    Args:
        out, base: (out, in, *kernel) on the CPU, of one dtype (float16, bfloat16, float32 or float64), any
            strides; the same tensor, or two that do not overlap.
        factors: flat factors on the CPU.
        scale: alpha / rank · strength.

    Torch's own threads share each block; threads of ours over blocks were no faster.
    """
    dtype = torch.float64 if out.dtype is torch.float64 else torch.float32
    left, right = factors.stacked(dtype)
    left[0] *= scale  # on the small factor: one pass over the weight less
    rows, columns = factors.shape
    step = min(rows, max(1, _BLOCK // columns))
    products = torch.empty(2 * step * columns, dtype=dtype)
    sums = None if out.dtype is dtype else torch.empty(step * columns, dtype=dtype)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        source, target = base[block], out[block]
        both = products[: 2 * target.numel()].view(2, -1, columns)
        # Both in one call: threads meet half as often, which on a busy machine is what takes the time.
        torch.bmm(left[:, block], right, out=both)
        product1, product2 = both.view(2, *target.shape)
        if sums is None:
            torch.addcmul(source, product1, product2, out=target)
        else:
            total = sums[: target.numel()].view(target.shape).copy_(source)
            target.copy_(total.addcmul_(product1, product2))
