"""The clock of licences does not go back with the system's clock."""

from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.licensing.trusted_clock import TrustedClock
from otelwp_agent.testing.fakes import FakeClock

HOUR = 3600.0


def clocks(now=1000.0):
    wall, monotonic = FakeClock(now), FakeClock(50.0)
    return TrustedClock(wall, monotonic), wall, monotonic


def test_it_follows_the_systems_clock():
    clock, wall, monotonic = clocks()
    wall.now += HOUR
    monotonic.now += HOUR
    assert clock.now() == 1000 + HOUR
    wall.now += 10 * HOUR  # the host was suspended, or its clock was corrected
    assert clock.now() == 1000 + 11 * HOUR
    assert clock.error() == 0


def test_setting_the_systems_clock_back_does_not_stop_it():
    clock, wall, monotonic = clocks()
    wall.now -= 5 * HOUR
    assert clock.now() == 1000
    monotonic.now += HOUR
    wall.now += HOUR
    assert clock.now() == 1000 + HOUR
    assert clock.error() == -5 * HOUR


def test_a_time_from_before_the_restart_is_the_least():
    clock, _, monotonic = clocks()
    clock.at_least(1000 + 7 * HOUR)
    assert clock.now() == 1000 + 7 * HOUR
    clock.at_least(5)
    monotonic.now += 1
    assert clock.now() == 1001 + 7 * HOUR


def test_a_signed_time_corrects_a_clock_that_is_wrong_in_either_direction():
    clock, wall, monotonic = clocks(now=1000 + 9 * HOUR)
    clock.set(1000)
    assert clock.now() == 1000
    assert clock.error() == 9 * HOUR
    monotonic.now += HOUR
    wall.now -= 20 * HOUR
    assert clock.now() == 1000 + HOUR
    assert clock.error() == -12 * HOUR


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6))))
def test_it_never_goes_back_without_a_signed_time(steps):
    clock, wall, monotonic = clocks()
    before = clock.now()
    for passed, moved in steps:
        monotonic.now += passed
        wall.now = max(0.0, wall.now + moved)
        now = clock.now()
        assert now >= before + passed - 1e-6
        before = now
