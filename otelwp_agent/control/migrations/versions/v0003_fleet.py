"""Create the tables of the fleet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from otelwp_agent.control.tables import UtcTime

revision = "0003"
down_revision = "0002"

_INSTALLATION = "plugin_installations.id"


def upgrade() -> None:
    """Create the tables."""
    _create_installations()
    _create_events()
    _create_toggles_and_notifications()
    _create_daily_health()


def _create_installations() -> None:
    op.create_table(
        "plugin_installations",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("tenant", sa.String(63), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("cms", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("site_id", sa.String(128), nullable=False),
        sa.Column("plugin_version", sa.String(64), nullable=False),
        sa.Column("sdk_language", sa.String(32), nullable=False),
        sa.Column("cms_version", sa.String(64), nullable=False),
        sa.Column("php_version", sa.String(64), nullable=False),
        sa.Column("server_info", sa.JSON, nullable=False),
        sa.Column("errors_last_hour", sa.Float, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_rate", sa.Float, nullable=False),
        sa.Column("first_seen", UtcTime, nullable=False),
        sa.Column("last_heartbeat", UtcTime, nullable=False),
        sa.Column("sent_at", UtcTime),
    )
    op.create_index("ix_plugin_installations_tenant", "plugin_installations", ["tenant", "cms"])
    op.create_index("ix_plugin_installations_status", "plugin_installations", ["status", "id"])
    op.create_index("ix_plugin_installations_cms", "plugin_installations", ["cms", "id"])
    op.create_index("ix_plugin_installations_status_cms", "plugin_installations", ["status", "cms", "id"])
    op.create_index("ix_plugin_installations_last_heartbeat", "plugin_installations", ["last_heartbeat"])
    op.create_index("ix_plugin_installations_statistics", "plugin_installations", ["cms", "status", "error_rate"])
    op.create_table(
        "plugin_versions_registry",
        sa.Column("cms", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("is_latest", sa.Boolean, nullable=False),
        sa.Column("is_critical", sa.Boolean, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("created", UtcTime, nullable=False),
    )


def _create_events() -> None:
    op.create_table(
        "plugin_telemetry_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("installation", sa.String(36), sa.ForeignKey(_INSTALLATION), nullable=False),
        sa.Column("event_id", sa.String(128)),
        sa.Column("event_type", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("event_data", sa.JSON, nullable=False),
        sa.Column("stack_trace", sa.Text, nullable=False),
        sa.Column("received", UtcTime, nullable=False),
        sa.UniqueConstraint("installation", "event_id", name="uq_plugin_telemetry_events_installation"),
    )
    table = "plugin_telemetry_events"
    op.create_index("ix_plugin_telemetry_events_installation", table, ["installation", "received"])
    op.create_index("ix_plugin_telemetry_events_received", table, ["received"])


def _create_toggles_and_notifications() -> None:
    op.create_table(
        "plugin_ops_toggles",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("installation", sa.String(36), sa.ForeignKey(_INSTALLATION), nullable=False),
        sa.Column("toggle_key", sa.String(32), nullable=False),
        sa.Column("toggle_value", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("expires_at", UtcTime),
        sa.Column("updated_by", sa.String(200), nullable=False),
        sa.Column("updated", UtcTime, nullable=False),
        sa.Column("pending", sa.Boolean, nullable=False),
        sa.UniqueConstraint("installation", "toggle_key", name="uq_plugin_ops_toggles_installation"),
    )
    op.create_table(
        "plugin_upgrade_notifications",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("installation", sa.String(36), sa.ForeignKey(_INSTALLATION), nullable=False),
        sa.Column("from_version", sa.String(64), nullable=False),
        sa.Column("to_version", sa.String(64), nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("sent_at", UtcTime),
        sa.Column("acknowledged_at", UtcTime),
    )
    op.create_index(
        "ix_plugin_upgrade_notifications_installation", "plugin_upgrade_notifications", ["installation", "to_version"]
    )


def _create_daily_health() -> None:
    op.create_table(
        "plugin_health_metrics",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("installation", sa.String(36), sa.ForeignKey(_INSTALLATION), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("plugin_version", sa.String(64), nullable=False),
        sa.Column("errors", sa.Integer, nullable=False),
        sa.Column("successes", sa.Integer, nullable=False),
        sa.Column("error_rate", sa.Float, nullable=False),
    )
    op.create_index("ix_plugin_health_metrics_installation", "plugin_health_metrics", ["installation", "day"])
    op.create_table(
        "plugin_monitor_jobs",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("done", UtcTime),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("until", UtcTime, nullable=False),
    )
