"""All of a file's factors in one device buffer, padded as the kernels load them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..factors import Factors

_log = logging.getLogger(__name__)

# Every factor starts on this boundary: whole cache lines, and more than vector loads ask for.
_ALIGNMENT = 128
# The tensors of every `PackedFactors`: what lies around a tensor cannot be told from the tensor.
_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()


def for_triton(factors: Factors) -> Factors:
    """The same in one dtype that the kernels multiply: fp64 as fp32."""
    one = factors.uniform()
    return one.cast(torch.float32) if one.dtype is torch.float64 else one


def on_device(factors: Factors, device: torch.device) -> Factors:
    """On `device`, of one dtype: all in one pinned copy where that means a transfer to CUDA."""
    if all(factor.device == device for factor in factors):
        return factors.uniform()
    if device.type == "cuda" and all(factor.device.type == "cpu" for factor in factors):
        return PackedFactors([factors], device)[0]
    return Factors(*(factor.to(device, non_blocking=True) for factor in factors)).uniform()


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
        uniform = [for_triton(module) for module in modules]
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
