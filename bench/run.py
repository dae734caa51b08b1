"""Speed and memory beside ComfyUI's core and LyCORIS, in one process, in turns: `make bench`.

Writes the table to stdout and everything measured to bench/out/.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from suite import core_training, gradient, memory, merge, patch, reading, scene, step, strength, training, tune
from suite.measure import copy_bandwidth
from suite.results import Case, table, write_json
from suite.session import ROOT, Session, load_comfyui_and_pack

BENCHMARKS = {
    "read": reading.cases,
    "merge": merge.cases,
    "patch": patch.cases,
    "gradient": gradient.cases,
    "training": training.cases,
    "core-training": core_training.cases,
    "memory": memory.cases,
    "strength": strength.cases,
    "scene": scene.cases,
    "step": step.cases,
    "tune": tune.cases,
}
_SECONDS = 12.0


def main() -> None:
    options = _options()
    # Without a GPU torch's profiler reports one missing GPU on stderr for each measurement.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    began = time.perf_counter()
    device = load_comfyui_and_pack()
    bandwidth = copy_bandwidth(device)
    session = Session(device, 0.0 if options.quick else options.seconds, options.quick, bandwidth)
    machine = _machine(session)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)

    path = options.figures or ROOT / "bench" / "out" / f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    cases: list[Case] = []
    for name in options.only or BENCHMARKS:
        print(f"\n== {name} ({time.perf_counter() - began:.0f} s)", flush=True)
        for case in BENCHMARKS[name](session):
            print(table(case, bandwidth) + "\n", flush=True)
            cases.append(case)
            # After each: a run that is cut off leaves what it has found.
            write_json(path, machine | {"bytes a second": bandwidth, "load after": _load()}, cases)
    print(f"done in {time.perf_counter() - began:.0f} s, figures in {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few small weights: shows that it runs, not how fast")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME",
                        help=f"one of {', '.join(BENCHMARKS)}; may be given several times")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for each comparison, after its warm-up")
    parser.add_argument("--figures", type=Path, help="where everything measured is written; bench/out/ by default")
    return parser.parse_args()


def _machine(session: Session) -> dict[str, object]:
    cuda = session.device.type == "cuda"
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip() if shutil.which("git") else ""
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "commit": commit or "unknown",
        "device": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads on {_processor()}",
        "torch": torch.__version__,
        "lycoris-lora": importlib.metadata.version("lycoris-lora"),
        "ComfyUI": _comfyui_version(),
        "copy bandwidth": f"{session.bandwidth / 1e9:.1f} GB/s",
        "load before": _load(),
        "quick": session.quick,
    }


def _comfyui_version() -> str:
    from comfyui_version import __version__

    return __version__


def _processor() -> str:
    """The model as the system names it; `platform` knows only the architecture on Linux."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _load() -> str:
    """Load average of the last minute: figures of a busy machine are to be taken with care."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    main()
