"""The merge in plain torch for CUDA without Triton: weights of one shape stacked, few launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...factors import Factors
from ...precision import full_precision

# Elements of each of the two products held at a time: 2 × 16 MB, which a large GPU's L2 cache keeps.
_CHUNK = 1 << 22


@full_precision()
def merge_stack_(weights: Sequence[Tensor], factors: Sequence[Factors], scales: Sequence[float]) -> None:
    """`weight += scale·ΔW` for weights of one shape; temporaries of about 32 MB, no host sync.

    Args:
        weights: each (out, in, *kernel), one shape, dtype (float16, bfloat16, float32) and device.
        factors: their flat factors on that device, of one dtype, equal ranks among the modules.
        scales: alpha / rank · strength of each.

    Two batched products make P1 and P2 for as many modules as fit; one pass over each weight adds
    their product in float32 and rounds once. A weight larger than a chunk is taken in rows.
    """
    rows, columns = factors[0].shape
    together = max(1, _CHUNK // (rows * columns))
    step = max(1, min(rows, _CHUNK // columns))
    for start in range(0, len(weights), together):
        part = slice(start, start + together)
        stacks = [torch.stack(same).float() for same in zip(*factors[part], strict=True)]
        for row in range(0, rows, step):
            _merge_rows(
                [weight[row : row + step] for weight in weights[part]], stacks, scales[part], slice(row, row + step),
            )


def _merge_rows(targets: list[Tensor], stacks: list[Tensor], scales: Sequence[float], rows: slice) -> None:
    a1, b1, a2, b2 = stacks
    product1 = torch.bmm(a1[:, rows], b1).view(len(targets), *targets[0].shape)
    product2 = torch.bmm(a2[:, rows], b2).view(len(targets), *targets[0].shape)
    # One launch for all where the dtypes agree; else one a weight, which promotes and rounds once.
    torch._foreach_addcmul_(targets, list(product1), list(product2), [float(scale) for scale in scales])
