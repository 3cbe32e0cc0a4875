from __future__ import annotations

import pytest

from otelwp_agent.routing.availability import FIRST_SHARE, Availability, Readiness


def down_at(now, **settings):
    state = Availability(**{"failures": 1, "retry_interval": 10.0, "return_time": 20.0} | settings)
    assert state.failed(now)
    return state


def test_failures_in_a_row_make_it_down_once():
    state = Availability(3, 10, 20)
    assert [state.failed(0), state.failed(0)] == [False, False]
    assert not state.delivered(0)
    assert [state.failed(1), state.failed(1), state.failed(1), state.failed(1)] == [False, False, True, False]
    assert state.readiness is Readiness.DOWN
    assert state.share(1) == 0


def test_while_it_is_down_it_gets_one_batch_in_each_interval():
    state = down_at(0)
    taken = [now for now in range(35) if state.takes(now)]
    assert taken == [10, 20, 30]
    assert (state.usable(39.9), state.usable(40)) == (False, True)


def test_its_share_grows_after_a_delivery():
    state = down_at(0)
    assert state.delivered(100)
    assert not state.delivered(101)
    assert [state.share(now) for now in (100, 101, 110, 115, 120)] == [FIRST_SHARE, FIRST_SHARE, 0.5, 0.75, 1]
    assert sum(state.takes(110) for _ in range(100)) == 50
    assert state.takes(120)
    assert state.readiness is Readiness.UP


def test_a_failure_while_it_returns_makes_it_down_again():
    state = Availability(5, 10, 20)
    for _ in range(5):
        state.failed(0)
    state.delivered(10)
    assert state.failed(11)
    assert [state.takes(20.9), state.takes(21)] == [False, True]


def test_without_return_time_it_gets_everything_at_once():
    state = down_at(0, return_time=0.0)
    state.delivered(1)
    assert all(state.takes(1) for _ in range(10))


@pytest.mark.parametrize("readiness", list(Readiness))
def test_labels_are_for_people(readiness):
    assert readiness.label == readiness.name.lower()
