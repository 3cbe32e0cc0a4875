from __future__ import annotations

import pytest

from otelwp_agent.routing.figures import CLASSES, HALF_LIFE, STALE, LiveFigures


def test_percentiles_are_exact_to_ten_percent():
    figures = LiveFigures()
    for number in range(1, 101):
        figures.delivered(0, number / 1000)
    assert figures.percentile(0.5) == pytest.approx(0.050, rel=0.1)
    assert figures.percentile(0.95) == pytest.approx(0.095, rel=0.1)
    assert figures.percentile(1.0) == pytest.approx(0.1, rel=0.1)


def test_without_observations_nothing_is_known():
    figures = LiveFigures()
    assert not figures.known(0)
    assert (figures.percentile(0.5), figures.success_ratio()) == (0, 1)
    figures.failed(5)
    assert (figures.known(5 + STALE), figures.known(5.1 + STALE)) == (True, False)


def test_older_observations_count_half_after_each_half_life():
    figures = LiveFigures()
    for _ in range(4):
        figures.failed(0)
    figures.delivered(2 * HALF_LIFE, 0.1)
    assert figures.success_ratio() == pytest.approx(0.5)


def test_a_slow_phase_is_forgotten():
    figures = LiveFigures()
    for now in range(100):
        figures.delivered(now, 1.0)
    for now in range(100, 200):
        figures.delivered(now, 0.01)
    assert figures.percentile(0.95) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e6])
def test_the_shortest_and_the_longest_latencies_have_a_class(seconds):
    figures = LiveFigures()
    figures.delivered(0, seconds)
    assert figures.percentile(0.5) > 0
    assert len(figures._classes) == CLASSES


def test_weights_stay_finite_after_years():
    figures = LiveFigures()
    for year in range(5):
        now = year * 3e7
        figures.failed(now)
        figures.delivered(now + 1, 0.1)
    assert figures.success_ratio() == pytest.approx(0.5, rel=0.1)
    assert figures.percentile(0.5) == pytest.approx(0.1, rel=0.1)
