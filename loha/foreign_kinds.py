"""Whether a module of another kind (LoRA, LoKr, diff …) can go on a weight.

ComfyUI's own adapters apply these. They check nothing beforehand: a missing tensor ends the run with a
KeyError, and a shape that does not fit is only logged while the picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor

from . import product
from .module import BIAS_NAMES
from .targets import Skip, listed

_LORA = (("lora_up", "lora_down"), ("lora_B", "lora_A"), ("lora.up", "lora.down"), ("up", "down"),
         ("lora_linear_layer.up", "lora_linear_layer.down"), ("lora_B.default", "lora_A.default"))
_GLORA = ("a1", "a2", "b1", "b2")
_WHOLE = ("diff", "set_weight", "w_norm")
_NO_FACTORS = frozenset(("alpha", "reshape_weight"))

Shape = tuple[int, ...]

DAMAGED = "The file is damaged there, or was written wrongly: get it anew, or save it with another tool."


def misfit(tensors: Mapping[str, Tensor], shape: Shape, bias: Shape | None) -> Skip | None:
    """Why a module's tensors cannot go on a weight of `shape` whose layer has this `bias`; None when they can.

    Kinds whose shape does not show in their tensors alone (OFT, GLoRA) pass.
    """
    named = {suffix.removesuffix(".weight"): tensor for suffix, tensor in tensors.items()}
    for suffix, tensor in named.items():
        if suffix == "alpha" and (tensor.numel() != 1 or tensor.is_complex()):
            return _damaged(f"its alpha has shape {listed(tensor.shape)}, expected a single number")
        if suffix not in _NO_FACTORS and not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            return _damaged(f"its {suffix} is {dtype}, expected floating-point numbers")
    shapes = {suffix: tuple(tensor.shape) for suffix, tensor in named.items()}
    for suffix in BIAS_NAMES & shapes.keys():
        if bias is None:
            return Skip(f"'{suffix}' is for a bias, and the layer has none")
        if shapes[suffix] != bias:
            return Skip(f"'{suffix}' of {listed(shapes[suffix])} does not fit {listed(bias)}")
    for suffix in _WHOLE:
        if suffix in shapes and shapes[suffix] != shape:
            return Skip(f"'{suffix}' of {listed(shapes[suffix])} does not fit {listed(shape)}")
    if "dora_scale" in shapes and product.dora_axis(shapes["dora_scale"], shape) is None:
        return _damaged(f"dora_scale {listed(shapes['dora_scale'])} fits neither axis of {listed(shape)}")
    for up, down in _LORA:
        if up in shapes or down in shapes:
            return _lora(shapes, up, down, shape)
    if any(suffix.startswith("lokr_") for suffix in shapes):
        return _lokr(shapes, shape)
    if shapes.keys() & set(_GLORA):
        return _missing(shapes, _GLORA)
    return None


def _lora(shapes: Mapping[str, Shape], up: str, down: str, shape: Shape) -> Skip | None:
    if missing := _missing(shapes, (up, down)):
        return missing
    (out, rank, *_), (inner, columns, *kernel) = shapes[up], shapes[down]
    middle = shapes.get("lora_mid")
    if middle is not None:
        if len(middle) != 4:
            return _damaged(f"its lora_mid has shape {listed(middle)}, expected (rank, rank, height, width)")
        if middle[:2] != (rank, inner):
            return _damaged(f"its lora_mid {listed(middle)} does not stand between ranks {rank} and {inner}")
        kernel = middle[2:]
    elif rank != inner:
        return _damaged(f"its {up} {listed(shapes[up])} and {down} {listed(shapes[down])} cannot be multiplied")
    made = (out, columns, *kernel)
    return None if _unpadded(made) == _unpadded(shape) else Skip(
        f"a LoRA of {listed(made)} does not fit {listed(shape)}")


def _lokr(shapes: Mapping[str, Shape], shape: Shape) -> Skip | None:
    rows, columns = 1, 1
    for side in ("lokr_w1", "lokr_w2"):
        whole, core = shapes.get(side), shapes.get("lokr_t2") if side == "lokr_w2" else None
        if whole is None:
            if missing := _missing(shapes, (f"{side}_a", f"{side}_b")):
                return missing
            a, b = shapes[f"{side}_a"], shapes[f"{side}_b"]
            if (core[:2] != (a[0], b[0])) if core else (a[1] != b[0]):
                return _damaged(f"its {side}_a {listed(a)} and {side}_b {listed(b)} cannot be multiplied")
            whole = (a[1], b[1], *core[2:]) if core else (a[0], prod(b[1:]))
        elif len(whole) < 2:
            return _damaged(f"its {side} has shape {listed(whole)}, expected two dimensions or more")
        rows, columns = rows * whole[0], columns * prod(whole[1:])
    if (rows, columns) != (shape[0], prod(shape[1:])):
        return Skip(f"a LoKr of {rows}×{columns} does not fit {listed(shape)}")
    return None


def _missing(shapes: Mapping[str, Shape], wanted: tuple[str, ...]) -> Skip | None:
    """What is not there, or has fewer than two dimensions."""
    for suffix in wanted:
        if suffix not in shapes:
            return _damaged(f"its {suffix} is missing")
        if len(shapes[suffix]) < 2:
            return _damaged(f"its {suffix} has shape {listed(shapes[suffix])}, expected two dimensions or more")
    return None


def _damaged(reason: str) -> Skip:
    return Skip(reason, remedy=DAMAGED)


def _unpadded(shape: Shape) -> Shape:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
