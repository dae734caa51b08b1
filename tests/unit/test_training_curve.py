"""The losses of a long run as few points: none is left out, and the last is the last step."""

from __future__ import annotations

from statistics import fmean

import pytest
from shinymas_loha.loha.training.run.chart import thinned


def test_a_short_run_is_told_step_by_step():
    assert thinned([], 500) == []
    assert thinned([0.5, 0.25, 0.125], 3) == [(1, 0.5), (2, 0.25), (3, 0.125)]


@pytest.mark.parametrize("steps", [501, 999, 1000, 1001, 12_345])
def test_a_long_run_keeps_its_mean_and_its_end(steps):
    losses = [float(step % 7) for step in range(steps)]
    points = thinned(losses, 500)
    assert 250 <= len(points) <= 500
    ends = [step for step, _ in points]
    assert ends == sorted(set(ends)) and ends[-1] == steps
    widths = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    assert len(set(widths[:-1])) == 1 and widths[-1] <= widths[0]
    total = sum(width * mean for width, (_, mean) in zip(widths, points, strict=True))
    assert total / steps == pytest.approx(fmean(losses))
