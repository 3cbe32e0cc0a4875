"""Tables of the control store. Migrations in `migrations/versions` create them.

`changed` of a tenant, plan, key or licence is the value of `store_state.version` after its last change, so that
snapshots read only rows that changed. Rows of tenants, keys and licences are never deleted: a key or licence is
revoked, a tenant suspended.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC with microseconds. PostgreSQL keeps the zone; SQLite has no zones and stores UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = f"{value} has no time zone"
            raise ValueError(message)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

REVISION = Table("control_revision", MetaData(), Column("version_num", String(32), primary_key=True))
"""One row with the revision of the store. Alembic creates this table."""

STATE = Table(
    "store_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("needs", String(32), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("audit_sequence", BigInteger, nullable=False),
    Column("audit_hash", String(64), nullable=False),
    Column("pepper", String(64), nullable=False),
    Column("created", UtcTime, nullable=False),
)
"""One row, with `id` 1: `needs` is the oldest version of the agent that can use the store; `version` is the change
counter; `audit_*` are the sequence number and hash of the last row of the audit log; `pepper` is the fingerprint of
the pepper, "" before it is known. Every change updates this row first, so that changes are serialized."""

PLANS = Table(
    "plans",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("tier", String(16), nullable=False),
    Column("limits", JSON, nullable=False),
    Column("retention_days", Integer),
    Column("created", UtcTime, nullable=False),
    Column("changed", BigInteger, nullable=False),
)

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", String(63), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("plan", String(63), ForeignKey("plans.name"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Index("ix_tenants_changed", "changed"),
    Index("ix_tenants_plan", "plan"),
)

KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(63), ForeignKey("tenants.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime),
    Column("revoked", UtcTime),
    Column("last_used", UtcTime),
    Column("changed", BigInteger, nullable=False),
    Index("ix_api_keys_changed", "changed"),
    Index("ix_api_keys_tenant", "tenant", "name"),
)

LICENSES = Table(
    "licenses",
    METADATA,
    Column("id", String(63), primary_key=True),
    Column("customer", String(200), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("features", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("domains", JSON, nullable=False),
    Column("not_before", Date),
    Column("expires", Date, nullable=False),
    Column("lease_days", Integer),
    Column("revoked", UtcTime),
    Column("revocation_reason", String(200), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("changed", BigInteger, nullable=False),
)
"""Licences of agents. Neither their signed texts nor the key that signs them are in the store."""

OPERATORS = Table(
    "operators",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("token_id", String(16), nullable=False, unique=True),
    Column("token_hash", LargeBinary(32), nullable=False),
    Column("token_created", UtcTime, nullable=False),
    Column("created", UtcTime, nullable=False),
)

AUDIT = Table(
    "audit_log",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", UtcTime, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(63), nullable=False),
    Column("target", String(200), nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("request_id", String(200), nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Append-only: triggers refuse to update and delete rows. `before` and `after` are JSON, kept as text because their
exact bytes are hashed."""

IDEMPOTENCY = Table(
    "idempotency_keys",
    METADATA,
    Column("actor", String(200), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    Index("ix_idempotency_keys_created", "created"),
)
"""Answers to mutating API requests by `Idempotency-Key`; `request` is the hash of the request's content."""
