"""Alembic scripts of the control store, and functions that run them.

To add a revision, write `versions/v<number>_<subject>.py` with `revision`, `down_revision` and `upgrade`, change
`tables.py`, and add the revision to `revisions.NEEDS`. Revisions are not downgraded: restore a backup instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import update

from otelwp_agent.control.revisions import NEEDS
from otelwp_agent.control.tables import STATE

if TYPE_CHECKING:
    from sqlalchemy import Connection

FOLDER = Path(__file__).parent


def upgrade(connection: Connection, target: str) -> None:
    """Migrate a store to the revision `target`, in the transaction of `connection`."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    connection.execute(update(STATE).values(needs=NEEDS[target]))


def scripts() -> list[str]:
    """Return the revisions of the scripts, oldest first."""
    walk = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in walk][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
