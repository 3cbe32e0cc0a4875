"""Create the tables of tenants, plans, API keys, operators and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from otelwp_agent.control.tables import UtcTime

revision = "0001"
down_revision = None

FIRST_HASH = "0" * 64
"""The hash before the first row of the audit log."""


def upgrade() -> None:
    """Create the tables, the state and a plan for each tier, without limits."""
    _create_tables()
    _protect_audit_log()
    now = datetime.now(UTC)
    names = ("id", "needs", "version", "audit_sequence", "audit_hash", "pepper")
    state = {"id": 1, "needs": "", "version": 1, "audit_sequence": 0, "audit_hash": FIRST_HASH, "pepper": ""}
    op.bulk_insert(
        sa.table("store_state", *map(sa.column, names), sa.column("created", UtcTime)), [{**state, "created": now}]
    )
    op.bulk_insert(
        sa.table(
            "plans",
            sa.column("name"),
            sa.column("tier"),
            sa.column("limits", sa.JSON),
            sa.column("changed"),
            sa.column("created", UtcTime),
        ),
        [
            {"name": tier, "tier": tier, "limits": {}, "changed": 1, "created": now}
            for tier in ("free", "pro", "enterprise")
        ],
    )


def _create_tables() -> None:
    op.create_table(
        "store_state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("needs", sa.String(32), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("audit_sequence", sa.BigInteger, nullable=False),
        sa.Column("audit_hash", sa.String(64), nullable=False),
        sa.Column("pepper", sa.String(64), nullable=False),
        sa.Column("created", UtcTime, nullable=False),
    )
    op.create_table(
        "plans",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("retention_days", sa.Integer),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("plan", sa.String(63), sa.ForeignKey("plans.name"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_tenants_changed", "tenants", ["changed"])
    op.create_index("ix_tenants_plan", "tenants", ["plan"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(63), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("expires", UtcTime),
        sa.Column("revoked", UtcTime),
        sa.Column("last_used", UtcTime),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_api_keys_changed", "api_keys", ["changed"])
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant", "name"])
    op.create_table(
        "operators",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("token_id", sa.String(16), nullable=False, unique=True),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("token_created", UtcTime, nullable=False),
        sa.Column("created", UtcTime, nullable=False),
    )
    op.create_table(
        "audit_log",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(63), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(200), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("created", UtcTime, nullable=False),
    )
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created"])


def _protect_audit_log() -> None:
    """Refuse to update and delete rows of the audit log."""
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_log_refuses_{event.lower()} BEFORE {event} ON audit_log "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_audit_log_change() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_log_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_log_change()"
    )
