"""Create the table of agents that report over OpAMP."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from otelwp_agent.control.tables import UtcTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "opamp_agents",
        sa.Column("installation", sa.String(36), sa.ForeignKey("plugin_installations.id"), primary_key=True),
        sa.Column("tenant", sa.String(63), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("cms", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("capabilities", sa.BigInteger, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("health", sa.JSON, nullable=False),
        sa.Column("healthy", sa.Boolean, nullable=False),
        sa.Column("effective_config", sa.JSON, nullable=False),
        sa.Column("components", sa.JSON, nullable=False),
        sa.Column("components_hash", sa.String(128), nullable=False),
        sa.Column("config_hash", sa.String(128), nullable=False),
        sa.Column("config_state", sa.String(16), nullable=False),
        sa.Column("config_message", sa.Text, nullable=False),
        sa.Column("disconnected", sa.Boolean, nullable=False),
        sa.Column("reported", UtcTime, nullable=False),
        sa.UniqueConstraint("tenant", "instance", name="uq_opamp_agents_tenant"),
    )
    op.create_index("ix_opamp_agents_reported", "opamp_agents", ["reported"])
