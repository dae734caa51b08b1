"""Processes that join one another as torchrun's do, each running a piece of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore

TESTS = Path(__file__).resolve().parents[1]
_BEGIN = """
import sys
sys.path[:0] = [{tests!r}, {unit!r}]
import conftest, torch
from shinymas_loha.loha.training.run import processes
torch.set_num_threads(1)
world = processes.join(on_cpu=True)
"""


def run_ranks(code: str, size: int = 2, seconds: float = 120) -> list[tuple[int, str]]:
    """Run `code` in `size` processes that have joined as `world`; exit code and output of each, by rank.

    Raises subprocess.TimeoutExpired where one does not end.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun keeps one
    script = _BEGIN.format(tests=str(TESTS), unit=str(TESTS / "unit")) + code
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
                 "TORCHELASTIC_RESTART_COUNT": "0"})
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
