"""Notices of newer versions, which a plugin shows to the people who can update it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, insert, select, update

from otelwp_agent.codecs.heartbeat.plugin_version import change, is_older
from otelwp_agent.control.errors import ConflictError, InvalidValueError
from otelwp_agent.control.fleet.installations import get_installation
from otelwp_agent.control.fleet.tables import INSTALLATIONS, NOTIFICATIONS, VERSIONS
from otelwp_agent.control.mutation import Actor, Mutation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

IN_APP = "in-app"
CHANNELS = (IN_APP,)
"""How a notice can be sent: `in-app`, in the replies to heartbeats."""
PRIORITIES = {"patch": "low", "minor": "normal", "major": "high"}
CRITICAL = "critical"
"""Priority of a notice of a version that solves a security problem."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice of a newer version."""

    id: str
    installation: str
    from_version: str
    to_version: str
    channel: str
    priority: str
    created: datetime
    sent_at: datetime | None
    acknowledged_at: datetime | None
    notes: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the notice for JSON output."""
        return {
            "id": self.id,
            "plugin_id": self.installation,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "channel": self.channel,
            "priority": self.priority,
            "created": self.created.isoformat(),
            "sent_at": None if self.sent_at is None else self.sent_at.isoformat(),
            "acknowledged_at": None if self.acknowledged_at is None else self.acknowledged_at.isoformat(),
        }


def notify_upgrade(connection: Connection, actor: Actor, installation: str, channel: str = IN_APP) -> Notice:
    """Send a notice of the latest version to an installation, unless it has that version already.

    A notice of the same version that was not acknowledged yet is not sent again: it is returned.
    """
    mutation = Mutation(connection, actor)
    plugin = get_installation(connection, installation)
    if channel not in CHANNELS:
        raise InvalidValueError(f"notices cannot be sent by {channel!r:.80}: use {', '.join(CHANNELS)}")
    latest = plugin.latest_version
    if latest is None:
        raise ConflictError(
            f"no version is registered for {plugin.cms}: register it with `otelwp-agent fleet versions add`"
        )
    if not is_older(plugin.plugin_version, latest):
        raise ConflictError(f"this installation has version {plugin.plugin_version}, and the latest is {latest}")
    open_ = select(NOTIFICATIONS).where(
        NOTIFICATIONS.c.installation == installation,
        NOTIFICATIONS.c.to_version == latest,
        NOTIFICATIONS.c.channel == channel,
        NOTIFICATIONS.c.acknowledged_at.is_(None),
    )
    row = connection.execute(open_.limit(1)).one_or_none()
    if row is not None:
        return _notice(row)
    notice = Notice(
        str(uuid.uuid4()),
        installation,
        plugin.plugin_version,
        latest,
        channel,
        upgrade_priority(connection, plugin.cms, plugin.plugin_version, latest),
        mutation.now,
        None,
        None,
    )
    values = {name: getattr(notice, name) for name in NOTIFICATIONS.c.keys()}  # noqa: SIM118 - columns, not a dict
    connection.execute(insert(NOTIFICATIONS).values(**values))
    mutation.audit("plugin.notify_upgrade", installation, None, notice.to_json())
    return notice


def deliver_notices(connection: Connection, installations: Collection[str], now: datetime) -> dict[str, list[Notice]]:
    """Return the notices for the replies to heartbeats, by installation, and record that they are sent.

    These are the notices that were not acknowledged, of versions that the installation does not have yet.
    """
    joined = (
        select(NOTIFICATIONS, INSTALLATIONS.c.plugin_version, VERSIONS.c.notes)
        .join(INSTALLATIONS, INSTALLATIONS.c.id == NOTIFICATIONS.c.installation)
        .join(
            VERSIONS,
            and_(VERSIONS.c.cms == INSTALLATIONS.c.cms, VERSIONS.c.version == NOTIFICATIONS.c.to_version),
            isouter=True,
        )
        .where(
            NOTIFICATIONS.c.installation.in_(installations),
            NOTIFICATIONS.c.channel == IN_APP,
            NOTIFICATIONS.c.acknowledged_at.is_(None),
        )
        .order_by(NOTIFICATIONS.c.created)
    )
    found: dict[str, list[Notice]] = {}
    new = []
    for row in connection.execute(joined):
        if not is_older(row.plugin_version, row.to_version):
            continue
        found.setdefault(row.installation, []).append(_notice(row, row.notes or ""))
        if row.sent_at is None:
            new.append({"notice": row.id})
    if new:
        connection.execute(
            update(NOTIFICATIONS).where(NOTIFICATIONS.c.id == bindparam("notice")).values(sent_at=now), new
        )
    return found


def acknowledge(connection: Connection, notices: Sequence[tuple[str, str]], now: datetime) -> None:
    """Record that people have seen notices, given as (installation, notice). Unknown ones are ignored."""
    if notices:
        connection.execute(
            update(NOTIFICATIONS)
            .where(
                NOTIFICATIONS.c.installation == bindparam("plugin"),
                NOTIFICATIONS.c.id == bindparam("notice"),
                NOTIFICATIONS.c.acknowledged_at.is_(None),
            )
            .values(acknowledged_at=now),
            [{"plugin": installation, "notice": notice} for installation, notice in notices],
        )


def list_notices(connection: Connection, installation: str, limit: int = 20) -> list[Notice]:
    """Return the last notices of an installation, newest first."""
    query = select(NOTIFICATIONS).where(NOTIFICATIONS.c.installation == installation)
    query = query.order_by(NOTIFICATIONS.c.created.desc()).limit(limit)
    return [_notice(row) for row in connection.execute(query)]


def upgrade_priority(connection: Connection, cms: str, before: str, after: str) -> str:
    """Return the priority of an update: critical if any version that it installs solves a security problem."""
    query = select(VERSIONS.c.version).where(VERSIONS.c.cms == cms, VERSIONS.c.is_critical)
    for (version,) in connection.execute(query):
        if is_older(before, version) and not is_older(after, version):
            return CRITICAL
    return PRIORITIES[change(before, after)]


def _notice(row: Row[Any], notes: str = "") -> Notice:
    return Notice(
        row.id,
        row.installation,
        row.from_version,
        row.to_version,
        row.channel,
        row.priority,
        row.created,
        row.sent_at,
        row.acknowledged_at,
        notes,
    )
