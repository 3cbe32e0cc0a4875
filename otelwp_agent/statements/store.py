"""The database of statements: a SQLite file that one agent at a time uses.

A checkpoint is one transaction: the states of tenants that have changed, the statements that were made of them, and the
time. So a crash leaves both or neither.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson

from otelwp_agent.statements.accounts import TenantState
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tenants (tenant TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS statements (
    tenant TEXT NOT NULL, sequence INTEGER NOT NULL, begun REAL NOT NULL, ended REAL NOT NULL, hash TEXT NOT NULL,
    text TEXT NOT NULL, PRIMARY KEY (tenant, sequence)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS statements_by_time ON statements (ended);
"""
_BUSY_SECONDS = 1.0


class StatementStoreError(Exception):
    """The database cannot be used; the message says why."""


class StoredStatement(NamedTuple):
    """A row of the database. Times are seconds since 1970."""

    tenant: str
    sequence: int
    begin: float
    end: float
    hash: str
    text: str


@dataclass(slots=True)
class SavedStates:
    """The content of the database when it was opened."""

    states: dict[str, TenantState] = field(default_factory=dict)
    checkpoint: float | None = None
    """When the states were saved, if the agent was not stopped in order afterwards."""
    cut: float | None = None
    """When statements were made last."""


class StatementStore:
    """The open database. May be used from any thread."""

    def __init__(self, path: Path) -> None:
        """Open nothing."""
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> SavedStates:
        """Create or open the file and read the states; raise `StatementStoreError`."""
        try:
            files.make_directory(self.path.parent)
            files.close(files.open_file(self.path, os.O_RDWR | os.O_CREAT))
        except OSError as error:
            message = f"cannot use {self.path}: {error.strerror}"
            raise StatementStoreError(message) from error
        with self._lock, self._errors():
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._connection = connection
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("COMMIT")
            return self._load(connection)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def save(  # noqa: PLR0913 - the parts of one checkpoint
        self,
        states: Mapping[str, TenantState],
        statements: Sequence[StoredStatement],
        *,
        now: float,
        cut: float,
        stopped: bool,
        keep_since: float,
    ) -> None:
        """Write a checkpoint; `stopped`: the last one of a run. Statements that ended before `keep_since` are deleted.

        Raises `StatementStoreError`, and then nothing has changed.
        """
        rows = [(tenant, orjson.dumps(state.to_json()).decode()) for tenant, state in states.items()]
        times = [("version", VERSION), ("checkpoint", now), ("stopped", float(stopped)), ("cut", cut)]
        with self._lock, self._errors():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", times)
                connection.executemany("INSERT OR REPLACE INTO tenants VALUES (?, ?)", rows)
                connection.executemany("INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?)", statements)
                if statements:
                    connection.execute("DELETE FROM statements WHERE ended < ?", (keep_since,))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def statements(self, tenant: str, after: int, limit: int) -> list[StoredStatement]:
        """Return up to `limit` statements of a tenant with larger numbers than `after`, in their order."""
        with self._lock, self._errors():
            rows = self._open().execute(
                "SELECT * FROM statements WHERE tenant = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (tenant, after, limit),
            )
            return [StoredStatement(*row) for row in rows]

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            message = f"{self.path} is not open"
            raise StatementStoreError(message)
        return self._connection

    def _load(self, connection: sqlite3.Connection) -> SavedStates:
        times = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if times.get("version", VERSION) != VERSION:
            message = f"{self.path} was written by another version of the agent: give another file"
            raise StatementStoreError(message)
        states = {}
        for tenant, text in connection.execute("SELECT tenant, state FROM tenants"):
            try:
                states[tenant] = TenantState.from_json(orjson.loads(text))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                message = f"{self.path}: the state of tenant {tenant} is damaged: restore a copy, or give another file"
                raise StatementStoreError(message) from error
        checkpoint = times.get("checkpoint") if not times.get("stopped", 1.0) else None
        return SavedStates(states, checkpoint, times.get("cut"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                message = f"{self.path} is in use by another agent: give each agent its own"
            else:
                message = f"cannot use {self.path}: {error}"
            raise StatementStoreError(message) from error
