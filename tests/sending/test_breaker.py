from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import CircuitBreaker
from otelwp_agent.sending.breaker import Breaker, Permit, State

CLOSED, HALF_OPEN, OPEN = State.CLOSED, State.HALF_OPEN, State.OPEN
TRY, PROBE, NONE = Permit.TRY, Permit.PROBE, Permit.NONE


def a_breaker(random: float = 0.5, told: list[State] | None = None, **settings: object) -> Breaker:
    return Breaker(CircuitBreaker(**settings), lambda: random, (told if told is not None else []).append)


def an_open_one(**options: object) -> Breaker:
    breaker = a_breaker(**options)
    for _ in range(5):
        breaker.failed(TRY, 100)
    assert breaker.state is OPEN
    return breaker


def test_opens_after_failures_in_a_row_and_not_before():
    breaker = a_breaker(failures=3)
    for outcome in [False, False, True, False, False]:
        breaker.answered() if outcome else breaker.failed(TRY, 0)
        assert breaker.acquire(0) is TRY
    breaker.failed(TRY, 0)
    assert breaker.state is OPEN
    assert breaker.acquire(4.9) is NONE


def test_lets_one_probe_through_when_its_time_is_over():
    breaker = an_open_one()
    assert breaker.until == 105
    assert breaker.acquire(104.9) is NONE
    assert [breaker.acquire(105), breaker.acquire(105), breaker.acquire(1e9)] == [PROBE, NONE, NONE]
    assert breaker.until == float("inf")
    breaker.answered()
    assert (breaker.state, breaker.calm, breaker.acquire(105)) == (CLOSED, True, TRY)


def test_stays_open_twice_as_long_each_time_that_a_probe_fails_and_starts_anew_once_answered():
    breaker, now, waits = an_open_one(), 100.0, []
    for _ in range(5):
        waits.append(breaker.until - now)
        now = breaker.until
        breaker.failed(breaker.acquire(now), now)
    assert waits == [5, 10, 20, 30, 30]
    breaker.acquire(breaker.until)
    breaker.answered()
    for _ in range(5):
        breaker.failed(TRY, 1000)
    assert breaker.until == 1005


@pytest.mark.parametrize(("random", "wait"), [(0, 4), (0.5, 5), (1, 6)])
def test_leaves_a_fifth_to_chance(random, wait):
    assert an_open_one(random=random).until == 100 + wait


def test_stays_open_at_least_as_long_as_the_other_side_says():
    breaker = a_breaker(failures=1)
    breaker.failed(TRY, 0, retry_after=77)
    assert breaker.until == 77


def test_the_other_sides_word_holds_for_an_hour_at_most():
    throttled, failed, year = a_breaker(), a_breaker(failures=1), 365 * 86400
    throttled.throttled(0, year)
    failed.failed(TRY, 0, year)
    assert (throttled.until, failed.until) == (3600, 3600)


def test_tries_from_before_it_opened_tell_nothing_unless_they_are_answered():
    breaker = an_open_one()
    breaker.failed(TRY, 104, retry_after=1000)
    assert breaker.until == 105
    assert breaker.acquire(105) is PROBE
    breaker.failed(TRY, 106)
    assert breaker.state is HALF_OPEN
    breaker.answered()
    assert breaker.state is CLOSED


def test_a_throttled_one_is_alive_and_waits():
    breaker = a_breaker()
    for _ in range(100):
        breaker.throttled(0, 7)
    assert (breaker.state, breaker.calm) == (CLOSED, False)
    assert [breaker.acquire(6.9), breaker.acquire(7)] == [NONE, TRY]
    assert breaker.calm


def test_a_throttled_probe_closes_it_and_waits():
    breaker = an_open_one()
    breaker.acquire(105)
    breaker.throttled(105, 60)
    assert (breaker.state, breaker.acquire(164), breaker.acquire(165)) == (CLOSED, NONE, TRY)


def test_an_answer_does_not_end_a_throttling():
    breaker = a_breaker()
    breaker.throttled(0, 7)
    breaker.answered()
    assert breaker.acquire(3) is NONE


def test_throttled_without_a_time_goes_on():
    breaker = a_breaker()
    breaker.throttled(0, None)
    assert breaker.calm
    assert breaker.acquire(0) is TRY


def test_a_probe_that_tells_nothing_is_made_again():
    breaker = an_open_one()
    breaker.released(breaker.acquire(105), 106)
    assert breaker.acquire(106) is PROBE


def test_in_a_hurry_it_waits_for_nothing_but_the_probe():
    breaker = an_open_one()
    assert [breaker.acquire(100, hurry=True), breaker.acquire(100, hurry=True)] == [PROBE, NONE]
    breaker.throttled(100, 9)
    assert breaker.acquire(100, hurry=True) is TRY
    assert breaker.acquire(100) is NONE


def test_one_that_is_off_never_opens_but_keeps_the_other_sides_word():
    breaker = a_breaker(enabled=False)
    for _ in range(100):
        breaker.failed(TRY, 0)
    assert breaker.calm
    breaker.throttled(0, 7)
    assert breaker.acquire(1) is NONE


def test_tells_each_change_once():
    told: list[State] = []
    breaker, calls = an_open_one(told=told), []
    breaker.listeners.append(lambda: calls.append(breaker.state))
    breaker.failed(breaker.acquire(105), 105)
    breaker.acquire(breaker.until)
    breaker.answered()
    breaker.answered()
    assert told == [OPEN, HALF_OPEN, OPEN, HALF_OPEN, CLOSED]
    assert calls == [OPEN, CLOSED]


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "throttle", "nothing"]), st.floats(0, 50)), max_size=60))
def test_it_never_locks_up_and_never_lets_two_probes_through(steps):
    breaker, now, out = a_breaker(failures=2), 0.0, []
    for what, later in steps:
        now += later
        permit = breaker.acquire(now)
        if permit is not NONE:
            out.append(permit)
        assert out.count(PROBE) <= 1
        if not out:
            assert now < breaker.until < float("inf")
            continue
        permit = out.pop(0)
        if what == "ok":
            breaker.answered()
        elif what == "fail":
            breaker.failed(permit, now)
        elif what == "throttle":
            breaker.throttled(now, 3)
        else:
            breaker.released(permit, now)
        if breaker.calm:
            assert breaker.acquire(now) is TRY


def test_it_is_calm_as_long_as_there_is_nothing_to_ask_and_nothing_to_report():
    breaker = a_breaker(failures=2)
    assert breaker.calm is True
    breaker.failed(TRY, 0)
    assert breaker.calm is False
    breaker.answered()
    assert breaker.calm is True
    breaker.throttled(10, 7)
    assert (breaker.calm, breaker.until) == (False, 17)
    breaker.answered()
    assert (breaker.calm, breaker.until) == (False, 17), "an answer does not end a throttling"
    breaker.failed(TRY, 17)
    breaker.failed(TRY, 17)
    assert (breaker.state, breaker.calm) == (OPEN, False)
    breaker.acquire(100)
    breaker.answered()
    assert (breaker.state, breaker.calm, breaker.until) == (CLOSED, True, 0)


def test_throttled_for_no_time_it_stays_calm():
    for retry_after in (None, 0.0):
        breaker = a_breaker()
        breaker.throttled(10, retry_after)
        assert (breaker.calm, breaker.until) == (True, 0)


def test_the_other_sides_word_holds_when_a_try_or_a_probe_opens_it():
    breaker = a_breaker(failures=1)
    breaker.failed(TRY, 100, 60)
    assert breaker.until == 160
    breaker.failed(breaker.acquire(160), 160, 200)
    assert breaker.until == 360


def test_it_may_be_open_for_less_than_a_second():
    breaker = a_breaker(failures=1, open_time="500ms")
    breaker.failed(TRY, 100)
    assert breaker.until == 100.5


def test_only_the_probe_gives_the_probe_back():
    told: list[State] = []
    breaker = an_open_one(told=told)
    breaker.released(TRY, 101)
    assert (breaker.state, breaker.until) == (OPEN, 105)
    assert breaker.acquire(105) is PROBE
    breaker.released(TRY, 106)
    assert breaker.state is HALF_OPEN, "a try from before it opened"
    breaker.released(PROBE, 107)
    assert (breaker.state, breaker.until) == (OPEN, 107)
    assert told == [OPEN, HALF_OPEN, OPEN]
    assert breaker.acquire(107) is PROBE
    breaker.answered()
    breaker.released(PROBE, 108)
    assert (breaker.state, breaker.until) == (CLOSED, 0), "it was closed by somebody's answer meanwhile"
