"""Which path is chosen, which one is forced, and what happens after one failed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.kernels import ROUTES, Group, PackedFactors, Route, choose, merge_
from shinymas_loha.tests.unit.kernels_helpers import assert_merged, merged64, random_factors, random_weight

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch):
    monkeypatch.delenv("SHINYMAS_LOHA_ROUTE", raising=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_cpu_takes_its_own_path_and_needs_no_excuse(dtype):
    for grouped in (False, True):
        assert choose(torch.zeros(4, 4, dtype=dtype), (16, 16), grouped=grouped) == Route("cpu-blocked")


def test_what_no_fast_path_takes_goes_to_the_reference_with_the_reason():
    route = choose(torch.zeros(4, 4).to(torch.float8_e4m3fn), (16, 16))
    assert route.name == "reference" and "float8" in route.why
    route = choose(torch.zeros(4, 4, device="meta"), (16, 16))
    assert route == Route("reference", "no faster path for meta devices")


@pytest.mark.parametrize("name", ["fastest", "triton", "Reference", "cpu_blocked"])
def test_a_route_that_does_not_exist_cannot_be_forced(monkeypatch, name):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", name)
    with pytest.raises(SettingsError) as raised:
        merge_(torch.zeros(4, 4), random_factors(0, 4, 4, 2, 2, torch.float16), 1.0)
    assert repr(name) in str(raised.value) and all(route in str(raised.value) for route in ROUTES)


def test_a_forced_route_that_cannot_run_here_leaves_the_next_best_and_says_so(monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", "grouped-triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    route = choose(torch.zeros(4, 4), (16, 16), grouped=True)
    assert route.name == "cpu-blocked"
    assert route.why.startswith("grouped-triton, forced by SHINYMAS_LOHA_ROUTE, cannot run: Triton ")


def test_ranks_over_128_never_reach_triton(monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", "fused-triton")
    weight = random_weight(0, 20, 30, "contiguous", torch.float32)
    factors = random_factors(0, 20, 30, 130, 2, torch.float16)
    truth = merged64(weight, factors, 0.1)
    assert merge_(weight, factors, 0.1) == "cpu-blocked"
    assert_merged(weight, truth)


def test_a_weight_that_overlaps_itself_is_refused_not_raced():
    with pytest.raises(RuntimeError):
        merge_(torch.zeros(4, 1).expand(4, 6), random_factors(0, 4, 6, 2, 2, torch.float16), 1.0)


def test_running_out_of_memory_is_passed_on_and_held_against_no_path():
    class Full(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            raise torch.OutOfMemoryError("no memory for this test")

    weight = torch.zeros(4, 6)
    factors = random_factors(0, 4, 6, 2, 2, torch.float16)
    with pytest.raises(torch.OutOfMemoryError), Full():
        merge_(weight, factors, 1.0)
    assert merge_(weight, factors, 1.0) == "cpu-blocked"


def test_the_group_reports_each_route(monkeypatch):
    monkeypatch.setenv("SHINYMAS_LOHA_ROUTE", "grouped-torch")
    weights = [torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.float64), torch.zeros(4, 6)]
    factors = [random_factors(n, 4, 6, 2, 2, torch.float16) for n in range(3)]
    taken = Group(weights, PackedFactors(factors, torch.device("cpu"))).merge([1.0] * 3)
    assert {route.name: count for route, count in taken.items()} == {"grouped-torch": 2, "cpu-blocked": 1}


def test_importing_the_kernels_imports_no_triton():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest\n"
        "from shinymas_loha.loha import kernels\n"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
