"""Environment of the migrations: Alembic runs this file to migrate over the connection that `upgrade` gives it."""

from __future__ import annotations

from alembic import context

from otelwp_agent.control.tables import METADATA, REVISION

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=REVISION.name,
    transactional_ddl=True,
)
context.run_migrations()
