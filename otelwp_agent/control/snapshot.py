"""Read a `Directory` from the control store, as a whole or only what has changed."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, select

from otelwp_agent.control.directory import NOTHING, Directory, PlanEntry, TenantEntry, pack_key, scope_bits
from otelwp_agent.control.tables import KEYS, PLANS, STATE, TENANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Select

_CHUNK = 1000
"""Rows that are read at once. Between two chunks other threads run."""
_KEY_COLUMNS = (KEYS.c.id, KEYS.c.tenant, KEYS.c.hash, KEYS.c.scopes, KEYS.c.expires, KEYS.c.revoked.is_not(None))
_TENANT_COLUMNS = (TENANTS.c.id, TENANTS.c.plan, TENANTS.c.status, cast(TENANTS.c.attributes, Text))


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
    for id_, plan, status, attributes in _rows(
        connection, select(*_TENANT_COLUMNS).where(TENANTS.c.changed > old.version)
    ):
        tenant = TenantEntry(id_, plan, status == "active", _attributes(attributes))
        number = numbers.setdefault(id_, len(tenants))
        if number == len(tenants):
            tenants.append(tenant)
        else:
            tenants[number] = tenant
    keys = dict(old.keys)
    query = select(*_KEY_COLUMNS).where(KEYS.c.changed > old.version)
    if not old.version:
        query = query.where(KEYS.c.revoked.is_(None))
    bits: dict[str, int] = {}
    for id_, tenant_id, hash_, scopes, expires, revoked in _rows(connection, query):
        if revoked:
            keys.pop(id_, None)
            continue
        if scopes not in bits:
            bits[scopes] = scope_bits(scopes.split())
        expires_at = None if expires is None else expires.timestamp()
        keys[id_] = pack_key(hash_, expires_at, numbers[tenant_id], bits[scopes])
    plans = {
        row.name: PlanEntry(row.tier, MappingProxyType(dict(row.limits)), row.retention_days)
        for row in connection.execute(select(PLANS))
    }
    return Directory(now, plans, tenants, numbers, keys)


def _rows(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    result = connection.execute(query.execution_options(stream_results=True, yield_per=_CHUNK))
    for chunk in result.partitions():
        yield from chunk


def _attributes(text: str) -> Mapping[str, str]:
    return NOTHING if text == "{}" else MappingProxyType(json.loads(text))
