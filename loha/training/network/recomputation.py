"""What autograd need not keep for backward, because it is made again from what is kept anyway.

A norm's output, SiLU's, a gate's product: each costs a pass over memory, next to nothing beside the matrix products,
while keeping them takes more memory than all else. A frozen convolution reads of its input no more than the shape,
and autocast's float32 copies are those of half precision. What is made again has the same bits: the same code makes
it of the same input. Nodes of the graph are known by torch's names; what is not known keeps what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Plain = Callable[[Tensor], Tensor]
Make = Callable[[torch.dtype], Tensor]
Node = Any  # torch.autograd.graph.Node, whose saved tensors its type does not name


def frugal_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """A forward of the same values and gradients that leaves less for backward; None where nothing is known.

    Args:
        module: frozen. Of torch's own kinds, or one called like them, which differs in where its weights are.
    """
    kind, plain = type(module).__name__, module.forward
    if "forward" in vars(module):  # another's, who may do more
        return None
    if isinstance(module, nn.LayerNorm) and kind == "LayerNorm":
        return partial(_forward, partial(_layer_normed, module.eps), plain)
    if isinstance(module, nn.GroupNorm) and kind == "GroupNorm":
        return partial(_forward, _group_normed, plain)
    if isinstance(module, nn.SiLU) and kind == "SiLU":
        return partial(_forward, _activated, plain)
    if isinstance(module, nn.Conv2d) and kind == "Conv2d":
        return partial(_forward, _convolved, plain)
    return None


def forget_input(y: Tensor, x: Tensor) -> None:
    """Let the `Function` that made y of x, cast or not, and has saved that first, make it again if it can be."""
    if y.requires_grad and (make := _maker(x)):
        _hook(y.grad_fn._raw_saved_tensors[0], partial(make, y.dtype))


def _forward(frugal: Callable[[Plain, Tensor], Tensor], plain: Callable[..., Tensor], *args: Any, **kwargs: Any
             ) -> Tensor:
    """Calls that are more than `module(x)`, and those without gradients, are left as they are."""
    if kwargs or len(args) != 1 or not (args[0].requires_grad and torch.is_grad_enabled()):
        return plain(*args, **kwargs)
    return frugal(plain, *args)


class _Norm:
    """A norm's input, and its output made of that again by `again`."""

    def __init__(self, x: Tensor, again: Plain) -> None:
        self._x, self._version, self._again = x.detach(), x._version, again
        self._made: Tensor | None = None

    def input(self, dtype: torch.dtype) -> Tensor:
        """What the norm's own backward asks for: by then all readers of the output have had theirs."""
        self._made = None
        return self._checked().to(dtype)

    @torch.no_grad()
    def output(self, dtype: torch.dtype) -> Tensor:
        """Made once for q, k and v."""
        if self._made is None or self._made.dtype != dtype:
            self._made = self._again(self._checked()).to(dtype)
        return self._made

    def _checked(self) -> Tensor:
        if self._x._version != self._version:  # as torch says of tensors that it keeps itself
            raise RuntimeError("a norm's input has been changed in place between forward and backward")
        return self._x


def _layer_normed(eps: float, plain: Plain, x: Tensor) -> Tensor:
    y = plain(x)
    node = y.grad_fn
    if _is(node, "NativeLayerNorm"):
        # Not by the node: what it keeps must not hold it.
        _remember(x, y, partial(
            _layer_norm, node._saved_input.dtype, node._saved_normalized_shape, node._saved_weight, node._saved_bias,
            eps))
    return y


def _group_normed(plain: Plain, x: Tensor) -> Tensor:
    y = plain(x)
    if _is(y.grad_fn, "NativeGroupNorm"):
        device = x.device.type
        is_on = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_on else None
        _remember(x, y, partial(_under_autocast, plain, device, dtype, is_on))
    return y


def _remember(x: Tensor, y: Tensor, again: Plain) -> None:
    norm = _Norm(x, again)
    if _let_go(y.grad_fn, "input", x, norm.input):
        y._made_by = norm.output, y._version


def _layer_norm(dtype: torch.dtype, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float,
                x: Tensor) -> Tensor:
    """By the weight and bias that are saved, cast as they were: fewer launches than by the module."""
    return torch.native_layer_norm(x.to(dtype), shape, weight, bias, eps)[0]


def _under_autocast(plain: Plain, device: str, dtype: torch.dtype | None, is_on: bool, x: Tensor) -> Tensor:
    with torch.autocast(device, dtype, is_on):
        return plain(x)


def _activated(plain: Plain, x: Tensor) -> Tensor:
    make = _maker(x)
    y = plain(x)
    if make and _is(y.grad_fn, "Silu"):
        _let_go(y.grad_fn, "self", x, make)
    return y


def _convolved(plain: Plain, x: Tensor) -> Tensor:
    y = plain(x)
    node = y.grad_fn
    if _is(node, "Convolution") and node.next_functions[1][0] is None:  # its weight is frozen
        _let_go(node, "input", x, partial(_blank, x.shape, x.stride(), x.device))
    return y


def _blank(shape: torch.Size, stride: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, device=device, dtype=dtype)


def _maker(x: Tensor) -> Make | None:
    """How x is made again, if that is known and x is still as it was made."""
    make, version = getattr(x, "_made_by", (None, 0))
    if x._version != version:
        return None
    node = x.grad_fn
    if make is None and _is(node, "Mul") and node._saved_self is not None and node._saved_other is not None:
        make = partial(_product, node)
        x._made_by = make, version
        gate, _ = node.next_functions[1]
        other = node._saved_other
        if _is(gate, "Gelu") and other._version == 0:
            _let_go(node, "other", other, partial(_gelu, gate))
    return make


@torch.no_grad()
def _product(node: Node, dtype: torch.dtype) -> Tensor:
    return (node._saved_self * node._saved_other).to(dtype)


@torch.no_grad()
def _gelu(node: Node, dtype: torch.dtype) -> Tensor:
    return F.gelu(node._saved_self, approximate=node._saved_approximate).to(dtype)


def _is(node: Node | None, name: str) -> bool:
    return type(node).__name__ == f"{name}Backward0"


def _let_go(node: Node, name: str, x: Tensor, make: Make) -> bool:
    """Let a node make what it has saved by this name when its backward asks for it, if that is x or x cast.

    Returns whether it does.
    """
    saved = getattr(node, f"_saved_{name}")
    is_x = saved.data_ptr() == x.data_ptr() if saved.dtype == x.dtype else True
    return is_x and (saved.shape, saved.stride()) == (x.shape, x.stride()) and _hook(
        getattr(node, f"_raw_saved_{name}"), partial(make, saved.dtype))


def _hook(saved: Any, make: Callable[[], Tensor]) -> bool:
    try:
        saved.register_hooks(lambda _: None, lambda _: make())
    except RuntimeError:  # somebody else's hook is there, who keeps it in another way
        return False
    return True
