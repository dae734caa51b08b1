"""How a weight of any dimensions lies in memory when it is read as the matrix (out, in·kernel)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MatrixLayout(NamedTuple):
    """Element (o, j) of the matrix lies at `o·row + (j // kernel)·column + (j % kernel)·tap`, in elements.

    Linear weights and all that flatten without a copy have kernel 1; a channels-last convolution
    keeps its kernel's size here, because there consecutive `j` are not evenly spaced.
    """

    row: int
    column: int
    kernel: int
    tap: int


def matrix_layout(weight: Tensor) -> MatrixLayout | None:
    """Layout of `weight` (out, in, *kernel) as a matrix, or None where no such pattern describes it.

    None also for a weight that repeats itself in memory (stride 0): writing it would be a race.
    """
    sizes, strides = weight.shape, weight.stride()
    if weight.is_contiguous():  # nearly every one, and this is asked for each weight of each merge
        return MatrixLayout(sizes[1:].numel(), 1, 1, 0)
    if any(stride == 0 and size > 1 for size, stride in zip(sizes, strides, strict=True)):
        return None
    column = _evenly_spaced(sizes[1:], strides[1:])
    if column is not None:
        return MatrixLayout(strides[0], column, 1, 0)
    tap = _evenly_spaced(sizes[2:], strides[2:])
    if tap is None:
        return None
    return MatrixLayout(strides[0], strides[1], sizes[2:].numel(), tap)


def is_aligned(weight: Tensor) -> bool:
    """Whether each row of the matrix starts on 16 bytes and is made of whole groups of eight elements."""
    row = matrix_layout(weight).row
    return weight.data_ptr() % 16 == 0 and row % 8 == 0 and weight.shape[1:].numel() % 8 == 0


def _evenly_spaced(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The one stride of these dimensions walked in order, or None."""
    kept = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size != 1]
    if not kept:
        return 1
    for (_, outer), (size, inner) in zip(kept, kept[1:], strict=False):
        if outer != size * inner:
            return None
    return kept[-1][1]
