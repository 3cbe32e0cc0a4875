"""Create the table of licences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from otelwp_agent.control.tables import UtcTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "licenses",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("customer", sa.String(200), nullable=False),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("domains", sa.JSON, nullable=False),
        sa.Column("not_before", sa.Date),
        sa.Column("expires", sa.Date, nullable=False),
        sa.Column("lease_days", sa.Integer),
        sa.Column("revoked", UtcTime),
        sa.Column("revocation_reason", sa.String(200), nullable=False),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
