"""Record events of installations, and count them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, delete, func, insert, select

from otelwp_agent.control.fleet.installations import installation_id
from otelwp_agent.control.fleet.tables import EVENTS, INSTALLATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

ERRORS = ("payment_failed", "error")
"""Types of events that count as errors."""
SUCCESSES = ("payment_success",)
"""Types of events that count as successes."""
PERIOD = timedelta(hours=24)
"""Period of error rates."""
CHUNK = 500
"""Installations that one query looks up."""


@dataclass(frozen=True, slots=True)
class PluginEvent:
    """An event of an installation, checked and redacted."""

    tenant: str
    cms: str
    environment: str
    site_id: str
    event_type: str
    severity: str
    event_data: Mapping[str, Any] = field(default_factory=dict)
    stack_trace: str = ""
    event_id: str | None = None
    installation: str = ""
    """The id of its installation, if the plugin gave it; else it is made of the values above."""

    @property
    def of(self) -> str:
        """The id of its installation."""
        return self.installation or installation_id(self.tenant, self.cms, self.environment, self.site_id)


class EventSource(NamedTuple):
    """The installation of an event, as its last heartbeat describes it."""

    installation: str
    plugin_version: str
    environment: str
    site_id: str
    sdk_language: str
    cms_version: str
    php_version: str


class RecordedEvent(NamedTuple):
    """The result of an event: its installation, or why it was refused."""

    source: EventSource | None = None
    refusal: str = ""
    """`unknown` (no installation), `foreign` (an installation of another tenant or CMS), `replayed`; "" if stored."""


class EventCounts(NamedTuple):
    """Errors and successes in a period."""

    errors: int = 0
    successes: int = 0


def record_events(connection: Connection, events: Sequence[PluginEvent], now: datetime) -> list[RecordedEvent]:
    """Store the events; return the results in the order of `events`. Nothing is stored of those that are refused."""
    results: list[RecordedEvent] = []
    for start in range(0, len(events), CHUNK):
        results += _record(connection, events[start : start + CHUNK], now)
    return results


def _record(connection: Connection, events: Sequence[PluginEvent], now: datetime) -> list[RecordedEvent]:
    ids = [event.of for event in events]
    plugins = {row.id: row for row in connection.execute(select(INSTALLATIONS).where(INSTALLATIONS.c.id.in_({*ids})))}
    named = [event.event_id for event in events if event.event_id is not None]
    known: set[tuple[str, str]] = set()
    if named:
        query = select(EVENTS.c.installation, EVENTS.c.event_id).where(
            EVENTS.c.installation.in_({*ids}), EVENTS.c.event_id.in_(named)
        )
        known = {(row.installation, row.event_id) for row in connection.execute(query)}
    results, rows = [], []
    for id_, event in zip(ids, events, strict=True):
        plugin = plugins.get(id_)
        if plugin is None:
            results.append(RecordedEvent(refusal="unknown"))
            continue
        if (plugin.tenant, plugin.cms) != (event.tenant, event.cms):
            results.append(RecordedEvent(refusal="foreign"))
            continue
        if event.event_id is not None:
            if (id_, event.event_id) in known:
                results.append(RecordedEvent(refusal="replayed"))
                continue
            known.add((id_, event.event_id))
        rows.append(
            {
                "installation": id_,
                "event_id": event.event_id,
                "event_type": event.event_type,
                "severity": event.severity,
                "event_data": dict(event.event_data),
                "stack_trace": event.stack_trace,
                "received": now,
            }
        )
        results.append(
            RecordedEvent(
                EventSource(
                    id_,
                    plugin.plugin_version,
                    plugin.environment,
                    plugin.site_id,
                    plugin.sdk_language,
                    plugin.cms_version,
                    plugin.php_version,
                )
            )
        )
    if rows:
        connection.execute(insert(EVENTS), rows)
    return results


def recent_events(connection: Connection, installation: str, limit: int = 20) -> list[dict[str, Any]]:
    """Return the last events of an installation as JSON, newest first."""
    query = select(EVENTS).where(EVENTS.c.installation == installation)
    query = query.order_by(EVENTS.c.received.desc(), EVENTS.c.id.desc()).limit(limit)
    return [
        {
            "event_type": row.event_type,
            "severity": row.severity,
            "event_data": row.event_data,
            "stack_trace": row.stack_trace,
            "received": row.received.isoformat(),
        }
        for row in connection.execute(query)
    ]


def count_events(
    connection: Connection, installations: Collection[str], since: datetime, until: datetime
) -> dict[str, EventCounts]:
    """Return the errors and successes from `since` to before `until`, by installation; none is left out if 0."""
    counts = dict.fromkeys(installations, EventCounts())
    query = (
        select(
            EVENTS.c.installation,
            func.sum(case((EVENTS.c.event_type.in_(ERRORS), 1), else_=0)),
            func.sum(case((EVENTS.c.event_type.in_(SUCCESSES), 1), else_=0)),
        )
        .where(EVENTS.c.installation.in_(installations), EVENTS.c.received >= since, EVENTS.c.received < until)
        .group_by(EVENTS.c.installation)
    )
    for id_, errors, successes in connection.execute(query):
        counts[id_] = EventCounts(int(errors), int(successes))
    return counts


def delete_events(connection: Connection, before: datetime, limit: int) -> int:
    """Delete up to `limit` events that were received before a time; return how many were deleted."""
    oldest = select(EVENTS.c.id).where(EVENTS.c.received < before).order_by(EVENTS.c.received).limit(limit)
    return connection.execute(delete(EVENTS).where(EVENTS.c.id.in_(oldest))).rowcount
