"""What each part of `dev/gpu.sh` runs. On a machine without CUDA the same steps run at sizes for a trial."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

OUT = Path(os.environ.get("OUT", ".gpu-kit/out")).resolve()
_UNPACKED = os.environ.get("GPU_KIT_UNPACKED", "")


@dataclass(frozen=True)
class Step:
    """One command with a limit in seconds; `obstacle` says why it cannot run here, if so."""

    name: str
    command: tuple[str, ...]
    seconds: int
    needs_cuda: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    obstacle: str = ""


Groups = list[list[Step]]


def has_cuda() -> bool:
    """Whether torch finds a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def correctness(cuda: bool) -> Groups:
    """Everything that must be right, side by side: what it waits for is mostly the compiler, and the host."""
    sanitizer = shutil.which("compute-sanitizer") or _first_existing("/usr/local/cuda/bin/compute-sanitizer")
    # One allocation a tensor: in torch's own pool a read past the end of a tensor stays inside the pool.
    no_pool = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "TRITON_INTERPRET": "0" if cuda else "1"}
    one_pass = (sys.executable, "tests/cuda/one_pass.py")
    return [_side_by_side([
        _tests("kernels against float64", "tests/unit/triton_kernels/against_float64.py", 330, needs_cuda=True,
               environment={"TRITON_INTERPRET": "0"}, workers=6),
        _tests("layers together", "tests/unit/triton_kernels/grouped_layers.py", 330, needs_cuda=True,
               environment={"TRITON_INTERPRET": "0"}, workers=4),
        _tests("every route", "tests/cuda/test_routes.py", 300, workers=6),
        _tests("patching", "tests/cuda/test_patching.py", 200),
        _tests("training", "tests/cuda/test_training.py", 200),
        _tests("two processes", "tests/cuda/test_processes.py", 240),
        _tests("kernels on the CPU", "tests/unit/test_kernels_merge.py", 200),
        _tests("gradient on the CPU", "tests/unit/test_kernels_gradient.py", 200),
        Step("one pass", one_pass, 200, environment=no_pool),
        Step("one pass under memcheck", (sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *one_pass), 300,
             needs_cuda=True, environment=no_pool, obstacle="" if sanitizer else "compute-sanitizer is not installed"),
        # For the part `server`, whose own time is short.
        Step("sample models", (sys.executable, "dev/write_samples.py", "sd15" if cuda else "tests"), 240),
    ])]


def bench(cuda: bool) -> Groups:
    quick = () if cuda else ("--quick",)
    limits = {"merge": 150, "patch": 70, "gradient": 90}
    steps = [_bench("bench", name, name, seconds, *quick, "--seconds", "1.5") for name, seconds in limits.items()]
    return [[step] for step in (*steps, _bench("bench", "gradient tuned", "gradient", 120, *quick, "--seconds", "1.5",
                                               tuned=True))]


def tune(cuda: bool) -> Groups:
    quick = () if cuda else ("--quick",)
    return [[_bench("tune", "tiles", "tune", 150, *quick, "--seconds", "1",
                    environment={"TRITON_INTERPRET": "0" if cuda else "1"})]]


def training(cuda: bool) -> Groups:
    """Both LyCORIS in turn, each beside ours and beside a LoRA: two versions do not fit into one process."""
    quick = () if cuda else ("--quick",)
    return [[_bench("training", name, "step", 170, *quick, "--seconds", "6", lycoris=f"lycoris-{name.split()[0]}",
                    tuned="tuned" in name)] for name in ("eager", "fused", "fused tuned")]


def server(cuda: bool) -> Groups:
    quick = () if cuda else ("--quick",)
    return [[_bench("server", "strength", "strength", 340, *quick)]]


# In the order in which what matters first comes first.
PARTS: dict[str, Callable[[bool], Groups]] = {
    "correctness": correctness, "bench": bench, "training": training, "server": server, "tune": tune,
}


def _tests(name: str, path: str, seconds: int, *, needs_cuda: bool = False, workers: int = 1,
           environment: Mapping[str, str] | None = None) -> Step:
    several = ("-n", str(workers)) if workers > 1 and importlib.util.find_spec("xdist") else ()
    # It times nothing here, and warns of each worker.
    quiet = ("-p", "no:benchmark") if importlib.util.find_spec("pytest_benchmark") else ()
    options = ("-c", "tests/pytest.ini", "-rfs", "--durations=5", *quiet, *several)
    command = (sys.executable, "-m", "pytest", *options, path)
    return Step(name, command, seconds, needs_cuda, _environment("lycoris-eager", environment))


def _bench(part: str, name: str, benchmark: str, seconds: int, *options: str, lycoris: str = "lycoris-fused",
           tuned: bool = False, environment: Mapping[str, str] | None = None) -> Step:
    """`tuned` lets LyCORIS time its kernels' variants first, which may take minutes; else it picks by its model."""
    figures = str(OUT / f"{part}-{name.replace(' ', '-')}.figures")
    command = (sys.executable, "bench/run.py", "--only", benchmark, *options, "--figures", figures)
    tuning = {"LYCORIS_KERNEL_TUNE": "on" if tuned else "off"}
    return Step(name, command, seconds, environment=_environment(lycoris, {**tuning, **(environment or {})}))


def _side_by_side(steps: list[Step]) -> list[Step]:
    """A thread for each process: with torch's default, one for each core, they wait for one another."""
    return [replace(step, environment={"OMP_NUM_THREADS": "1", **step.environment}) for step in steps]


def _environment(lycoris: str, more: Mapping[str, str] | None) -> dict[str, str]:
    path = os.pathsep.join([os.path.join(_UNPACKED, lycoris), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, **(more or {})}


def _first_existing(path: str) -> str:
    return path if os.path.exists(path) else ""
