"""A network's layers merged in one launch a step, and their gradients computed many at a time.

By itself each module takes a merge before it and a merge and a gradient behind it: a thousand launches a step,
which the host cannot prepare as fast as a GPU runs them. Here the merged weights of all modules are made at the
first of them that is asked for, and kept for backward: in half precision as many bytes as the weights have. The
gradients of the weights wait until there are `_TOGETHER` bytes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.function import FunctionCtx

from ... import kernels
from ...factors import Factors
from ...kernels.layout import is_aligned
from ...kernels.route import GROUPED_TRITON, Route, attempt, choose
from .forward import back_through, dtype_of, through
from .parameters import LohaParameters

if TYPE_CHECKING:
    from ...kernels.gradient.many_modules import GroupedGradients

_TOGETHER = 96 << 20
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class _Weights:
    """Merged weights of one dtype by name, and the parameters' versions that they were made of."""

    def __init__(self) -> None:
        self.merged: dict[str, Tensor] = {}
        self.merges: list[Callable[[], None]] = []
        self.stamps: dict[str, tuple[int, ...]] = {}


class GroupedLayers:
    """The merged weights of a network's layers, and where the gradients of their factors are computed.

    Args:
        layers: by name; their weights are only read.
        factors: of each name.

    A module whose route is not `grouped-triton` is in none of this, see `covers`: Tucker modules, ranks over 128,
    weights on a CPU, a machine without Triton.
    """

    def __init__(self, layers: Mapping[str, nn.Module], factors: Mapping[str, LohaParameters]) -> None:
        self._layers, self._factors = layers, factors
        self._stamped = dict(factors.items())  # a plain dict is the faster one
        self._places: list[int] = []
        self._seen: list[Tensor] = []  # the parameters merged last: no other may get the id of one that is gone
        self._weights: dict[torch.dtype, _Weights] = {}
        self._tools: list[GroupedGradients] = []  # one for each rank
        self._tool_of: dict[str, tuple[int, int]] = {}  # name → which tool, and the module's place in it
        self._waiting: dict[tuple[int, torch.dtype], list[tuple[str, Tensor]]] = {}
        self._waiting_bytes = 0
        self._backward = -1  # torch's number of the one that waiting gradients are of, and that ends with `_compute`

    def covers(self, name: str, x: Tensor) -> bool:
        """Whether this module is among those merged together; merges them where it is time to."""
        dtype = dtype_of(x)
        weights = self._weights.get(dtype)
        if weights is None or weights.stamps.get(name) != self._stamped[name].stamp:
            weights = self._merge(dtype)
        return name in weights.merged

    def forward(self, name: str, x: Tensor) -> Tensor:
        """`layer(x)` with the merged weight, differentiable by x and the factors; in autocast's dtype if it is on."""
        dtype = dtype_of(x)
        # A factor stands for all: autograd need not see the others, whose gradients are written behind its back.
        return _Layer.apply(x.to(dtype), self._factors[name].hada_w1_a, self, name, self._layers[name],
                            self._weights[dtype].merged[name])

    def stamp(self, name: str) -> tuple[int, ...]:
        """Of the module's factors as they are."""
        return self._stamped[name].stamp

    def forget(self) -> None:
        """What was merged is out of date, and what waits is not wanted."""
        for weights in self._weights.values():
            weights.stamps.clear()
        self._waiting.clear()
        self._waiting_bytes = 0

    def release(self) -> None:
        """Give the memory back; all is made anew when it is next asked for."""
        self.forget()
        self._weights, self._tools, self._tool_of, self._places, self._seen = {}, [], {}, [], []

    def add(self, name: str, grad: Tensor) -> None:
        """Take ∂L/∂W (out, in·kernel), contiguous; the factors' `.grad` have it at the end of this backward."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # what waits is of one that failed on its way
            self._waiting.clear()
            self._waiting_bytes, self._backward = 0, backward
            Variable._execution_engine.queue_callback(self._compute)
        if name not in self._tool_of:  # released since the forward pass
            self._find_places()
        self._waiting.setdefault((self._tool_of[name][0], grad.dtype), []).append((name, grad))
        self._waiting_bytes += grad.nbytes
        if self._waiting_bytes >= _TOGETHER:
            self._compute()

    @torch.no_grad()
    def _compute(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        for (number, _), pairs in waiting.items():
            while pairs:  # more than once round where a module was used more than once
                once: dict[str, Tensor] = {}
                pairs = [(name, grad) for name, grad in pairs if once.setdefault(name, grad) is not grad]
                first, further = {}, {}
                for name, grad in once.items():
                    (further if self._has_gradients(name) else first)[name] = grad
                for grads, adds in ((first, False), (further, True)):
                    if grads:
                        self._write(self._tools[number], grads, adds)

    def _has_gradients(self, name: str) -> bool:
        """Whether any factor has some already, as in the second batch of a step: then all are in the results."""
        parameters = self._parameters(name)
        if all(parameter.grad is None for parameter in parameters):
            return False
        for parameter, result in zip(parameters, self._results(name), strict=True):
            if parameter.grad is not result:
                parameter.grad = result.zero_() if parameter.grad is None else result.copy_(parameter.grad)
        return True

    def _write(self, tool: GroupedGradients, grads: dict[str, Tensor], adds: bool) -> None:
        places = [self._tool_of[name][1] for name in grads]
        if attempt(Route(GROUPED_TRITON), lambda: tool.compute(places, list(grads.values()), adds=adds)):
            for name in () if adds else grads:
                for parameter, result in zip(self._parameters(name), self._results(name), strict=True):
                    parameter.grad = result
            return
        for name, grad in grads.items():
            parameters = self._parameters(name)
            found = kernels.gradients(grad, Factors(*parameters), self._factors[name].scale)
            for parameter, one in zip(parameters, found, strict=True):
                parameter.grad = parameter.grad + one if adds else one

    @torch.inference_mode(False)
    @torch.no_grad()
    def _merge(self, dtype: torch.dtype) -> _Weights:
        self._find_places()
        weights = self._weights.setdefault(dtype, _Weights())
        if not weights.merges and dtype in _DTYPES:
            self._make_weights(weights, dtype)
        if not all(attempt(Route(GROUPED_TRITON), merge) for merge in weights.merges):
            weights.merges, weights.merged = [], {}
        weights.stamps = {name: factors.stamp for name, factors in self._stamped.items()}
        self._seen = [parameter for name in weights.merged for parameter in self._parameters(name)]
        return weights

    def _find_places(self) -> None:
        """Make all anew where a tensor lies elsewhere than at the last time."""
        places = [tensor.data_ptr() for name in self._factors
                  for tensor in (*self._parameters(name), self._layers[name].weight)]
        if places != self._places:
            self.release()
            self._places = places
            self._make_tools()

    def _make_tools(self) -> None:
        from ...kernels.gradient.many_modules import GroupedGradients

        for number, names in enumerate(self._alike(lambda name: self._factors[name].rank)):
            self._tools.append(GroupedGradients(
                [self._detached(name) for name in names], [self._factors[name].scale for name in names]))
            self._tool_of |= {name: (number, place) for place, name in enumerate(names)}

    def _make_weights(self, weights: _Weights, dtype: torch.dtype) -> None:
        from ...kernels.merging.triton import Table

        def kind(name: str) -> tuple[int, torch.dtype, bool]:
            weight = self._layers[name].weight
            return self._factors[name].rank, weight.dtype, is_aligned(weight)

        for names in self._alike(kind):
            bases = [self._layers[name].weight.detach() for name in names]
            outs = [torch.empty(base.shape, dtype=dtype, device=base.device) for base in bases]
            table = Table(outs, bases, [self._detached(name) for name in names], packed=False)
            scales = torch.tensor([self._factors[name].scale for name in names], dtype=torch.float32)
            weights.merges.append(partial(table.merge, scales.to(bases[0].device)))
            weights.merged |= dict(zip(names, outs, strict=True))

    def _alike(self, kind: Callable[[str], Hashable]) -> Iterable[list[str]]:
        """The modules that can be merged with others, those of one kind together."""
        found: dict[Hashable, list[str]] = {}
        for name in self._factors:
            if self._is_groupable(name):
                found.setdefault(kind(name), []).append(name)
        return found.values()

    def _is_groupable(self, name: str) -> bool:
        factors, weight = self._factors[name], self._layers[name].weight
        return (
            factors.hada_t1 is None and factors.scalar is None
            and choose(weight, (factors.rank, factors.rank), grouped=True).name == GROUPED_TRITON
            and all(one.is_contiguous() and one.data_ptr() % 16 == 0 and one.device == weight.device
                    for one in self._parameters(name)))

    def _parameters(self, name: str) -> Factors:
        factors = self._factors[name]
        return Factors(factors.hada_w1_a, factors.hada_w1_b, factors.hada_w2_a, factors.hada_w2_b)

    def _detached(self, name: str) -> Factors:
        return Factors(*(parameter.detach() for parameter in self._parameters(name)))

    def _results(self, name: str) -> Factors:
        number, place = self._tool_of[name]
        return self._tools[number].results[place]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, factor: Tensor, grouped: GroupedLayers, name: str,
                layer: nn.Linear | nn.Conv2d, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grouped, ctx.name, ctx.layer, ctx.weight = grouped, name, layer, weight
        ctx.stamp = grouped.stamp(name)
        return through(layer, x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor):
        (x,) = ctx.saved_tensors
        if ctx.grouped.stamp(ctx.name) != ctx.stamp:  # as torch says of tensors that it saves itself
            raise RuntimeError(f"the factors of {ctx.name} have been changed between forward and backward")
        wants_x, wants_factors = ctx.needs_input_grad[:2]
        device = x.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            grad_x, grad_weight = back_through(
                ctx.layer, x, ctx.weight, grad, wants_x, wants_factors, lambda rows, inputs: rows.t() @ inputs)
            if wants_factors:
                ctx.grouped.add(ctx.name, grad_weight.contiguous())
        return grad_x, None, None, None, None, None


def grouped_layers(layers: Mapping[str, nn.Module], factors: Mapping[str, LohaParameters]) -> GroupedLayers | None:
    """`GroupedLayers`, or None on a device where nothing is merged together."""
    first = next(iter(layers.values())).weight
    return GroupedLayers(layers, factors) if choose(first, (1, 1), grouped=True).name == GROUPED_TRITON else None
