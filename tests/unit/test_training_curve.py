"""The losses of a long run as few points: none is left out, and the last is the last step."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from shinymas_loha.loha.training.run.chart import loss_chart, thinned


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


def test_validations_are_drawn_over_the_losses_and_nothing_changes_without_them():
    losses = [0.5 - 0.01 * step for step in range(20)]
    plain = loss_chart(losses)
    assert torch.equal(loss_chart(losses, (), ()), plain)
    drawn = loss_chart(losses, (), [(5, 0.4), (10, 0.35), (20, 0.45)])
    ink = torch.tensor([0xB4, 0x53, 0x09]) / 255.0
    assert ((drawn[0] - ink).abs().amax(-1) < 1e-6).sum() > 100
    assert not ((plain[0] - ink).abs().amax(-1) < 1e-6).any()
    loss_chart([0.5], (), [(1, 0.5)])
