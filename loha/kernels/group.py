"""All modules of a file merged together: on CUDA with Triton, one launch for those of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import grouped_torch
from .choose import GROUPED_TORCH, GROUPED_TRITON, ROUTES, TRITON_ROUTES, Route, attempt, choose
from .factors import Factors, PackedFactors, padded_rank
from .layout import is_aligned
from .merge import check, is_empty, run


class Group:
    """A file's modules over a model's weights, ready to be merged again and again.

    Args:
        outs: the weights to write, each (out, in, *kernel). Held as given: a weight that has moved
            by the next merge is found again.
        factors: of each module, in the order of `outs`, as `PackedFactors` lays them out on one device.
        bases: what is added to; None adds to the weights in place. Kept originals given here make
            every merge start from them, so that a changed scale needs no restoring in between.

    Raises:
        ValueError: counts or shapes that do not fit.
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
            check(out, module)
            check(base, module)
        self._places: list[tuple[int, torch.device]] = []
        self._jobs: list[_Job] = []

    @torch.inference_mode()
    def merge(self, scales: Sequence[float]) -> dict[Route, int]:
        """`out = base + scale·ΔW` for every module, `scales` in their order; no host sync on CUDA.

        Returns how many modules went which route. Modules of one weight dtype, factor dtype, padded
        rank and alignment share a launch: for a file over a model in half precision, all of them.
        """
        if len(scales) != len(self._outs):
            raise ValueError(f"{len(scales)} scales for {len(self._outs)} modules")
        places = [(tensor.data_ptr(), tensor.device) for tensor in (*self._outs, *self._bases)]
        if places != self._places:
            self._jobs = self._plan(range(len(self._outs)))
            self._places = places
        waiting, done = list(self._jobs), []
        while waiting:
            job = waiting.pop(0)
            if attempt(job.route, partial(job.merge, scales)):
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
            if out.device != base.device:
                raise ValueError(f"module {index}: weight on {out.device}, what it starts from on {base.device}")
            if not is_empty(out, factors):
                kinds.setdefault(_kind(index, out, base, factors), []).append(index)
        return [self._job(kind[0], indices) for kind, indices in kinds.items()]

    def _job(self, route: Route, modules: list[int]) -> _Job:
        outs = [self._outs[index] for index in modules]
        bases = [self._bases[index] for index in modules]
        factors = [self._factors[index] for index in modules]
        if factors[0].w1_a.device != outs[0].device:
            factors = list(PackedFactors(factors, outs[0].device))
        if route.name == GROUPED_TRITON:
            return _TableJob(route, modules, outs, bases, factors)
        if route.name == GROUPED_TORCH:
            return _StackJob(route, modules, outs, bases, factors)
        return _SingleJob(route, modules, outs, bases, factors)


@dataclass
class _Job:
    """Modules (their places in the group) that one call merges."""

    route: Route
    modules: list[int]
    outs: list[Tensor]
    bases: list[Tensor]
    factors: list[Factors]

    def merge(self, scales: Sequence[float]) -> None:
        """Merge these modules; `scales` are all the group's."""
        raise NotImplementedError


class _TableJob(_Job):
    _table = None

    def merge(self, scales: Sequence[float]) -> None:
        from . import triton_merge

        device = self.outs[0].device
        if self._table is None:
            self._table = triton_merge.Table(self.outs, self.bases, self.factors)
        mine = torch.tensor(
            [scales[index] for index in self.modules], dtype=torch.float32, pin_memory=device.type == "cuda"
        )
        self._table.merge(mine.to(device, non_blocking=True))


class _StackJob(_Job):
    def merge(self, scales: Sequence[float]) -> None:
        for out, base in zip(self.outs, self.bases, strict=True):
            if out is not base:
                out.copy_(base)
        grouped_torch.merge_stack_(self.outs, self.factors, [scales[index] for index in self.modules])


class _SingleJob(_Job):
    def merge(self, scales: Sequence[float]) -> None:
        run(self.route.name, self.outs[0], self.bases[0], self.factors[0], scales[self.modules[0]])


def _kind(index: int, out: Tensor, base: Tensor, factors: Factors) -> tuple:
    """What modules must share to be merged by one job; the route comes first."""
    ranks = (factors.rank1, factors.rank2)
    route = choose(out, ranks, grouped=True)
    if route.name in TRITON_ROUTES and base is not out:
        # Of the two the one with the lesser layout decides.
        route = max(route, choose(base, ranks, grouped=True), key=lambda one: ROUTES.index(one.name))
    if route.name == GROUPED_TRITON:
        pads = (padded_rank(ranks[0]), padded_rank(ranks[1]))
        return (route, out.device, out.dtype, factors.dtype, pads, is_aligned(out) and is_aligned(base))
    if route.name == GROUPED_TORCH:
        return (route, out.device, out.dtype, out.shape, factors.dtype, ranks)
    return (route, index)
