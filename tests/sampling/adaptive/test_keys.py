import math

import pytest

from otelwp_agent.sampling.adaptive.histogram import bucket_of
from otelwp_agent.sampling.adaptive.keys import Keys, KeyState


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
