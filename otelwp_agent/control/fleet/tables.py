"""Tables of the fleet. The migration `v0003_fleet` creates them.

`plugin_installations.id` is made of tenant, CMS, environment and site, so that a repeated heartbeat finds its row.
Times of installations and events are those of this server, except `sent_at`, which the plugin gives.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from otelwp_agent.control.tables import METADATA, UtcTime

INSTALLATIONS = Table(
    "plugin_installations",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(63), ForeignKey("tenants.id"), nullable=False),
    Column("cms", String(32), nullable=False),
    Column("environment", String(32), nullable=False),
    Column("site_id", String(128), nullable=False),
    Column("plugin_version", String(64), nullable=False),
    Column("sdk_language", String(32), nullable=False),
    Column("cms_version", String(64), nullable=False),
    Column("php_version", String(64), nullable=False),
    Column("server_info", JSON, nullable=False),
    Column("errors_last_hour", Float, nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_rate", Float, nullable=False),
    Column("first_seen", UtcTime, nullable=False),
    Column("last_heartbeat", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Index("ix_plugin_installations_tenant", "tenant", "cms"),
    Index("ix_plugin_installations_status", "status", "id"),
    Index("ix_plugin_installations_cms", "cms", "id"),
    Index("ix_plugin_installations_status_cms", "status", "cms", "id"),
    Index("ix_plugin_installations_last_heartbeat", "last_heartbeat"),
    Index("ix_plugin_installations_statistics", "cms", "status", "error_rate"),
)
"""Installed plugins. `status` is `active`, `outdated`, `error` (no heartbeat for 48 hours) or `blocked`."""

EVENTS = Table(
    "plugin_telemetry_events",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("installation", String(36), ForeignKey("plugin_installations.id"), nullable=False),
    Column("event_id", String(128)),
    Column("event_type", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("event_data", JSON, nullable=False),
    Column("stack_trace", Text, nullable=False),
    Column("received", UtcTime, nullable=False),
    Index("ix_plugin_telemetry_events_installation", "installation", "received"),
    UniqueConstraint("installation", "event_id"),
    Index("ix_plugin_telemetry_events_received", "received"),
)
"""Events, redacted. `event_id` is that of the plugin, `NULL` if it gives none."""

VERSIONS = Table(
    "plugin_versions_registry",
    METADATA,
    Column("cms", String(32), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("is_latest", Boolean, nullable=False),
    Column("is_critical", Boolean, nullable=False),
    Column("notes", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
)
"""Published versions of the plugin for each CMS; one of them is the latest."""

TOGGLES = Table(
    "plugin_ops_toggles",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("installation", String(36), ForeignKey("plugin_installations.id"), nullable=False),
    Column("toggle_key", String(32), nullable=False),
    Column("toggle_value", Boolean, nullable=False),
    Column("reason", String(200), nullable=False),
    Column("expires_at", UtcTime),
    Column("updated_by", String(200), nullable=False),
    Column("updated", UtcTime, nullable=False),
    Column("pending", Boolean, nullable=False),
    UniqueConstraint("installation", "toggle_key"),
)
"""The last value of each toggle of an installation. A toggle that has expired, or is `pending` because it waits for a
second operator, has no effect."""

NOTIFICATIONS = Table(
    "plugin_upgrade_notifications",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("installation", String(36), ForeignKey("plugin_installations.id"), nullable=False),
    Column("from_version", String(64), nullable=False),
    Column("to_version", String(64), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Column("acknowledged_at", UtcTime),
    Index("ix_plugin_upgrade_notifications_installation", "installation", "to_version"),
)
"""Notices of newer versions. `sent_at` is the time of the first reply to a heartbeat that contained the notice."""

HEALTH = Table(
    "plugin_health_metrics",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("installation", String(36), ForeignKey("plugin_installations.id"), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("plugin_version", String(64), nullable=False),
    Column("errors", Integer, nullable=False),
    Column("successes", Integer, nullable=False),
    Column("error_rate", Float, nullable=False),
    Index("ix_plugin_health_metrics_installation", "installation", "day"),
)
"""The health of each installation on each day (UTC)."""

JOBS = Table(
    "plugin_monitor_jobs",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("done", UtcTime),
    Column("owner", String(64), nullable=False),
    Column("until", UtcTime, nullable=False),
)
"""The regular work of the monitor: the last period that was done, and the lease of the replica that does the next."""

AGENTS = Table(
    "opamp_agents",
    METADATA,
    Column("installation", String(36), ForeignKey("plugin_installations.id"), primary_key=True),
    Column("tenant", String(63), ForeignKey("tenants.id"), nullable=False),
    Column("cms", String(32), nullable=False),
    Column("environment", String(32), nullable=False),
    Column("instance", String(32), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("capabilities", BigInteger, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("health", JSON, nullable=False),
    Column("healthy", Boolean, nullable=False),
    Column("effective_config", JSON, nullable=False),
    Column("components", JSON, nullable=False),
    Column("components_hash", String(128), nullable=False),
    Column("config_hash", String(128), nullable=False),
    Column("config_state", String(16), nullable=False),
    Column("config_message", Text, nullable=False),
    Column("disconnected", Boolean, nullable=False),
    Column("reported", UtcTime, nullable=False),
    UniqueConstraint("tenant", "instance"),
    Index("ix_opamp_agents_reported", "reported"),
)
"""The last reports of agents over OpAMP. CMS and environment are those of its first report, which identify its
installation; `instance` is the instance uid; `sequence` the number of the last message;
`healthy` is true until an agent reports otherwise; `config_…` is the state of the last remote configuration."""
