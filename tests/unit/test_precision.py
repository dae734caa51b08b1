"""Every product is float32 in full, whatever another node of the same process has allowed."""

import pytest
import reference
import torch
from shinymas_loha.loha import LohaModule, product
from shinymas_loha.loha.kernels import gradients, merge_
from shinymas_loha.loha.precision import full_precision
from shinymas_loha.tests.unit.kernels_helpers import random_factors
from torch.utils._python_dispatch import TorchDispatchMode

FACTORS = random_factors(0, 6, 8, 2, 3, torch.float32)
MODULE = LohaModule("a", *FACTORS, alpha=1.0)
JOBS = {
    "cpu-blocked": lambda: merge_(torch.zeros(6, 8), FACTORS, 0.5),
    "grouped-torch": lambda: merge_(torch.zeros(6, 8), FACTORS, 0.5),
    "reference": lambda: merge_(torch.zeros(6, 8), FACTORS, 0.5),
    "DoRA": lambda: product.merge_dora_(torch.ones(6, 8), FACTORS, 0.5, torch.ones(6, 1), 0.5),
    "gradient": lambda: gradients(torch.ones(6, 8), FACTORS, 0.5),
    "reference gradient": lambda: reference.gradients(torch.ones(6, 8), FACTORS, 0.5),
    "ΔW": lambda: reference.delta(MODULE),
    "norm": lambda: product.squared_norms([LohaModule("a", *FACTORS, alpha=1.0)])[0],
    "peak": lambda: product.largest(MODULE),
}


class _Watched(TorchDispatchMode):
    """Notes the precision that each matrix product runs under."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("mm", "bmm", "matmul", "addmm", "addmm_"):
            self.seen.add(_precision())
        return function(*args, **(kwargs or {}))


def _precision():
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return torch.get_float32_matmul_precision()
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def lowered():
    torch.set_float32_matmul_precision("medium")
    yield _precision()
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("job", JOBS)
def test_products(job, lowered, monkeypatch):
    if job in ("cpu-blocked", "grouped-torch", "reference"):
        monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", job)
    with full_precision():
        full = _precision()
    with _Watched() as watched:
        JOBS[job]()
    assert full != lowered and watched.seen == {full}
    assert _precision() == lowered, "the program's own setting is put back"


def test_blocks_of_two_threads_leave_no_trace(lowered):
    """A enters, B enters, A leaves: B is still inside; B leaves: all is as it was."""
    a, b = full_precision(), full_precision()
    a.__enter__()
    full = _precision()
    b.__enter__()
    a.__exit__(None, None, None)
    assert _precision() == full
    b.__exit__(None, None, None)
    assert _precision() == lowered


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch is older than 2.9")
def test_a_setting_by_its_newer_name_is_no_hindrance():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        JOBS["grouped-torch"]()
        with full_precision():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
