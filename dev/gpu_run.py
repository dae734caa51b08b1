"""Run the parts that need a GPU, one after the other, and print one short table last: what dev/gpu.sh starts.

A part is a list of groups of steps. The steps of a group run side by side, each as a process of its own with a time
limit, so that one that hangs or dies takes no other along. Left in OUT are a log of each part, summary.txt, and
figures.json with everything measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from kit.gpu_parts import OUT, PARTS, Step, has_cuda

_PART_SECONDS = 360
# Of the table that is printed last: what stands above it may be cut off where the output is read.
_LINES, _WIDTH, _TAIL = 100, 118, 8
_LEGEND = "milliseconds: median (fastest–slowest), × the first row, MB held at the most, of copy bandwidth, launches"


@dataclass
class Ended:
    """How a step ended: `word` is ok, FAILED, TIMED OUT or skipped."""

    part: str
    name: str
    word: str
    seconds: float
    detail: str = ""
    tail: tuple[str, ...] = ()  # of the output of one that failed

    def __str__(self) -> str:
        line = f"{self.part + ' · ' + self.name:38} {self.word:9} {self.seconds:5.0f} s  {self.detail}".rstrip()
        return "\n".join([line, *(f"    {one}" for one in self.tail)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--seconds", type=int, default=_PART_SECONDS, help="limit of each part")
    given = parser.parse_args()
    chosen = list(PARTS) if "all" in given.parts else list(given.parts)
    cuda = has_cuda()
    print(_machine(cuda), flush=True)
    ended: list[Ended] = []
    for file in OUT.glob("*.figures"):
        file.unlink()  # of a run that was cut off
    for part in chosen:
        ended += _run_part(part, cuda, time.monotonic() + given.seconds)
        _write(ended)  # after each part: a run that is cut off has left what it found
    print(_write(ended))
    for file in OUT.glob("*.figures"):
        file.unlink()  # all in figures.json
    return int(any(one.word not in ("ok", "skipped") for one in ended))


def _run_part(part: str, cuda: bool, deadline: float) -> list[Ended]:
    log = OUT / f"{part}.log"
    log.unlink(missing_ok=True)
    found = []
    for group in PARTS[part](cuda):
        running = [(step, time.monotonic(), _start(part, step, deadline, cuda)) for step in group]
        for step, began, process in running:
            one = process if isinstance(process, Ended) else _await(part, step, began, deadline, process)
            print(one, flush=True)
            found.append(one)
            _append_log(log, part, step)
    return found


def _start(part: str, step: Step, deadline: float, cuda: bool) -> subprocess.Popen | Ended:
    reason = "needs CUDA, and there is none" if step.needs_cuda and not cuda else step.obstacle
    if not reason and deadline - time.monotonic() < 5:
        return Ended(part, step.name, "TIMED OUT", 0, "not begun: the part's time was up")
    if reason:
        return Ended(part, step.name, "skipped", 0, reason)
    with _log_of(part, step).open("wb") as log:
        return subprocess.Popen(step.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env={**os.environ, **step.environment}, start_new_session=True)


def _await(part: str, step: Step, began: float, deadline: float, process: subprocess.Popen) -> Ended:
    limit = min(began + step.seconds, deadline)
    try:
        code = process.wait(max(0.0, limit - time.monotonic()))
        word = "ok" if code == 0 else "FAILED"
    except subprocess.TimeoutExpired:
        _end(process)
        code, word = -1, "TIMED OUT"
    lines = [line.rstrip() for line in _log_of(part, step).read_text(encoding="utf-8", errors="replace").splitlines()
             if line.strip()]
    detail = lines[-1].strip() if lines else ""
    tail = () if word == "ok" else tuple(lines[-_TAIL:])
    return Ended(part, step.name, word, time.monotonic() - began, detail if word == "ok" else f"code {code}", tail)


def _end(process: subprocess.Popen) -> None:
    """As Ctrl-C does at first: pytest then says what it has found."""
    for ending, seconds in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, None)):
        os.killpg(process.pid, ending)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


def _log_of(part: str, step: Step) -> Path:
    return OUT / f"{part}-{step.name.replace(' ', '-')}.part"


def _append_log(log: Path, part: str, step: Step) -> None:
    """Few files leave some machines: a step's output goes into its part's log."""
    own = _log_of(part, step)
    if own.exists():
        with log.open("ab") as whole:
            whole.write(f"\n===== {step.name}: {' '.join(step.command)}\n".encode())
            whole.write(own.read_bytes()[-2_000_000:])
        own.unlink()


def _write(ended: list[Ended]) -> str:
    """Write figures.json and summary.txt anew, and return the latter."""
    path = OUT / "figures.json"
    figures = {}
    for file in sorted(OUT.glob("*.figures")):
        try:
            figures[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # its step was ended while it wrote
    path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    lines = [_LEGEND] if figures else []
    for one in ended:
        found = figures.get(f"{one.part}-{one.name.replace(' ', '-')}")
        if found is not None:
            lines += [f"== {one.part} · {one.name}", *_table(found)]
    lines += ["", *map(str, ended)]
    shown = [line[:_WIDTH] for whole in lines for line in whole.split("\n")]
    text = "\n".join(shown) + "\n"
    (OUT / "summary.txt").write_text(text, encoding="utf-8")
    return "\n".join(shown[-_LINES:])


def _table(found: dict) -> list[str]:
    """The cases of one JSON of `bench`: a line for each row."""
    machine = found["machine"]
    lines = [f"-- {machine['device']}, {machine['torch']}, LyCORIS {machine['lycoris-lora']}, ComfyUI "
             f"{machine['ComfyUI']}, copy {machine['copy bandwidth']}, {machine['commit']}"]
    bandwidth = machine["bytes a second"]
    for case in found["cases"]:
        lines.append(f"{case['benchmark']}: {case['title']}")
        first = case["rows"][0]["timing"]["median"]
        for row in case["rows"]:
            timing = row["timing"]
            low, median, high = (f"{timing[key] * 1e3:.4g}" for key in ("low", "median", "high"))
            lines.append("  " + "  ".join(filter(None, (
                f"{row['contender']:30}", f"{median} ({low}–{high})", f"×{timing['median'] / first:.2f}",
                "" if row["peak"] is None else f"{row['peak'] / 2**20:.0f} MB",
                f"{row['moved'] / timing['median'] / bandwidth:.0%}" if row["moved"] else "",
                "" if row["launches"] is None else f"{row['launches']} launches"))))
        lines += [f"  {line}" for part in case["note"].split("; ") for line in wrap(part, _WIDTH - 2)]
    return lines


def _machine(cuda: bool) -> str:
    import torch

    where = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}" if cuda else "no CUDA: a trial on the CPU"
    kit = Path(os.environ.get("GPU_KIT", ".gpu-kit"), "kit.json")
    packed = kit.read_text(encoding="utf-8").replace("\n", "") if kit.exists() else "no kit"
    return f"{where}{_driver()}; Python {sys.version.split()[0]}, torch {torch.__version__}; {packed}; results in {OUT}"


def _driver() -> str:
    """`, driver N`, or nothing where it cannot be asked."""
    try:
        told = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", driver {told.split()[0]}" if told.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
