from __future__ import annotations

from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.testing import FakeClock


def test_lets_the_first_through_and_then_one_per_interval_with_the_sum():
    clock = FakeClock()
    limit = LogLimit(clock, 10)
    assert limit.take(3) == 3
    clock.now = 9.9
    assert [limit.take(1), limit.take(4)] == [0, 0]
    clock.now = 10
    assert limit.take(2) == 7
    assert limit.take(1) == 0


def test_silence_before_does_not_let_more_through():
    clock = FakeClock()
    limit = LogLimit(clock, 10)
    limit.take()
    clock.now = 100
    assert [limit.take(), limit.take()] == [1, 0]
