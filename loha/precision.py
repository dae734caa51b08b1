"""float32 products as float32, whatever the program around us has allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 matrix products are neither tf32 nor bfloat16; also a decorator.

    The settings are the process's, and another node may have lowered them (`torch.set_float32_matmul_precision`
    and its relatives): they are put back afterwards.
    """
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    # The older function raises once anything in the process has used these newer names.
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    kept = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        yield
    finally:
        for matmul, precision in zip(matmuls, kept, strict=True):
            matmul.fp32_precision = precision
