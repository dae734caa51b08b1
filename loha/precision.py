"""The precisions that a person chooses by name, and float32 products as float32 whatever others have allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

_lock = Lock()
_inside = 0  # blocks that are open, in all threads
_before: list[str] = []


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 matrix products are neither tf32 nor bfloat16; also a decorator.

    The settings are the process's, and another node may have lowered them (`torch.set_float32_matmul_precision`
    and its relatives): the last block to end, of whichever thread, puts them back.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = _exchange(["ieee", "ieee"] if _has_newer_names() else ["highest"])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _exchange(_before)


def _exchange(values: list[str]) -> list[str]:
    """Set the precisions, and return what they were."""
    if not _has_newer_names():
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(values[0])
        return [before]
    # The older function raises once anything in the process has used these newer names.
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    kept = [matmul.fp32_precision for matmul in matmuls]
    for matmul, value in zip(matmuls, values, strict=True):
        matmul.fp32_precision = value
    return kept


def _has_newer_names() -> bool:
    """torch 2.9 and later."""
    return hasattr(torch.backends.cuda.matmul, "fp32_precision")
