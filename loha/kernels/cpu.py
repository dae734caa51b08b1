"""The merge on a CPU: row blocks small enough for the cache, written once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import full_precision
from .factors import Factors

# Elements a block. Measured on two Zen 3 cores over the page's 302 shapes: below 2^19 the matrix
# product's start-up shows, above 2^21 the buffers leave the cache; 2^20 makes 8 MB of them for a
# float32 weight and 12 MB for a half. Whole-weight temporaries, as core has them, cost three times
# the time, most of it in the page faults of allocating them afresh for each weight.
_BLOCK = 1 << 20


@full_precision()
def merge(out: Tensor, base: Tensor, factors: Factors, scale: float) -> None:
    """`out = base + scale·ΔW`, rounded once; temporaries of at most 12 MB (float64: 16 MB).

    Args:
        out, base: (out, in, *kernel) on the CPU, of one dtype (float16, bfloat16, float32 or float64), any
            strides; the same tensor, or two that do not overlap.
        factors: flat factors on the CPU.
        scale: alpha / rank · strength.

    Torch's own threads share each block; threads of ours over blocks were no faster.
    """
    dtype = torch.float64 if out.dtype is torch.float64 else torch.float32
    a1, b1, a2, b2 = (factor.to(dtype) for factor in factors)
    a1 = a1 * scale  # on the small factor: one pass over the block less
    rows, columns = factors.shape
    step = min(rows, max(1, _BLOCK // columns))
    buffers = [torch.empty(step * columns, dtype=dtype) for _ in range(2 if out.dtype is dtype else 3)]
    for start in range(0, rows, step):
        source, target = base[start : start + step], out[start : start + step]
        block = slice(start, start + target.shape[0])
        product1, product2, *sums = (
            buffer[: target.numel()].view(-1, columns) for buffer in buffers
        )
        torch.mm(a1[block], b1, out=product1)
        torch.mm(a2[block], b2, out=product2)
        product1, product2 = product1.view(target.shape), product2.view(target.shape)
        if sums:
            total = sums[0].view(target.shape).copy_(source)
            target.copy_(total.addcmul_(product1, product2))
        else:
            torch.addcmul(source, product1, product2, out=target)
