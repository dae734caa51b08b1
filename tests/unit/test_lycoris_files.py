"""Whole files as the model page's were made: by LyCORIS's own `create_network`, of now and of 2023."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lohas import sd15_rows
from shinymas_loha.loha import files, report
from shinymas_loha.loha.binding import bind

TESTS = Path(__file__).resolve().parent.parent
OLD = TESTS.parent / ".tools" / "lycoris-2023"
ROWS = sd15_rows()


@pytest.mark.parametrize("folder", [
    None,
    pytest.param(OLD, marks=pytest.mark.skipif(not OLD.is_dir(), reason="`make test` installs the LyCORIS of 2023")),
], ids=["3.4", "2023"])
def test_the_pages_network_is_read_and_bound_whole(folder, tmp_path):
    path = tmp_path / "network.safetensors"
    environment = dict(os.environ) | ({"PYTHONPATH": str(folder)} if folder else {})
    made = subprocess.run([sys.executable, TESTS / "support" / "lycoris_network.py", path], env=environment,
                          capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert made.returncode == 0, made.stderr
    assert 43.3e6 < path.stat().st_size < 43.6e6  # as large as the files of the page

    loha = files.read(path)
    assert (len(loha.modules), len(loha.others), len(loha.refused)) == (302, 0, 0)
    assert set(loha.modules) == {row.kohya_name for row in ROWS if row.in_seed_set}
    assert {(module.rank, module.alpha, module.layout) for module in loha.modules.values()} == {(16, 1.0, "flat")}

    binding = bind(loha, [row.target(torch.float16) for row in ROWS])
    binding.demand(strict=True)
    assert report.binding_lines(binding)[:4] == ["modules: 302", "applied: 302", "skipped: 0", "unknown: 0"]
    assert (binding.file_base, binding.model_base) == ("SD 1.5", "SD 1.5")
