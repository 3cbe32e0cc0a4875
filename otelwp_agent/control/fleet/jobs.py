"""Regular work that one of several replicas does: leases, and the periods that are done.

Time is divided into periods of equal length. The work of a period is due when the period begins. If several periods
were missed, the work is done once, for the last of them; daily work that needs each day gets the days since the last.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from otelwp_agent.control.fleet.tables import JOBS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

LEASE = timedelta(minutes=5)
"""Time for which a lease is held without being renewed: if its owner is killed, another replica continues then."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def period_start(now: datetime, length: timedelta) -> datetime:
    """Return the beginning of the period that contains `now`."""
    return _EPOCH + (now - _EPOCH) // length * length


def take_job(connection: Connection, name: str, owner: str, period: datetime, now: datetime) -> bool:
    """Take or renew the lease of a job; return whether `owner` has it and the job is due for `period`."""
    insert = _INSERTS[connection.dialect.name](JOBS).values(name=name, done=None, owner="", until=now)
    connection.execute(insert.on_conflict_do_nothing(index_elements=[JOBS.c.name]))
    taken = connection.execute(
        update(JOBS)
        .where(
            JOBS.c.name == name,
            (JOBS.c.owner == owner) | (JOBS.c.until <= now),
            JOBS.c.done.is_(None) | (JOBS.c.done < period),
        )
        .values(owner=owner, until=now + LEASE)
    )
    return taken.rowcount == 1


def finish_job(connection: Connection, name: str, owner: str, period: datetime) -> None:
    """Record that a job was done for `period`, and release the lease."""
    connection.execute(
        update(JOBS).where(JOBS.c.name == name, JOBS.c.owner == owner).values(done=period, owner="", until=period)
    )


def last_done(connection: Connection, name: str) -> datetime | None:
    """Return the last period for which a job was done."""
    return connection.execute(select(JOBS.c.done).where(JOBS.c.name == name)).scalar_one_or_none()
