"""Toggles: what operators ask an installation to do."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, or_, select, update

from otelwp_agent.control.errors import InvalidValueError
from otelwp_agent.control.fleet.installations import get_installation
from otelwp_agent.control.fleet.status import ACTIVE, BLOCKED
from otelwp_agent.control.fleet.tables import INSTALLATIONS, TOGGLES
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import values

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

BLOCK = "block_plugin"
KEYS = (BLOCK, "force_update", "enable_debug", "rate_limit")
"""Deactivate the plugin; show that an update is mandatory; write a debug log; send less."""


@dataclass(frozen=True, slots=True)
class Toggle:
    """A toggle of an installation."""

    id: str
    installation: str
    key: str
    value: bool
    reason: str
    expires_at: datetime | None
    updated_by: str
    updated: datetime
    pending: bool = False
    """Whether it waits for a second operator, and has no effect yet."""

    def to_json(self) -> dict[str, Any]:
        """Return the toggle for JSON output."""
        return {
            "id": self.id,
            "plugin_id": self.installation,
            "toggle_key": self.key,
            "toggle_value": self.value,
            "reason": self.reason,
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            "updated_by": self.updated_by,
            "updated": self.updated.isoformat(),
            "state": "pending" if self.pending else "set",
        }


def set_toggle(  # noqa: PLR0913 - the columns of a toggle
    connection: Connection,
    actor: Actor,
    installation: str,
    key: str,
    *,
    value: bool,
    reason: str = "",
    expires_at: datetime | None = None,
    confirmed: bool = False,
) -> Toggle:
    """Set a toggle of an installation; its next heartbeat is answered with it.

    A plugin is blocked only if the change is `confirmed`, or if a second operator sets the toggle in the same way.
    Until then, the toggle is pending.
    """
    change = Mutation(connection, actor)
    plugin = get_installation(connection, installation)
    if key not in KEYS:
        raise InvalidValueError(f"{key!r:.80} is not a toggle: use {', '.join(KEYS)}")
    if reason:
        reason = values.title(reason, "reason")
    elif key == BLOCK and value:
        raise InvalidValueError(f"`{BLOCK}` needs a reason: say why this plugin must not run")
    expires_at = values.future(expires_at, change.now)
    row = connection.execute(_one(installation, key)).one_or_none()
    before = None if row is None else _toggle(row)
    after = Toggle(
        str(uuid.uuid4()) if before is None else before.id,
        installation,
        key,
        value,
        reason,
        expires_at,
        actor.name,
        change.now,
        pending=key == BLOCK and value and not confirmed and not _is_second(before, actor, change.now),
    )
    _store(connection, before, after)
    if key == BLOCK and not after.pending:
        # The next heartbeat or check of the monitor finds out whether it is outdated.
        status = BLOCKED if value else ACTIVE if plugin.status == BLOCKED else plugin.status
        connection.execute(update(INSTALLATIONS).where(INSTALLATIONS.c.id == installation).values(status=status))
    change.audit("toggle.set", installation, None if before is None else before.to_json(), after.to_json())
    return after


def _is_second(before: Toggle | None, actor: Actor, now: datetime) -> bool:
    """Return whether another operator has set a toggle to true before, or it is in effect already."""
    if before is None or not before.value or (before.expires_at is not None and before.expires_at <= now):
        return False
    return not before.pending or before.updated_by != actor.name


def _store(connection: Connection, before: Toggle | None, after: Toggle) -> None:
    new = {
        "toggle_value": after.value,
        "reason": after.reason,
        "expires_at": after.expires_at,
        "updated_by": after.updated_by,
        "updated": after.updated,
        "pending": after.pending,
    }
    if before is None:
        identity = {"id": after.id, "installation": after.installation, "toggle_key": after.key}
        connection.execute(insert(TOGGLES).values(**identity, **new))
    else:
        connection.execute(update(TOGGLES).where(TOGGLES.c.id == after.id).values(**new))


def _one(installation: str, key: str) -> Select[Any]:
    return select(TOGGLES).where(TOGGLES.c.installation == installation, TOGGLES.c.toggle_key == key)


def active_toggles(connection: Connection, installations: Collection[str], now: datetime) -> dict[str, list[Toggle]]:
    """Return the toggles that are on and have not expired, by installation; those without any are left out."""
    query = _active(now).where(TOGGLES.c.installation.in_(installations)).order_by(TOGGLES.c.toggle_key)
    found: dict[str, list[Toggle]] = {}
    for row in connection.execute(query):
        found.setdefault(row.installation, []).append(_toggle(row))
    return found


def _active(now: datetime) -> Select[Any]:
    return select(TOGGLES).where(
        TOGGLES.c.toggle_value, ~TOGGLES.c.pending, or_(TOGGLES.c.expires_at.is_(None), TOGGLES.c.expires_at > now)
    )


def list_toggles(connection: Connection, installation: str) -> list[Toggle]:
    """Return all toggles of an installation that were ever set."""
    query = select(TOGGLES).where(TOGGLES.c.installation == installation).order_by(TOGGLES.c.toggle_key)
    return [_toggle(row) for row in connection.execute(query)]


def _toggle(row: Row[Any]) -> Toggle:
    return Toggle(
        row.id,
        row.installation,
        row.toggle_key,
        row.toggle_value,
        row.reason,
        row.expires_at,
        row.updated_by,
        row.updated,
        row.pending,
    )
