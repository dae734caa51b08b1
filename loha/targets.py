"""What a module meets in a model: a weight, or a part of one, or the reason why it stays off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .block_weights import block_of
from .module import LohaModule

# Dimension, start and length of a part of a weight, as ComfyUI's name map and `Tensor.narrow` have them.
Span = tuple[int, int, int]
Reorder = Callable[[Tensor], Tensor]


class Place(NamedTuple):
    """What a name means: a weight, one part of it (`span`), with its rows in another order (`reorder`)."""

    weight: str
    span: Span | None = None
    reorder: Reorder | None = None


@dataclass(frozen=True)
class Target:
    """A weight of a model, or a part of one: its name in the state dict, shape (out, in, *kernel), storage dtype.

    Args:
        shape: of the part, where there is a `span`.
        span: None for the whole weight.
        reorder: brings rows from the order that the file has to the model's; None where they are the same.
        is_packed: numbers of another format are packed into it, which nothing can be added to as it is.
    """

    weight: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    span: Span | None = None
    reorder: Reorder | None = None
    is_packed: bool = False

    def part(self, place: Place) -> Target | Skip:
        """What `place` means of this whole weight, or why it can mean nothing."""
        shape, span = self.shape, place.span
        if span is not None:
            dimension, start, length = span
            if not (0 <= dimension < len(shape) and start >= 0 and 0 < length <= shape[dimension] - start):
                return Skip(f"ComfyUI's name for it means numbers {start} to {start + length - 1} of dimension "
                            f"{dimension} of a weight of {listed(shape)}", self.weight, remedy=_CORE)
            if length == shape[dimension]:
                span = None
            shape = (*shape[:dimension], length, *shape[dimension + 1:])
        if place.reorder is not None and row_order(place.reorder, shape[0]) is None:
            return Skip("ComfyUI changes what is added there in a way that is not known here", self.weight,
                        remedy=_CORE)
        return replace(self, shape=shape, span=span, reorder=place.reorder)

    @property
    def described(self) -> str:
        return f"the {'weight' if self.span is None else 'part'} {listed(self.shape)}"

    @property
    def where(self) -> str:
        """The weight's name; of a part, which one."""
        if self.span is None:
            return self.weight
        dimension, start, length = self.span
        return f"{('rows', 'columns')[dimension] if dimension < 2 else f'dimension {dimension}'} {start} to " \
               f"{start + length - 1} of {self.weight}"

    @property
    def key(self) -> str | tuple[str, Span]:
        """The key of ComfyUI's patches."""
        return self.weight if self.span is None else (self.weight, self.span)

    @cached_property
    def is_unet(self) -> bool:
        return self.weight.startswith("diffusion_model.")

    @cached_property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @cached_property
    def block(self) -> str:
        return block_of(self.weight)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype whose range the weight's numbers have: its own, float32 for one that is quantised."""
        return self.dtype if self.dtype.is_floating_point else torch.float32


class Bound(NamedTuple):
    """A module with the weight that it goes on and the strength it gets there."""

    module: LohaModule | Mapping[str, Tensor]
    target: Target
    strength: float


@dataclass(frozen=True)
class Skip:
    """Why a module stays off.

    Args:
        reason: what is wrong, in words that other modules of the same fault share.
        where: the weight, or the part of it, that the module would go on; "" where there is none.
        asked: because the person said so (a strength of 0), not for a fault.
        remedy: what to do where that is not to choose another checkpoint.
    """

    reason: str
    where: str = ""
    asked: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.reason} of {self.where}" if self.where else self.reason


_CORE = "Update ComfyUI, or load the file with its own loader."


def row_order(reorder: Reorder, rows: int) -> Tensor | None:
    """Which row of the file stands in each of the model's `rows`; None where `reorder` does more than move them."""
    numbers = torch.arange(rows, dtype=torch.float64).view(rows, 1)
    moved = reorder(numbers.clone())
    if moved.shape != numbers.shape or not torch.equal(moved.sort(dim=0).values, numbers):
        return None
    return moved.flatten().long()


def listed(shape: tuple[int, ...]) -> str:
    """A shape in words: `320×768`."""
    return "×".join(map(str, shape)) or "a single number"
