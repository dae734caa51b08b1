"""Optimisers by name: what is known, what is never imported, what stands in for a missing one."""

import sys

import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.optimisation.arguments import parse_arguments
from shinymas_loha.loha.training.optimisation.optimisers import (
    check_optimiser,
    make_optimiser,
    optimiser_names,
)


def _groups(*rates: float):
    return [{"params": [torch.nn.Parameter(torch.ones(2, 2))], "lr": rate} for rate in rates or (1e-3,)]


@pytest.mark.parametrize("name", ["AdamW", "adamw", "torch.optim.AdamW"])
def test_torchs_own_by_any_spelling(name):
    optimizer, note = make_optimiser(name, _groups(1e-3, 5e-4), "weight_decay=0.02 betas=0.9,0.95")
    assert type(optimizer) is torch.optim.AdamW and not note
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 5e-4]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)


def test_adamw8bit_off_cuda_becomes_adamw_and_says_so():
    optimizer, note = make_optimiser("AdamW8bit", _groups())
    assert type(optimizer) is torch.optim.AdamW
    assert note == "AdamW8bit → AdamW: bitsandbytes works on CUDA alone"


@pytest.mark.parametrize("name", [
    "os.system", "subprocess.Popen", "torch.optim.LBFGS", "Optimizer", "lr_scheduler", "prodigyopt.os", "",
])
def test_nothing_beyond_the_list_is_imported(name):
    before = set(sys.modules)
    with pytest.raises(SettingsError, match="is not known. Known: Adadelta"):
        make_optimiser(name, _groups())
    assert set(sys.modules) == before


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(SettingsError, match="Prodigy: prodigyopt cannot be imported .* choose AdamW"):
        make_optimiser("prodigyopt.Prodigy", _groups())


@pytest.mark.parametrize("name", [
    name for name in optimiser_names() if hasattr(torch.optim, name)
])
def test_each_of_torchs_takes_a_step(name):
    groups = _groups(1e-2)
    optimizer, note = make_optimiser(name, groups)
    weight = groups[0]["params"][0]
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert not note and torch.isfinite(weight).all() and not torch.equal(weight, torch.ones(2, 2))


def test_arguments_are_literals_and_nothing_else():
    assert parse_arguments(" a=1  b=True c=(1,2) d=0.9,0.99 ") == {
        "a": 1, "b": True, "c": (1, 2), "d": (0.9, 0.99),
    }
    for wrong in ("a", "a=__import__('os')", "=1", "a=b", "a-b=1"):
        with pytest.raises(SettingsError, match="optimizer_args"):
            parse_arguments(wrong)


def test_wrong_arguments_are_refused_with_the_optimisers_own_words():
    with pytest.raises(SettingsError, match="AdamW does not take 'momentum=0.9'"):
        make_optimiser("AdamW", _groups(), "momentum=0.9")
    with pytest.raises(SettingsError, match="lr is not taken here"):
        make_optimiser("AdamW", _groups(), "lr=1")


def test_a_missing_package_is_told_by_the_check_already(monkeypatch):
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    with pytest.raises(SettingsError, match=r"optimizer Lion: lion_pytorch cannot be imported .*"
                                            r"\(pip install lion-pytorch\), or choose AdamW"):
        check_optimiser("Lion")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what lacks on a machine without CUDA")
def test_bitsandbytes_without_cuda_is_told_where_nothing_stands_in():
    check_optimiser("AdamW8bit", "weight_decay=0.1")
    if not torch.cuda.is_available():  # AdamW runs instead
        with pytest.raises(SettingsError, match="optimizer adamw does not take 'nonsense=1'"):
            check_optimiser("AdamW8bit", "nonsense=1")
    with pytest.raises(SettingsError, match="Lion8bit: bitsandbytes works on CUDA alone, and .* here. Choose AdamW"):
        check_optimiser("Lion8bit")


@pytest.mark.parametrize("arguments, words", [
    ("momentum=0.9", "unexpected keyword argument 'momentum'"),
    ("betas=2,3", "Invalid beta parameter"),
    ("fused=True foreach=True", "cannot be `True` together"),
    ("betas=()", "out of range"),
])
def test_arguments_are_tried_by_the_check_already(arguments, words):
    with pytest.raises(SettingsError, match=f"optimizer AdamW does not take .*{words}"):
        check_optimiser("AdamW", arguments)


def test_checking_does_not_import_bitsandbytes(tmp_path, monkeypatch):
    """It would load CUDA's libraries, in the middle of queueing a prompt."""
    package = tmp_path / "bitsandbytes"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_optimiser("AdamW8bit")
