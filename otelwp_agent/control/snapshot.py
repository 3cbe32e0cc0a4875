"""Read a `Directory` from the control store, as a whole or only what has changed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from otelwp_agent.control.directory import Directory, PlanEntry, TenantEntry, pack_key
from otelwp_agent.control.tables import KEYS, PLANS, STATE, TENANTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

_CHUNK = 1000
"""Rows that are read at once. Between two chunks other threads run."""
_KEY_COLUMNS = (KEYS.c.id, KEYS.c.tenant, KEYS.c.hash, KEYS.c.scopes, KEYS.c.expires, KEYS.c.revoked)
_NO_ATTRIBUTES: Any = MappingProxyType({})
_TENANT_COLUMNS = (TENANTS.c.id, TENANTS.c.plan, TENANTS.c.status, TENANTS.c.attributes)


def version(connection: Connection) -> int:
    """Return the change counter."""
    return int(connection.execute(select(STATE.c.version)).scalar_one())


def load(connection: Connection) -> Directory:
    """Return the directory of the whole store."""
    return update(connection, Directory())


def update(connection: Connection, old: Directory) -> Directory:
    """Return the directory of the store now, reading only what has changed since `old`; `old` if nothing has.

    If the store is older than `old`, because it was restored from a backup, everything is read.
    """
    now = version(connection)
    if now == old.version:
        return old
    if now < old.version:
        old = Directory()
    tenants, numbers = list(old.tenants), dict(old.numbers)
    for row in _rows(connection, select(*_TENANT_COLUMNS).where(TENANTS.c.changed > old.version)):
        tenant = TenantEntry(row.id, row.plan, row.status == "active", _frozen(row.attributes))
        number = numbers.setdefault(tenant.id, len(tenants))
        if number == len(tenants):
            tenants.append(tenant)
        else:
            tenants[number] = tenant
    keys = dict(old.keys)
    query = select(*_KEY_COLUMNS).where(KEYS.c.changed > old.version)
    if not old.version:
        query = query.where(KEYS.c.revoked.is_(None))
    for row in _rows(connection, query):
        if row.revoked is not None:
            keys.pop(row.id, None)
        else:
            expires = None if row.expires is None else row.expires.timestamp()
            keys[row.id] = pack_key(row.hash, expires, numbers[row.tenant], row.scopes.split())
    plans = {
        row.name: PlanEntry(row.tier, MappingProxyType(dict(row.limits)), row.retention_days)
        for row in connection.execute(select(PLANS))
    }
    return Directory(now, plans, tenants, numbers, keys)


def _rows(connection: Connection, query: Any) -> Iterable[Row[Any]]:  # noqa: ANN401 - a select of any columns
    return connection.execute(query.execution_options(stream_results=True, yield_per=_CHUNK))


def _frozen(attributes: dict[str, str]) -> Any:  # noqa: ANN401 - a mapping
    return MappingProxyType(dict(attributes)) if attributes else _NO_ATTRIBUTES
