"""The losses of a run, few enough to be sent and drawn often."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean


def thinned(losses: Sequence[float], most: int) -> list[tuple[int, float]]:
    """The losses of steps 1, 2, … as at most `most` points (last step, mean loss), each over equally many steps.

    The last point may stand for fewer; no step is left out.
    """
    stride = max(1, -(-len(losses) // most))
    return [(min(at + stride, len(losses)), fmean(losses[at:at + stride])) for at in range(0, len(losses), stride)]
