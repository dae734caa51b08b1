"""The four flat factors of a Hadamard product, the one form that the algebra and the kernels work on."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

_MULTIPLIED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Factors(NamedTuple):
    """`ΔW = (w1_a·w1_b)∘(w2_a·w2_b)`: `*_a` (out, rank), `*_b` (rank, in·kernel); ranks may differ."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in·kernel)."""
        return self.w1_a.shape[0], self.w1_b.shape[1]

    @property
    def rank1(self) -> int:
        return self.w1_b.shape[0]

    @property
    def rank2(self) -> int:
        return self.w2_b.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.w1_a.dtype

    def check(self) -> None:
        """Raise ValueError unless the four are matrices that fit one another."""
        sizes = [tuple(factor.shape) for factor in self]
        fits = all(len(size) == 2 for size in sizes) and (
            sizes[0][1] == sizes[1][0] and sizes[2][1] == sizes[3][0]
            and sizes[0][0] == sizes[2][0] and sizes[1][1] == sizes[3][1]
        )
        if not fits:
            raise ValueError(
                f"factors of shapes {sizes}; expected (out, r1), (r1, in), (out, r2), (r2, in)"
            )

    @property
    def common_dtype(self) -> torch.dtype:
        """The one that holds all four: fp16 for fp8, fp32 for a mixture of halves."""
        dtypes = (factor.dtype if factor.dtype in _MULTIPLIED else torch.float16 for factor in self)
        return reduce(torch.promote_types, dtypes)

    def uniform(self) -> Factors:
        """The same in their common dtype."""
        dtype = self.w1_a.dtype
        if dtype in _MULTIPLIED and all(factor.dtype is dtype for factor in self):
            return self
        return self.cast(self.common_dtype)

    def cast(self, dtype: torch.dtype, device: torch.device | None = None) -> Factors:
        """The same in `dtype`, on `device` where one is given; a copy to a GPU does not wait."""
        return Factors(*(factor.to(device=device, dtype=dtype, non_blocking=True) for factor in self))

    def stacked(self, dtype: torch.dtype, into: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Both `*_a` as (2, out, rank) and both `*_b` as (2, rank, in·kernel); a smaller rank ends in zeros.

        Args:
            into: tensors of these shapes and `dtype` to write to; what they held does not matter.
        """
        rank, (rows, columns) = max(self.rank1, self.rank2), self.shape
        left, right = into or (
            torch.empty(2, *shape, dtype=dtype, device=self.w1_a.device) for shape in ((rows, rank), (rank, columns))
        )
        for place, (a, b) in enumerate(((self.w1_a, self.w1_b), (self.w2_a, self.w2_b))):
            if b.shape[0] == rank:  # no need of parts and zeros: half the calls, which on small weights is what counts
                left[place] = a
                right[place] = b
                continue
            left[place, :, : b.shape[0]] = a
            left[place, :, b.shape[0] :] = 0
            right[place, : b.shape[0]] = b
            right[place, b.shape[0] :] = 0
        return left, right


def through_core(core: Tensor, b: Tensor) -> Tensor:
    """A Tucker module's b with its core multiplied in: `b'[p, i, k] = Σ_q t[p, q, k] b[q, i]`, differentiable.

    Args:
        core: (rank, rank, *kernel).
        b: (rank, in).

    Returns:
        (rank, in·kernel), the flat module's b; its a is the transpose of the Tucker module's.
    """
    with torch.autocast(core.device.type, enabled=False):
        return torch.einsum("pqk,qi->pik", core.flatten(2), b).flatten(1)
