"""Change the control store: count each change, and write it to the audit log in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text, update

from otelwp_agent.control import audit
from otelwp_agent.control.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

CHANNEL = "otelwp_control"
"""Channel on which PostgreSQL announces changes (NOTIFY)."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change, for the audit log: `name`, such as `operator:alice`, and the id of the request."""

    name: str
    request_id: str = ""


class Mutation:
    """One change of the store, in a transaction. Create it before the objects are read: it locks the store."""

    def __init__(self, connection: Connection, actor: Actor) -> None:
        """Increment the change counter. Until the transaction ends, other changes wait."""
        self.connection = connection
        self.now = datetime.now(UTC)
        self._actor = actor
        self.version: int = connection.execute(
            update(STATE).values(version=STATE.c.version + 1).returning(STATE.c.version)
        ).scalar_one()
        """The new value of the change counter, for the column `changed`."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})

    def audit(
        self,
        action: str,
        target: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Append to the audit log: `action` changed `target` from `before` to `after`, which contain no secrets."""
        audit.append(
            self.connection,
            audit.Event(
                time=self.now,
                actor=self._actor.name,
                action=action,
                target=target,
                before=audit.canonical(before),
                after=audit.canonical(after),
                request_id=self._actor.request_id,
            ),
        )
