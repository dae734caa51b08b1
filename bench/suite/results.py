"""Rows of the result table, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from suite.measure import Timing


@dataclass(frozen=True)
class Row:
    """One contender in one case.

    Args:
        peak: bytes of temporaries, None where not measured.
        moved: bytes that the job must read and write at least, 0 where that says nothing.
        launches: CUDA kernels started, None on a CPU.
    """

    contender: str
    timing: Timing
    peak: int | None = None
    moved: int = 0
    launches: int | None = None


@dataclass(frozen=True)
class Case:
    """The rows of one comparison; the first is what the others' ratios refer to: `against`."""

    benchmark: str
    title: str
    rows: Sequence[Row]
    note: str = ""
    against: str = "ours"


def table(case: Case, bandwidth: float) -> str:
    """The case as lines of text."""
    columns = ["", "median ms", "min – max", f"× {case.against}", "temporaries", "of copy bandwidth", "launches"]
    lines = [columns]
    for row in case.rows:
        timing = row.timing
        lines.append([
            row.contender, _ms(timing.median), f"{_ms(timing.low)} – {_ms(timing.high)}",
            f"{timing.median / case.rows[0].timing.median:.2f}",
            "" if row.peak is None else f"{row.peak / 2**20:.1f} MB",
            f"{row.moved / timing.median / bandwidth:.0%}" if row.moved else "",
            "" if row.launches is None else str(row.launches),
        ])
    used = [index for index in range(len(columns)) if any(line[index] for line in lines[1:])]
    widths = [max(len(line[index]) for line in lines) for index in used]
    shown = [
        "  ".join(line[index].rjust(width) if index else line[index].ljust(width)
                  for index, width in zip(used, widths, strict=True)).rstrip()
        for line in lines
    ]
    title = f"{case.benchmark}: {case.title}, {case.rows[0].timing.rounds} rounds"
    return "\n".join([title, *("  " + line for line in shown), *([f"  {case.note}"] if case.note else [])])


def write_json(path: Path, machine: dict[str, object], cases: Sequence[Case]) -> None:
    """Everything measured, seconds and bytes, for programs to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "cases": [asdict(case) for case in cases]}
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.3f}" if milliseconds < 10 else f"{milliseconds:.1f}" if milliseconds < 1000 else (
        f"{milliseconds:.0f}")
