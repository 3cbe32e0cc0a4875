import math

import pytest

from otelwp_agent.sampling.adaptive.histogram import bucket_of
from otelwp_agent.sampling.adaptive.keys import HALF_LIFE, LONGEST, Keys, KeyState
from otelwp_agent.sampling.adaptive.trace import OTHER
from otelwp_agent.sampling.consistent import ALWAYS


def see(state, number):
    state.seen += number
    state.weight += number
    state.adjusted += number


def settled(rate, seconds=60):
    state = KeyState(0.0, math.inf)
    state.seen = 0
    for second in range(seconds):
        see(state, rate)
        state.measure(second + 1.0, 1.0)
    return state


def test_a_rate_is_measured():
    assert settled(50).traffic == pytest.approx(50)
    assert settled(50).weight_rate == pytest.approx(50)


def test_the_very_first_trace_is_no_rate():
    state = KeyState(0.0, math.inf)
    state.seen += 1
    state.measure(1.0, 1.0)
    assert state.traffic == 0


@pytest.mark.parametrize(("seen", "surprising"), [(50, False), (70, False), (20, True), (1000, True)])
def test_noise_is_not_a_change(seen, surprising):
    state = settled(50)
    state.seen = seen
    assert state.surprises(1.0) is surprising


def test_a_burst_is_adopted_immediately():
    keys = Keys(10, 3600.0, math.inf, 0.0)
    state = keys.admit(("a",), 0.0)
    state.seen = 0
    for second in range(60):
        see(state, 50)
        keys.measure(second + 1.0, 1.0)
    see(state, 1000)
    keys.measure(61.0, 1.0)
    assert state.traffic == pytest.approx(1000, rel=0.11)
    see(state, 50)
    keys.measure(62.0, 1.0)
    assert state.traffic == pytest.approx(50, rel=2.0)


def test_a_change_too_small_for_each_key_is_noticed_in_the_total():
    keys = Keys(1000, 3600.0, math.inf, 0.0)
    states = [keys.admit((str(number),), 0.0) for number in range(500)]
    for state in states:
        state.seen = 0
    for second in range(200):
        for number, state in enumerate(states):
            see(state, number % 10 == second % 10)
        keys.measure(second + 1.0, 1.0)
    before = sum(state.traffic for state in states)
    assert before == pytest.approx(50, rel=0.2)
    for number, state in enumerate(states):
        see(state, 2 * (number % 10 < 5))
    keys.measure(201.0, 1.0)
    assert sum(state.traffic for state in states) == pytest.approx(500, rel=0.2)


def test_a_rare_keys_rate_is_steadier_than_a_heavy_ones():
    rare = settled(0)
    rare.traffic = 0.05
    rare.measured = 1000.0
    see(rare, 1)
    rare.measure(61.0, 1.0)
    assert rare.traffic < 0.06


def test_slow_is_known_after_enough_traces():
    state = KeyState(0.0, math.inf)
    for number in range(400):
        state.learn(bucket_of(0.1 + number / 1000), 0.9, math.inf, 100)
        assert (state.slow_above == math.inf) == (number < 99)
    assert 0.4 < state.slow_above < 0.55


def test_what_is_slow_changes_with_the_key():
    state = KeyState(0.0, math.inf)
    for duration in (0.1, 1.0):
        for _ in range(20_000):
            state.learn(bucket_of(duration), 0.9, math.inf, 100)
    assert state.slow_above > 1.0
    for _ in range(20_000):
        state.learn(bucket_of(0.1), 0.9, math.inf, 100)
    assert state.slow_above < 0.2


def test_keys_without_traffic_are_removed():
    keys = Keys(2, 100.0, math.inf, 0.0)
    keys.admit(("a",), 0.0)
    keys.measure(50.0, 50.0)
    assert ("a",) in dict(keys)
    keys.measure(200.0, 150.0)
    assert not keys.states
    assert keys.find(("a",)) is keys.other


def test_heavy_untracked_keys_replace_light_ones():
    keys = Keys(2, 3600.0, math.inf, 0.0)
    for name in ("a", "b"):
        keys.admit((name,), 0.0)
    for second in range(1, 21):
        see(keys.states.get(("a",), keys.other), 20)
        see(keys.states.get(("b",), keys.other), 1)
        for _ in range(10):
            state = keys.states.get(("c",)) or keys.admit(("c",), float(second))
            see(state, 1)
        keys.measure(float(second), 1.0)
    assert set(keys.states) == {("a",), ("c",)}
    assert keys.states[("c",)].traffic == pytest.approx(10, rel=0.2)
    assert keys.states[("c",)].firsts > 10**6, "it is no first sight"


def numbers(state):
    return state.traffic, state.weight_rate, state.adjusted_rate


def known(traffic, seconds=1000.0):
    """A key with so many traces a second, each of weight 2, which stand for 3 each."""
    state = KeyState(0.0, math.inf)
    state.seen = 0
    state.measured = seconds
    state.traffic, state.weight_rate, state.adjusted_rate = traffic, 2 * traffic, 6 * traffic
    return state


def test_a_new_key_has_no_traffic_and_nothing_kept():
    state = KeyState(7.0, 1.5, 99)
    assert (state.threshold, state.slow_above, state.last_seen) == (99, 1.5, 7.0)
    assert (state.weight, state.adjusted, state.measured) == (0, 0, 0)
    assert numbers(state) == (0, 0, 0)
    assert (state.arrived, state.firsts) == (0, 0)
    assert (state.tally.count, state.earlier) == (0, None)


@pytest.mark.parametrize(
    ("traffic", "half_life"), [(50.0, HALF_LIFE), (1.0, HALF_LIFE), (0.5, 20.0), (0.05, 200.0), (0.01, LONGEST)]
)
def test_a_measurement_rests_on_ten_traces_within_bounds(traffic, half_life):
    state = known(traffic)
    state.measured = 1e9
    state.measure(2.0, 2.0)
    fades = 0.5 ** (2.0 / half_life)
    assert numbers(state) == pytest.approx((traffic * fades, 2 * traffic * fades, 6 * traffic * fades))


def test_all_three_rates_are_averaged():
    state = known(10.0)
    state.measured = 1e9
    state.seen, state.weight, state.adjusted = 40, 60.0, 80.0
    state.measure(2.0, 2.0)
    part = 1 - 0.5 ** (2.0 / HALF_LIFE)
    assert numbers(state) == pytest.approx(
        (10 + part * (40 / 2 - 10), 20 + part * (60 / 2 - 20), 60 + part * (80 / 2 - 60))
    )
    assert (state.seen, state.weight, state.adjusted) == (0, 0, 0)
    assert (state.last_seen, state.measured) == (2.0, 1e9 + 2)


def test_what_is_known_for_a_short_time_only_is_a_mean_of_that_time():
    state = KeyState(0.0, math.inf)
    state.seen = 0
    for second, seen in enumerate((30, 10, 20)):
        see(state, seen)
        state.measure(second + 1.0, 1.0)
    assert state.traffic == pytest.approx(20)


def test_a_key_that_pauses_fades_and_is_not_seen():
    state = known(10.0)
    state.measure(1.0, 1.0)
    assert state.last_seen == 0.0
    assert state.traffic < 10.0


def test_scaling_changes_all_three_rates():
    state = known(10.0)
    state.scale(0.5)
    assert numbers(state) == (5.0, 10.0, 30.0)


@pytest.mark.parametrize(
    ("traffic", "elapsed", "seen", "surprising"),
    [
        (25.0, 4.0, 140, False),  # 4 standard errors above 100
        (25.0, 4.0, 141, True),
        (25.0, 4.0, 60, False),
        (25.0, 4.0, 59, True),
        (0.0, 1.0, 4, False),  # as if one had been expected
        (0.0, 1.0, 5, True),
        (1.5, 1.0, 6, False),
        (1.5, 1.0, 7, True),
    ],
)
def test_a_surprise_is_more_than_four_standard_errors(traffic, elapsed, seen, surprising):
    state = known(traffic)
    state.seen = seen
    assert state.surprises(elapsed) is surprising


def test_the_percentile_is_read_when_enough_are_known_and_then_each_32_traces():
    state = KeyState(0.0, math.inf)
    changes = []
    for number in range(1, 300):
        before = state.slow_above
        state.learn(bucket_of(1.05**number * 1e-5), 0.9, math.inf, 100)
        if state.slow_above != before:
            changes.append(number)
    assert changes == [100, 128, 160, 192, 224, 256, 288]


def test_older_durations_fade_from_4096_on():
    state = KeyState(0.0, math.inf)
    for _ in range(4095):
        state.learn(bucket_of(0.1), 0.9, math.inf, 100)
    assert state.durations.total == 4095
    state.learn(bucket_of(0.1), 0.9, math.inf, 100)
    assert state.durations.total == 2048


def test_a_fixed_threshold_bounds_the_learned_one():
    state = KeyState(0.0, 0.3)
    for number in range(400):
        state.learn(bucket_of(0.1 + number / 1000), 0.9, 0.3, 100)
    assert state.slow_above == 0.3


def keys(limit=2, slow_above=math.inf, now=0.0):
    return Keys(limit, 3600.0, slow_above, now)


def test_a_new_key_begins_as_the_policy_and_the_last_plan_say():
    some = keys(1, slow_above=1.5)
    assert some.admit(("a",), 5.0).threshold == ALWAYS
    some = keys(1, slow_above=1.5)
    some.new_threshold = 99
    state = some.admit(("a",), 5.0)
    assert (state.threshold, state.slow_above, state.last_seen) == (99, 1.5, 5.0)
    assert some.find(("a",)) is state
    assert some.admit(("b",), 6.0) is some.other is some.find(("b",))
    assert (some.other.slow_above, some.other.seen, some.other.last_seen) == (1.5, 0, 0.0)


def test_the_others_are_listed_once_there_are_any():
    some = keys()
    a = some.admit(("a",), 0.0)
    assert list(some) == [(("a",), a)]
    some.other.seen = 1
    assert list(some) == [(("a",), a), (OTHER, some.other)]
    some.other.seen, some.other.traffic = 0, 1.0
    assert list(some) == [(("a",), a), (OTHER, some.other)]


def test_a_key_is_forgotten_after_more_than_the_time_that_is_set():
    some = Keys(2, 100.0, math.inf, 0.0)
    some.admit(("a",), 50.0).seen = 0
    some.measure(150.0, 1.0)
    assert list(some.states) == [("a",)]
    some.measure(150.5, 0.5)
    assert list(some.states) == []


@pytest.mark.parametrize(("seen", "factor"), [(140, None), (141, 1.41), (200, 2.0), (60, None), (59, 0.59)])
def test_all_keys_together_surprise_beyond_four_standard_errors(seen, factor):
    """Of 100 keys with a trace in four seconds each; no key alone surprises."""
    some = keys(1000)
    states = [some.admit((str(number),), 0.0) for number in range(100)]
    for number, state in enumerate(states):
        state.traffic, state.measured = 0.25, 1e9
        state.seen = 1 + (number < seen - 100) if seen >= 100 else int(number < seen)
    last = known(0.25)
    last.measured, last.seen = 1e9, states[-1].seen
    last.scale(factor or 1.0)
    last.measure(4.0, 4.0)
    some.measure(4.0, 4.0)
    assert states[-1].traffic == pytest.approx(last.traffic)


def test_few_traces_of_all_keys_together_surprise_as_well():
    """One trace was expected of ten keys, and five are within four standard errors of that."""
    for seen, factor in ((5, 1.0), (6, 6.0)):
        some = keys(1000)
        states = [some.admit((str(number),), 0.0) for number in range(10)]
        for number, state in enumerate(states):
            state.traffic, state.measured, state.seen = 0.1, 1e9, int(number < seen)
        last = known(0.1)
        last.measured = 1e9
        last.scale(factor)
        last.measure(1.0, 1.0)
        some.measure(1.0, 1.0)
        assert states[-1].traffic == pytest.approx(last.traffic)


@pytest.mark.parametrize(("limit", "counted"), [(20, 10), (109, 10), (255, 25)])
def test_keys_that_are_not_told_apart_are_counted_for_a_tenth_of_the_limit(limit, counted):
    some = keys(limit)
    for number in range(limit + 40):
        some.admit((str(number),), 0.0)
    assert len(some._sketch) == counted


def test_when_nothing_was_expected_no_factor_is_applied():
    some = keys(1000)
    states = [some.admit((str(number),), 0.0) for number in range(10)]
    for state in states:
        see(state, 2)
    some.measure(1.0, 1.0)
    assert [state.traffic for state in states] == [1.0] * 10, "the very first trace of each is no rate"
