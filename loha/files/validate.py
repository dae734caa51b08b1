"""From tensors to `LohaModule`s: every shape, dtype and number checked before anything is multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

from ...text import show
from ..errors import FileError
from ..module import CORE_NAMES, FACTOR_NAMES, LohaModule

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
_REMEDY = "train or save the file anew, or choose another one"


def loha_module(name: str, tensors: Mapping[str, Tensor]) -> LohaModule:
    """Check one module's tensors (suffix → tensor) and return it, factors as 2-D views.

    Whether its floats are finite is for `finite.non_finite` to say, but alpha's value is checked here.

    Raises:
        FileError: a tensor is missing, of a dtype or shape that it cannot have, or alpha is unusable.
    """
    missing = [suffix for suffix in FACTOR_NAMES if suffix not in tensors]
    cores = [suffix for suffix in CORE_NAMES if suffix in tensors]
    if len(cores) == 1:
        missing += [suffix for suffix in CORE_NAMES if suffix not in tensors]
    if missing:
        raise _error(name, f"{', '.join(missing)} missing, found only {', '.join(sorted(tensors))}")
    for suffix, tensor in tensors.items():
        if suffix not in ("alpha", "scalar") and tensor.dtype not in _FLOATS:
            raise _error(name, f"{suffix} is {_dtype(tensor)}, expected floating-point numbers (F16, BF16, F32 or F8)")

    if cores:
        factors = {suffix: _without_ones(name, suffix, tensors[suffix]) for suffix in FACTOR_NAMES}
        _check_tucker(name, factors, tensors["hada_t1"], tensors["hada_t2"])
    else:
        factors = {
            suffix: _flattened(name, suffix, tensors[suffix]) if suffix.endswith("_b")
            else _without_ones(name, suffix, tensors[suffix])
            for suffix in FACTOR_NAMES
        }
        _check_flat(name, factors)
    return LohaModule(
        name, *factors.values(), t1=tensors.get("hada_t1"), t2=tensors.get("hada_t2"),
        alpha=single_number(name, "alpha", tensors.get("alpha")), dora_scale=tensors.get("dora_scale"),
    )


def _without_ones(name: str, suffix: str, factor: Tensor) -> Tensor:
    if factor.dim() == 2:
        return factor
    if factor.dim() < 2 or any(size != 1 for size in factor.shape[2:]):
        raise _error(name, f"{suffix} has shape {_shape(factor)}, expected two dimensions "
                           "(or two and then 1s, as a 1×1 convolution has)")
    return factor.flatten(1)


def _flattened(name: str, suffix: str, factor: Tensor) -> Tensor:
    if factor.dim() == 2:
        return factor
    if not 2 < factor.dim() <= 5:
        raise _error(name, f"{suffix} has shape {_shape(factor)}, expected (rank, in) or (rank, in, kernel)")
    return factor.flatten(1)


def _check_flat(name: str, factors: Mapping[str, Tensor]) -> None:
    products = []
    for w in ("hada_w1", "hada_w2"):
        a, b = factors[f"{w}_a"], factors[f"{w}_b"]
        if a.shape[1] != b.shape[0]:
            raise _error(name, f"{w}_a {_shape(a)} and {w}_b {_shape(b)} cannot be multiplied: "
                               f"rank {a.shape[1]} against {b.shape[0]}")
        products.append((a.shape[0], b.shape[1]))
    _check_products(name, *products)


def _check_tucker(name: str, factors: Mapping[str, Tensor], t1: Tensor, t2: Tensor) -> None:
    products = []
    for w, suffix, core in (("hada_w1", "hada_t1", t1), ("hada_w2", "hada_t2", t2)):
        a, b = factors[f"{w}_a"], factors[f"{w}_b"]
        if a.shape[0] != b.shape[0]:
            raise _error(name, f"{w}_a {_shape(a)} and {w}_b {_shape(b)} belong to a Tucker core, so both are "
                               f"(rank, size): rank {a.shape[0]} against {b.shape[0]}")
        rank = a.shape[0]
        if not 3 <= core.dim() <= 5 or tuple(core.shape[:2]) != (rank, rank):
            raise _error(name, f"{suffix} has shape {_shape(core)}, expected ({rank}, {rank}, "
                               "and one to three sizes of a kernel)")
        products.append((a.shape[1], b.shape[1], *core.shape[2:]))
    _check_products(name, *products)


def _check_products(name: str, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    if first != second:
        raise _error(name, f"its two products differ in shape, {first} against {second}, "
                           "and cannot be multiplied elementwise")


def single_number(name: str, suffix: str, tensor: Tensor | None) -> float | None:
    """`alpha` or `scalar` of a module. Raises FileError where it is more than one number, or not a finite one."""
    if tensor is None:
        return None
    if tensor.numel() != 1:
        raise _error(name, f"{suffix} has shape {_shape(tensor)}, expected a single number")
    if tensor.dtype in (torch.bool, torch.complex64):
        raise _error(name, f"{suffix} is {_dtype(tensor)}, expected a number")
    value = float(tensor)
    if not isfinite(value):
        raise _error(name, f"{suffix} is {value}, expected a finite number")
    return value


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _error(name: str, flaw: str) -> FileError:
    return FileError(f"module '{show(name)}': {flaw}; {_REMEDY}.")
