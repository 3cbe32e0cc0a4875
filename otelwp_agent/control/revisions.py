"""Revisions of the control store that this version of the agent can use or upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect, select

from otelwp_agent.control.tables import REVISION, STATE

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEEDS = {"0001": "0.1.0", "0002": "0.1.0", "0003": "0.1.0", "0004": "0.1.0"}
"""Revisions, oldest first, with the oldest version of the agent that can use a store of that revision."""
HEAD = next(reversed(NEEDS))
"""The revision that this version of the agent needs."""


def current(connection: Connection) -> str | None:
    """Return the revision of a store, or `None` if the database has none."""
    if not inspect(connection).has_table(REVISION.name):
        return None
    return connection.execute(select(REVISION.c.version_num)).scalar_one_or_none()


def is_empty(connection: Connection) -> bool:
    """Return whether the database has no tables."""
    return not inspect(connection).get_table_names()


def needs(connection: Connection) -> str | None:
    """Return the oldest version of the agent that can use the store, as the store says; `None` if it does not."""
    if not inspect(connection).has_table(STATE.name):
        return None
    return connection.execute(select(STATE.c.needs)).scalar_one_or_none()
