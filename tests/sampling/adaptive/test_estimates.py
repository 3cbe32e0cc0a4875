import json
import math
import random
import sys
from pathlib import Path

import pytest

from otelwp_agent.sampling.adaptive.estimates import Tally

sys.path.append(str(Path(__file__).parents[3] / "benchmarks/sampling"))

import coverage


def drawn(number, probability, seed=1, *, errors=0.0):
    dice = random.Random(seed)
    tally = Tally()
    for _ in range(number):
        error = dice.random() < errors
        duration = dice.lognormvariate(0, 1)
        if dice.random() < probability:
            tally.add(1 / probability, duration, error=error)
    return tally


def test_traces_kept_with_certainty_are_counted_exactly():
    tally = Tally()
    for index in range(40):
        tally.add(1.0, 0.5, error=index < 10)
    assert tally.total() == (40, 40, 40)
    assert tally.error_ratio(all_errors_certain=True) == (0.25, 0.25, 0.25)
    p50 = tally.percentile(0.5)
    assert p50.low <= 0.5 <= p50.high <= p50.low * 1.11


def test_if_nothing_was_kept_the_total_may_still_be_above_zero():
    tally = Tally()
    assert tally.total(unseen=100.0).low == 0
    assert 350 < tally.total(unseen=100.0).high < 400
    assert tally.error_ratio() == (0, 0, 1)
    assert tally.percentile(0.5) == (0, 0, math.inf)


def test_an_interval_is_narrower_with_more_traces():
    widths = []
    for number in (100, 1000, 10_000):
        estimate = drawn(number, 0.1).total()
        widths.append((estimate.high - estimate.low) / number)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.13


def test_too_few_traces_give_no_upper_end_of_a_percentile():
    tally = drawn(500, 0.1)
    assert tally.percentile(0.99).high == math.inf
    assert tally.percentile(0.5).high < 5


def test_always_kept_slow_traces_make_high_percentiles_precise():
    dice = random.Random(5)
    tally = Tally()
    durations = [dice.lognormvariate(0, 1) for _ in range(5000)]
    for duration in durations:
        if duration > 6:
            tally.add(1.0, duration, error=False)
        elif dice.random() < 0.05:
            tally.add(20.0, duration, error=False)
    estimate = tally.percentile(0.99)
    truth = sorted(durations)[4949]
    assert estimate.low <= truth <= estimate.high < estimate.low * 2
    assert drawn(5000, 0.05, 5).percentile(0.99).high == math.inf


def test_if_all_errors_were_kept_only_the_total_is_uncertain():
    tally = drawn(2000, 0.1)
    for _ in range(50):
        tally.add(1.0, 1.0, error=True)
    guessed = tally.error_ratio()
    known = tally.error_ratio(all_errors_certain=True)
    assert known.low <= 50 / 2050 <= known.high
    assert known.high - known.low < (guessed.high - guessed.low) / 2


def test_merged_is_as_if_one_had_added_all():
    one, other = drawn(300, 0.2, 1, errors=0.1), drawn(400, 0.5, 2, errors=0.2)
    both = Tally()
    both.merge(one)
    both.merge(other)
    assert both.total().value == pytest.approx(one.total().value + other.total().value)
    assert both.errors == pytest.approx(one.errors + other.errors)
    assert both.chances == one.chances + other.chances


def test_dumped_and_loaded():
    tally = drawn(300, 0.2, errors=0.1)
    tally.add(1.0, 2.0, error=True)
    tally.errors_missed = True
    loaded = Tally.load(json.loads(json.dumps(tally.dump())))
    assert loaded.dump() == tally.dump()
    assert loaded.percentile(0.9) == tally.percentile(0.9)
    assert Tally.load(Tally().dump()).dump() == Tally().dump()


@pytest.fixture(scope="module")
def inside():
    return coverage.covered(300)


@pytest.mark.parametrize("what", ["total", "error ratio", "p50", "p90", "p99"])
@pytest.mark.parametrize("key", ["heavy", "middle", "rare"])
def test_intervals_contain_the_true_value(inside, key, what):
    assert inside[f"{key}: {what}"] >= 0.93


def test_intervals_from_kept_traces_alone_are_nearly_as_narrow():
    """Later samplers do not know the number of offered traces: the variance comes from kept ones."""
    hits = 0
    for seed in range(400):
        estimate = drawn(400, 0.1, seed).total()
        hits += estimate.low <= 400 <= estimate.high
    assert hits / 400 >= 0.93
