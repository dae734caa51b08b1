"""Does the trainer teach? Shown small: `make learning`, under 15 minutes on 2 cores.

A small U-Net learns to paint people from their tags. This pack's trainer, and LyCORIS' modules on the same seeds, then
teach it ten characters by name. Who is recognised, the nearest sprite tells. The table goes to stdout; a sheet of
pictures, a chart, the figures and the trained file go to bench/out/learning/.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

_EVERY = 10.0  # seconds between lines of progress
_OUT = Path(__file__).resolve().parent / "out" / "learning"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps: shows that it runs, not what is learnt")
    parser.add_argument("--out", type=Path, default=_OUT, help="where files go")
    options = parser.parse_args()
    began = time.perf_counter()

    # Here, not above: this takes seconds, in which Ctrl-C is to end in one line too.
    from suite.session import load_pack

    load_pack()
    from suite.learning import results
    from suite.learning.experiment import FULL, QUICK, run

    options.out.mkdir(parents=True, exist_ok=True)
    found = run(QUICK if options.quick else FULL, options.out, _Progress(began))
    seconds, processor = time.perf_counter() - began, sum(os.times()[:2])
    print(f"\nrecognised when painted by name, by the pictures trained on (nearest of 96 sprites):\n"
          f"{results.table(found)}\n\n{seconds:.0f} s, {processor:.0f} s of one core")
    results.sheet(found.cells).save(options.out / "sheet.png")
    results.chart(found.cells).save(options.out / "chart.png")
    figures = results.figures(found) | {"seconds": seconds, "processor seconds": processor}
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(f"sheet.png, chart.png, figures.json and learning.safetensors are in {options.out}")


class _Progress:
    """A line now and then: what is trained, how far, its mean loss since the line before."""

    def __init__(self, began: float) -> None:
        self._began = self._last = began
        self._losses: list[float] = []

    def __call__(self, what: str, step: int, steps: int, loss: float) -> None:
        self._losses.append(loss)
        now = time.perf_counter()
        if now - self._last < _EVERY and step not in (1, steps):
            return
        mean = sum(self._losses) / len(self._losses)
        print(f"{now - self._began:4.0f} s  {what}: step {step} of {steps}, loss {mean:.4f}", flush=True)
        self._last, self._losses = now, []


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped before the end: nothing was measured") from None
