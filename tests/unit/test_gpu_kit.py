"""The GPU kit: what goes into it, and what is said when it is too large."""

from pathlib import Path

import pytest
from shinymas_loha.dev import gpu_kit
from shinymas_loha.dev.kit import gpu_parts

ROOT = Path(__file__).resolve().parents[2]


def test_a_kit_over_the_limit_names_its_largest_part():
    gpu_kit.check_size({"site": 40_000_000, "tree": 1_000_000}, limit=41_000_000)
    with pytest.raises(gpu_kit.KitError, match=r"^The kit has 41\.0 MB and may have 40\.5: .* site with 40\.0 MB\.$"):
        gpu_kit.check_size({"site": 40_000_000, "tree": 1_000_000}, limit=40_500_000)


@pytest.mark.parametrize(("member", "kept"), [
    ("bitsandbytes/libbitsandbytes_cuda130.so", True), ("bitsandbytes/libbitsandbytes_cuda128.so", False),
    ("bitsandbytes/optim/adamw.py", True), ("comfy_kitchen/backends/cuda/_C.abi3.so", False),
    ("comfy_kitchen/__init__.py", True), ("av.libs/libavcodec.so.62", True),
])
def test_machine_code_for_other_machines_stays_out(member, kept):
    assert gpu_kit.is_kept(member) == kept


def test_of_a_comfyui_only_its_own_code_is_packed(tmp_path):
    for name in ("main.py", "comfy/sd.py", "comfy/__pycache__/sd.pyc", "models/checkpoints/a.safetensors",
                 "custom_nodes/other/nodes.py", ".venv/bin/python", "user/default/graph.json",
                 "app/models/asset.py", "comfy/big_tokenizer/vocab.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (2_000_000 if "big" in name else 1))
    packed = {path.relative_to(tmp_path).as_posix() for path in gpu_kit.comfyui_files(tmp_path)}
    assert packed == {"main.py", "comfy/sd.py", "app/models/asset.py"}


def test_what_is_packed_is_pinned():
    lines = gpu_kit.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_tree_is_packed_as_git_knows_it():
    packed = {path.relative_to(ROOT).as_posix() for path in gpu_kit.tree_files()}
    assert {"__init__.py", "dev/gpu.sh", "tests/data/sd15-modules.tsv"} <= packed
    assert not [name for name in packed if name.startswith((".tools/", ".gpu-kit/", ".git/"))]


def test_steps_that_run_side_by_side_have_one_thread_each():
    for part in gpu_parts.PARTS.values():
        for group in part(False):
            assert all((step.environment.get("OMP_NUM_THREADS") == "1") == (len(group) > 1) for step in group)
