"""All modules of a file merged together: on CUDA with Triton, one launch for those of one kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...factors import Factors
from ..layout import is_aligned
from ..packing import PackedFactors, is_packed, padded_rank, staging
from ..route import GROUPED_TORCH, GROUPED_TRITON, Route, attempt, choose
from . import stacked
from .single import check, is_empty, run
from .workspace import Workspace


class Group:
    """A file's modules over a model's weights, ready to be merged again and again.

    Args:
        outs: the weights to write, each (out, in, *kernel). Held as given: a weight that has moved
            by the next merge is found again.
        factors: of each module, in the order of `outs`. What `PackedFactors` has laid out on the weights'
            device is used where it lies; anything else is packed first.
        bases: what is added to; None adds to the weights in place. Kept originals given here make
            every merge start from them, so that a changed scale needs no restoring in between.

    Raises:
        ValueError: counts or shapes that do not fit, or a base unlike its weight.
    """

    def __init__(
        self, outs: Sequence[Tensor], factors: Sequence[Factors], bases: Sequence[Tensor] | None = None
    ) -> None:
        self._outs, self._factors = list(outs), list(factors)
        self._bases = self._outs if bases is None else list(bases)
        if not len(self._outs) == len(self._bases) == len(self._factors):
            raise ValueError(
                f"{len(self._outs)} weights, {len(self._bases)} bases and {len(self._factors)} modules"
            )
        for out, base, module in zip(self._outs, self._bases, self._factors, strict=True):
            check(out, base, module)
        self._empty = {index for index, out in enumerate(self._outs) if is_empty(out, self._factors[index])}
        self._tensors = self._outs if bases is None else [*self._outs, *self._bases]
        self._places: list[int] = []
        self._jobs: list[_Job] = []

    @torch.inference_mode()
    def merge(self, scales: Sequence[float]) -> dict[Route, int]:
        """`out = base + scale·ΔW` for every module, `scales` in their order; no host sync on CUDA.

        Returns how many modules went which route. Modules of one weight dtype, factor dtype, padded
        rank and alignment share a launch: for a file over a model in half precision, all of them.
        """
        if len(scales) != len(self._outs):
            raise ValueError(f"{len(scales)} scales for {len(self._outs)} modules")
        places = [tensor.data_ptr() for tensor in self._tensors]  # one space of addresses for the host and all GPUs
        if places != self._places:
            self._jobs = self._plan([index for index in range(len(self._outs)) if index not in self._empty])
            self._places = places
        for index in self._empty:
            self._outs[index].copy_(self._bases[index])
        waiting, done, workspace = list(self._jobs), [], Workspace()
        while waiting:
            job = waiting.pop(0)
            if attempt(job.route, partial(job.merge, scales, workspace)):
                done.append(job)
            else:
                waiting[:0] = self._plan(job.modules)
        self._jobs = done
        taken: Counter[Route] = Counter()
        for job in done:
            taken[job.route] += len(job.modules)
        return dict(taken)

    def _plan(self, modules: Sequence[int]) -> list[_Job]:
        """Jobs for these modules by the routes that are open now."""
        kinds: dict[tuple, list[int]] = {}
        for index in modules:
            out, base, factors = self._outs[index], self._bases[index], self._factors[index]
            check(out, base, factors)  # either may have moved to another device since
            kinds.setdefault(_kind(index, out, base, factors), []).append(index)
        return [self._job(kind[0], indices) for kind, indices in kinds.items()]

    def _job(self, route: Route, modules: list[int]) -> _Job:
        outs = [self._outs[index] for index in modules]
        bases = [self._bases[index] for index in modules]
        factors = [self._factors[index] for index in modules]
        device = outs[0].device
        if route.name == GROUPED_TRITON:
            # The kernel reads the padding, and past the end of what has none.
            fits = all(is_packed(module, device) for module in factors)
        else:
            fits = all(factor.device == device for module in factors for factor in module)
        if not fits:
            factors = list(PackedFactors(factors, device))
        if route.name == GROUPED_TRITON:
            return _TableJob(route, modules, outs, bases, factors)
        if route.name == GROUPED_TORCH:
            return _StackJob(route, modules, outs, bases, factors)
        return _SingleJob(route, modules, outs, bases, factors)


@dataclass
class _Job(ABC):
    """Modules (their places in the group) that one call merges."""

    route: Route
    modules: list[int]
    outs: list[Tensor]
    bases: list[Tensor]
    factors: list[Factors]

    @abstractmethod
    def merge(self, scales: Sequence[float], workspace: Workspace) -> None:
        """Merge these modules; `scales` are all the group's, and so is `workspace`."""


class _TableJob(_Job):
    _table = None

    def merge(self, scales: Sequence[float], workspace: Workspace) -> None:
        from . import triton

        device = self.outs[0].device
        if self._table is None:
            self._table = triton.Table(self.outs, self.bases, self.factors)
        mine = staging(4 * len(self.modules), device).view(torch.float32)
        mine.copy_(torch.tensor([scales[index] for index in self.modules]))
        self._table.merge(mine.to(device, non_blocking=True))


class _StackJob(_Job):
    _stack = None

    def merge(self, scales: Sequence[float], workspace: Workspace) -> None:
        if self._stack is None:
            self._stack = stacked.Stack(self.outs, self.bases, [module.uniform() for module in self.factors])
        self._stack.merge(self.outs, self.bases, [scales[index] for index in self.modules])


class _SingleJob(_Job):
    def merge(self, scales: Sequence[float], workspace: Workspace) -> None:
        run(self.route.name, self.outs[0], self.bases[0], self.factors[0], scales[self.modules[0]], workspace)


def _kind(index: int, out: Tensor, base: Tensor, factors: Factors) -> tuple:
    """What modules must share to be merged by one job; the route comes first."""
    ranks = (factors.rank1, factors.rank2)
    route = choose(out, ranks, base=base, grouped=True)
    if route.name == GROUPED_TRITON:
        pads = (padded_rank(ranks[0]), padded_rank(ranks[1]))
        return (route, out.device, out.dtype, factors.common_dtype, pads, is_aligned(out) and is_aligned(base))
    if route.name == GROUPED_TORCH:
        return (route, out.device, out.dtype, factors.common_dtype, ranks)
    return (route, index)
