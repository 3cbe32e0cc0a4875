"""The figures in docs/topics/adaptive_sampling.md are those of benchmarks/sampling/simulate.py."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks/sampling"))

import simulate


@pytest.fixture(scope="module")
def ours():
    return simulate.run("ours", simulate.ours())


@pytest.fixture(scope="module", params=[True, False], ids=["whole rates", "real rates"])
def theirs(request):
    return simulate.run("theirs", simulate.refinery(whole=request.param))


def test_the_budget_is_kept(ours):
    assert ours.budget_error < 0.02
    assert ours.overshoot <= 1.1
    assert min(ours.minutes()) > 0.9


def test_rare_routes_are_kept(ours):
    assert ours.part_kept_of_rare(burst=False) > 0.88


def test_errors_are_kept_up_to_their_ceiling(ours):
    assert simulate.errors_up_to_ceiling(ours) >= 0.95
    quiet = range(simulate.WARM_UP, simulate.INCIDENT[0])
    kept, there = (sum(spans[at] for at in quiet if not at_burst(at)) for spans in (ours.errors_kept, ours.errors))
    assert kept == there


def test_the_new_release_and_first_sights_are_kept(ours):
    assert ours.reasons["kept: release"] > 10
    assert ours.reasons["kept: first_seen"] > 50


def test_ahead_of_the_moving_average(ours, theirs):
    assert ours.budget_error < theirs.budget_error / 10
    assert ours.overshoot < theirs.overshoot
    assert ours.part_kept_of_rare(burst=False) > theirs.part_kept_of_rare(burst=False)


def at_burst(second):
    return simulate.ALL_BURST[0] <= second < simulate.ALL_BURST[1]
