"""Run the hourly and daily work of the monitor when it is due, in one of the replicas that share a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from otelwp_agent.control.fleet.events import delete_events
from otelwp_agent.control.fleet.jobs import finish_job, last_done, period_start, take_job
from otelwp_agent.control.fleet.monitor import check_page, delete_health, notify_page, record_health_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from otelwp_agent.control.fleet.monitor import CheckedPage
    from otelwp_agent.control.store_thread import StoreThread

T = TypeVar("T")

HOURLY, DAILY = "hourly", "daily"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MAX_DAYS = 31
"""Most days whose health is recorded afterwards if the monitor did not run."""
DELETED_AT_ONCE = 1000


class LeaseLostError(Exception):
    """Another replica has taken the job."""


class MonitorRuns:
    """Runs the jobs of one replica."""

    def __init__(
        self,
        store: Callable[[], StoreThread],
        owner: str,
        wall: Callable[[], float],
        *,
        event_retention: timedelta,
        health_retention: timedelta,
    ) -> None:
        """Work on `store` as the replica `owner`; `wall` returns the time in seconds since 1970."""
        self._store = store
        self._owner = owner
        self._wall = wall
        self._event_retention = event_retention
        self._health_retention = health_retention
        self.done = {HOURLY: 0, DAILY: 0}
        """How often this replica has done each job."""

    async def run_due(self) -> None:
        """Do the work that is due and that no other replica does; raise `StoreError`."""
        try:
            await self._hourly(self._now())
            await self._daily(self._now())
        except LeaseLostError:
            return  # the other replica continues

    async def _hourly(self, now: datetime) -> None:
        period = period_start(now, HOUR)
        if await self._take(HOURLY, period):
            await self._all_pages(HOURLY, period, lambda connection, after: check_page(connection, after, now))
            await self._finish(HOURLY, period)

    async def _daily(self, now: datetime) -> None:
        period = period_start(now, DAY)
        if not await self._take(DAILY, period):
            return
        last = await self._store().read(lambda connection: last_done(connection, DAILY))
        first = period - DAY if last is None else max(last, period - MAX_DAYS * DAY)
        while first < period:
            day = first.date()
            await self._all_pages(
                DAILY,
                period,
                lambda connection, after, day=day: record_health_page(connection, after, day),  # type: ignore[misc]
            )
            first += DAY
        await self._all_pages(DAILY, period, notify_page)
        before = now - self._event_retention
        while await self._write(DAILY, period, lambda connection: delete_events(connection, before, DELETED_AT_ONCE)):
            pass
        oldest = (now - self._health_retention).date()
        await self._write(DAILY, period, lambda connection: delete_health(connection, oldest))
        await self._finish(DAILY, period)

    async def _all_pages(self, job: str, period: datetime, work: Callable[[Connection, str], CheckedPage]) -> None:
        after = ""
        while True:
            page = await self._write(job, period, lambda connection, after=after: work(connection, after))  # type: ignore[misc]
            if not page.last:
                return
            after = page.last

    async def _take(self, job: str, period: datetime) -> bool:
        now = self._now()
        return await self._store().write(lambda connection: take_job(connection, job, self._owner, period, now))

    async def _write(self, job: str, period: datetime, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that renews the lease; raise `LeaseLostError`."""
        now = self._now()

        def leased(connection: Connection) -> T:
            if not take_job(connection, job, self._owner, period, now):
                raise LeaseLostError(job)
            return work(connection)

        return await self._store().write(leased)

    async def _finish(self, job: str, period: datetime) -> None:
        await self._store().write(lambda connection: finish_job(connection, job, self._owner, period))
        self.done[job] += 1

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)
