from datetime import timedelta

import pytest
from sqlalchemy import select

from otelwp_agent.control.fleet import monitor_runs
from otelwp_agent.control.fleet.events import PluginEvent, recent_events, record_events
from otelwp_agent.control.fleet.installations import list_installations
from otelwp_agent.control.fleet.jobs import LEASE
from otelwp_agent.control.fleet.monitor_runs import DAY, HOUR, MonitorRuns
from otelwp_agent.control.fleet.tables import HEALTH
from otelwp_agent.control.operations import tenants
from otelwp_agent.control.store_thread import StoreThread
from otelwp_agent.testing import FakeClock
from tests.kit.fleet import NOW, beat, sent


class Fleet:
    """A store with one installation, and replicas of the monitor at a time that the test sets."""

    def __init__(self, store):
        self.thread = StoreThread(store)
        self.clock = FakeClock(NOW.timestamp())

    def replica(self, name="a"):
        retention = {"event_retention": 3 * DAY, "health_retention": 4 * DAY}
        return MonitorRuns(lambda: self.thread, name, self.clock, **retention)

    async def at(self, hours, *replicas):
        self.clock.now = (NOW + hours * HOUR).timestamp()
        for replica in replicas:
            await replica.run_due()

    async def status(self):
        (found,) = await self.thread.read(list_installations)
        return found.status

    async def days(self):
        query = select(HEALTH.c.day).order_by(HEALTH.c.day)
        days = await self.thread.read(lambda connection: connection.execute(query).scalars().all())
        return [(day - NOW.date()).days for day in days]


@pytest.fixture
async def monitored(store, actor):
    with store.write() as connection:
        tenants.create_tenant(connection, actor, "acme")
        (plugin,) = sent(connection, beat(), now=NOW - DAY)
        event = PluginEvent("acme", "woocommerce", "production", "", "error", "error")
        record_events(connection, [event], NOW - DAY)
    fleet = Fleet(store)
    fleet.installation = plugin.installation
    yield fleet
    await fleet.thread.close()


async def test_each_period_is_done_once_by_one_of_two_replicas(monitored):
    first, second = monitored.replica("a"), monitored.replica("b")
    for hours in (0, 0.5, 1, 1.1, 12, 13):
        await monitored.at(hours, first, second)
    await monitored.at(14, second, first)
    assert (first.done, second.done) == ({"hourly": 4, "daily": 2}, {"hourly": 1, "daily": 0})
    assert await monitored.days() == [-1, 0]


async def test_what_was_missed_is_done_afterwards(monitored):
    replica = monitored.replica()
    await monitored.at(0, replica)
    assert (await monitored.status(), await monitored.days()) == ("active", [-1])
    await monitored.at(24, replica)
    assert await monitored.status() == "active"
    await monitored.at(25, replica)
    assert await monitored.status() == "error"
    await monitored.at(73, replica)
    assert await monitored.days() == [-1, 0, 1, 2], "the days without the monitor are not missing"
    assert await monitored.thread.read(lambda connection: recent_events(connection, monitored.installation)) == []
    await monitored.at(97, replica)
    assert await monitored.days() == [0, 1, 2, 3], "old days are deleted"


async def test_another_replica_continues_after_a_kill(monitored, monkeypatch):
    killed, other = monitored.replica("a"), monitored.replica("b")

    def check_page(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(monitor_runs, "check_page", check_page)
        with pytest.raises(RuntimeError):
            await monitored.at(49, killed)
    await monitored.at(49.01, other)
    assert other.done["hourly"] == 0, "the lease of the killed one has not ended"
    await monitored.at(49 + (LEASE / HOUR), other)
    assert other.done["hourly"] == 1
    assert await monitored.status() == "error"


async def test_a_replica_that_lost_its_lease_stops(monitored, monkeypatch):
    slow, other = monitored.replica("a"), monitored.replica("b")
    real = monitor_runs.check_page

    async def run_while_it_works():
        monitored.clock.now += 2 * LEASE.total_seconds()
        await other.run_due()

    pages = []

    def check_page(connection, after, now):
        pages.append(after)
        return real(connection, after, now)._replace(last="" if len(pages) > 1 else "0")

    monkeypatch.setattr(monitor_runs, "check_page", check_page)
    taken = slow._write

    async def write(job, period, work):
        result = await taken(job, period, work)
        if len(pages) == 1:
            await run_while_it_works()
        return result

    monkeypatch.setattr(slow, "_write", write)
    await monitored.at(0, slow)
    assert (slow.done["hourly"], other.done["hourly"]) == (0, 1)
    assert timedelta(0) < LEASE
