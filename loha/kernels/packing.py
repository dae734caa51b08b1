"""A flat LoHa module's four factors, and all of a file's in one device buffer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_log = logging.getLogger(__name__)

# Every factor starts on this boundary: whole cache lines, and more than vector loads ask for.
_ALIGNMENT = 128
# The tensors of every `PackedFactors`: what lies around a tensor cannot be told from the tensor.
_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()
_KEPT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        kept = (factor.dtype if factor.dtype in _KEPT_DTYPES else torch.float16 for factor in self)
        return reduce(torch.promote_types, kept)

    def uniform(self) -> Factors:
        """The same in their common dtype."""
        dtype = self.common_dtype
        return Factors(*(factor.to(dtype) for factor in self))

    def for_triton(self) -> Factors:
        """The same in one dtype that the kernels multiply: fp64 as fp32."""
        one = self.uniform()
        return Factors(*(factor.float() for factor in one)) if one.dtype is torch.float64 else one

    def stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both `*_a` as (2, out, rank) and both `*_b` as (2, rank, in·kernel); a smaller rank ends in zeros."""
        rank, (rows, columns) = max(self.rank1, self.rank2), self.shape
        left, right = (
            torch.zeros(2, *shape, dtype=dtype, device=self.w1_a.device) for shape in ((rows, rank), (rank, columns))
        )
        for place, (a, b) in enumerate(((self.w1_a, self.w1_b), (self.w2_a, self.w2_b))):
            left[place, :, : b.shape[0]] = a
            right[place, : b.shape[0]] = b
        return left, right

    def to(self, device: torch.device) -> Factors:
        """On `device`, of one dtype: all in one pinned copy where that means a transfer to CUDA."""
        if all(factor.device == device for factor in self):
            return self.uniform()
        if device.type == "cuda" and all(factor.device.type == "cpu" for factor in self):
            return PackedFactors([self], device)[0]
        return Factors(*(factor.to(device, non_blocking=True) for factor in self)).uniform()


class PackedFactors(Sequence[Factors]):
    """All factors of a file in one buffer on `device`, uploaded in one copy and kept with this object.

    Args:
        modules: each module's factors, on the CPU, of any floating dtype; fp64 is packed as fp32.
        device: where they go. For CUDA the copy goes through pinned memory and does not wait.

    Attributes:
        device, nbytes: where the buffer is, and its size.

    As a sequence it holds the factors as views of the buffer, in the order given. The rank is padded to
    a power of two of at least 16, columns to a multiple of eight elements, both with zeros that lie
    outside the views, so that kernels load whole vectors without masks.
    """

    def __init__(self, modules: Sequence[Factors], device: torch.device) -> None:
        self.device = torch.device(device)
        places, size = [], 0
        for module in modules:
            module.check()
        uniform = [module.for_triton() for module in modules]
        for factor, (rows, columns) in _with_padding(uniform):
            places.append((size, rows, columns))
            size += -(-rows * columns * factor.element_size() // _ALIGNMENT) * _ALIGNMENT
        host = staging(size, self.device)
        for view, factor in zip(_views(host, uniform, places), _flat(uniform), strict=True):
            view.copy_(factor)
        self._buffer = host.to(self.device, non_blocking=True)
        self.nbytes = size
        views = iter(_views(self._buffer, uniform, places))
        self._modules = [Factors(next(views), next(views), next(views), next(views)) for _ in uniform]
        for factor in _flat(self._modules):
            _packed[factor] = None

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index):
        return self._modules[index]


def is_packed(module: Factors, device: torch.device) -> bool:
    """Whether a module's factors are those that a `PackedFactors` made on `device`, and no views of them."""
    return len({factor.dtype for factor in module}) == 1 and all(
        factor.device == device and factor in _packed for factor in module)


def padded_rank(rank: int) -> int:
    """The least power of two that holds the rank and that matrix units multiply, 16 or more."""
    return max(16, 1 << (rank - 1).bit_length())


def staging(size: int, device: torch.device) -> Tensor:
    """Zeroed bytes on the host to be copied to `device`: pinned for CUDA, where the copy then does not wait.

    A system may refuse to pin more memory; from any other the copy is slower, no more.
    """
    if device.type == "cuda":
        try:
            return torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            _log.info("no memory could be pinned for a LoHa: %s", str(error).partition("\n")[0])
    return torch.zeros(size, dtype=torch.uint8)


def _flat(modules: list[Factors]) -> list[Tensor]:
    return [factor for module in modules for factor in module]


def _with_padding(modules: list[Factors]) -> list[tuple[Tensor, tuple[int, int]]]:
    """Each factor with the rows and columns that its place in the buffer has."""
    placed = []
    for module in modules:
        columns = -(-module.shape[1] // 8) * 8
        for a, b in ((module.w1_a, module.w1_b), (module.w2_a, module.w2_b)):
            rank = padded_rank(b.shape[0])
            placed += [(a, (a.shape[0], rank)), (b, (rank, columns))]
    return placed


def _views(buffer: Tensor, modules: list[Factors], places: list[tuple[int, int, int]]) -> list[Tensor]:
    """The factors' own parts of the buffer, padding left out."""
    views = []
    for factor, (start, rows, columns) in zip(_flat(modules), places, strict=True):
        place = buffer[start : start + rows * columns * factor.element_size()]
        views.append(place.view(factor.dtype).view(rows, columns)[: factor.shape[0], : factor.shape[1]])
    return views
