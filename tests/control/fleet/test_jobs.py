from datetime import timedelta

from otelwp_agent.control.fleet.jobs import LEASE, finish_job, last_done, period_start, take_job
from tests.kit.fleet import NOW

HOUR = timedelta(hours=1)


def test_periods_begin_at_full_hours_and_days():
    later = NOW + timedelta(minutes=59, seconds=59)
    assert period_start(later, HOUR) == NOW
    assert period_start(later, timedelta(days=1)) == NOW - 12 * HOUR


def test_one_replica_has_the_lease_until_it_ends(fleet):
    assert take_job(fleet, "hourly", "a", NOW, NOW)
    assert not take_job(fleet, "hourly", "b", NOW, NOW + LEASE - timedelta(seconds=1))
    assert take_job(fleet, "hourly", "a", NOW, NOW + LEASE / 2), "it is renewed"
    assert not take_job(fleet, "hourly", "b", NOW, NOW + LEASE)
    assert take_job(fleet, "hourly", "b", NOW, NOW + LEASE * 2), "the first was killed"
    assert not take_job(fleet, "hourly", "a", NOW, NOW + LEASE * 2)


def test_a_period_is_done_once(fleet):
    assert last_done(fleet, "hourly") is None
    assert take_job(fleet, "hourly", "a", NOW, NOW)
    finish_job(fleet, "hourly", "b", NOW)
    assert last_done(fleet, "hourly") is None, "it is not that replica's job"
    finish_job(fleet, "hourly", "a", NOW)
    assert last_done(fleet, "hourly") == NOW
    assert not take_job(fleet, "hourly", "b", NOW, NOW + LEASE * 9)
    assert take_job(fleet, "hourly", "b", NOW + HOUR, NOW + HOUR)
    assert take_job(fleet, "daily", "a", NOW, NOW)
