"""Check all installations regularly: their status, their error rate, their daily health.

The work is done in pages, each in a transaction of its own, so that heartbeats are recorded in between. It may be
repeated: the result depends only on the store and the time.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from otelwp_agent.control.fleet.events import PERIOD, count_events
from otelwp_agent.control.fleet.notifications import CRITICAL, notify_upgrade, upgrade_priority
from otelwp_agent.control.fleet.status import error_rate, status_of
from otelwp_agent.control.fleet.tables import HEALTH, INSTALLATIONS, NOTIFICATIONS
from otelwp_agent.control.fleet.toggles import BLOCK, active_toggles
from otelwp_agent.control.fleet.versions import latest_versions
from otelwp_agent.control.mutation import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from sqlalchemy import Connection, Row

PAGE = 500
"""Installations that are checked in one transaction."""
ACTOR = Actor("monitor")
"""The author of notices that the monitor sends, in the audit log."""


class CheckedPage(NamedTuple):
    """The result of a page: the last installation ("" at the end), and how many have changed."""

    last: str
    changed: int


def check_page(connection: Connection, after: str, now: datetime) -> CheckedPage:
    """Update status and error rate of the next installations after the id `after`."""
    rows = _page(connection, after)
    ids = [row.id for row in rows]
    blocked = _blocked(connection, ids, now)
    latest = latest_versions(connection)
    counts = count_events(connection, ids, now - PERIOD, now)
    changes = []
    for row in rows:
        rate = error_rate(*counts[row.id])
        status = _status(row, latest, now, is_blocked=row.id in blocked)
        if (status, rate) != (row.status, row.error_rate):
            changes.append({"plugin": row.id, "new_status": status, "new_rate": rate})
    if changes:
        connection.execute(
            update(INSTALLATIONS)
            .where(INSTALLATIONS.c.id == bindparam("plugin"))
            .values(status=bindparam("new_status"), error_rate=bindparam("new_rate")),
            changes,
        )
    return CheckedPage(ids[-1] if len(ids) == PAGE else "", len(changes))


def _insert(insert: Any) -> Any:  # noqa: ANN401 - the insert of a dialect
    return insert(HEALTH).on_conflict_do_nothing(index_elements=[HEALTH.c.day, HEALTH.c.installation])


_INSERTS = {"sqlite": _insert(sqlite.insert), "postgresql": _insert(postgresql.insert)}


def record_health_page(connection: Connection, after: str, day: date) -> CheckedPage:
    """Record the health of the next installations on a day in UTC that has ended."""
    begin = datetime.combine(day, time(), UTC)
    end = begin + timedelta(days=1)
    rows = _page(connection, after)
    ids = [row.id for row in rows]
    counts = count_events(connection, ids, begin, end)
    health = [
        {
            "day": day,
            "installation": row.id,
            "status": row.status,
            "plugin_version": row.plugin_version,
            "errors": counts[row.id].errors,
            "successes": counts[row.id].successes,
            "error_rate": error_rate(*counts[row.id]),
        }
        for row in rows
        if row.first_seen < end
    ]
    if health:
        connection.execute(_INSERTS[connection.dialect.name], health)
    return CheckedPage(ids[-1] if len(ids) == PAGE else "", len(health))


def notify_page(connection: Connection, after: str) -> CheckedPage:
    """Send notices to the next installations whose update solves a security problem, once for each version."""
    rows = _page(connection, after)
    latest = latest_versions(connection)
    outdated = [row for row in rows if row.status == "outdated" and row.cms in latest]
    known = {
        (row.installation, row.to_version)
        for row in connection.execute(
            select(NOTIFICATIONS.c.installation, NOTIFICATIONS.c.to_version).where(
                NOTIFICATIONS.c.installation.in_([each.id for each in outdated])
            )
        )
    }
    sent = 0
    for row in outdated:
        version = latest[row.cms]
        if (row.id, version) in known:
            continue
        if upgrade_priority(connection, row.cms, row.plugin_version, version) == CRITICAL:
            notify_upgrade(connection, ACTOR, row.id)
            sent += 1
    return CheckedPage(rows[-1].id if len(rows) == PAGE else "", sent)


def delete_health(connection: Connection, before: date) -> int:
    """Delete the health of days before `before`; return the number of rows."""
    return connection.execute(delete(HEALTH).where(HEALTH.c.day < before)).rowcount


def _page(connection: Connection, after: str) -> Sequence[Row[Any]]:
    query = select(INSTALLATIONS).where(INSTALLATIONS.c.id > after).order_by(INSTALLATIONS.c.id).limit(PAGE)
    return connection.execute(query).all()


def _blocked(connection: Connection, ids: Sequence[str], now: datetime) -> set[str]:
    found = active_toggles(connection, ids, now)
    return {id_ for id_, toggles in found.items() if any(toggle.key == BLOCK for toggle in toggles)}


def _status(row: Row[Any], latest: Mapping[str, str], now: datetime, *, is_blocked: bool) -> str:
    return status_of(row.cms, row.plugin_version, row.last_heartbeat, latest=latest, is_blocked=is_blocked, now=now)
