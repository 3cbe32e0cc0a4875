"""Open the control store, check its version, and run transactions.

A `Store` may be used by one thread at a time; commands use it directly, agents through `store_thread`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from otelwp_agent import __version__
from otelwp_agent.control import database, revisions
from otelwp_agent.control.errors import (
    PepperError,
    StoreCorruptError,
    StoreError,
    StoreNotMigratedError,
    StoreVersionError,
)
from otelwp_agent.control.failures import MIGRATE, translate
from otelwp_agent.control.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine


class Store:
    """A control store in SQLite or PostgreSQL. The database is opened at the first use, and again after errors."""

    def __init__(self, url: str, *, patience: float = database.PATIENCE) -> None:
        """Use the store at `url`; wait up to `patience` seconds for locks and connections. Raises `StoreError`."""
        self.url = database.parse_url(url)
        self.location = database.location(self.url)
        self.opened = 0
        """How many times the store was opened: snapshots of an earlier store may be of another file."""
        self._patience = patience
        self._file = (
            database.SqliteFile(Path(self.url.database or ""), patience) if self.url.drivername == "sqlite" else None
        )
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is in SQLite."""
        return self._file is not None

    @property
    def path(self) -> Path | None:
        """The file of a store in SQLite, `None` for PostgreSQL."""
        return None if self._file is None else self._file.path

    def open(self) -> None:
        """Connect and check the version; raise `StoreError` that says what to do."""
        with self.read():
            pass

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        if self._file is None:
            engine.dispose()
            return
        # The last connection that closes makes a checkpoint.
        with contextlib.suppress(StoreError), self._file.lock(required=False):
            engine.dispose()
            return
        engine.dispose()

    def migrate(self) -> tuple[str | None, str]:
        """Create the store or upgrade it; return the revision before and after."""
        if self._file is not None:
            self._file.create()
        try:
            with self._transaction(write=True, check=False) as connection:
                return self._migrate(connection)
        except StoreError:
            self.close()
            raise

    def _migrate(self, connection: Connection) -> tuple[str | None, str]:
        if not self.is_sqlite:
            # Two processes must not migrate at once; the lock is released with the transaction.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('otelwp-agent control migrate'))"))
        before = revisions.current(connection)
        if before is None and self.is_sqlite and not revisions.is_empty(connection):
            raise StoreCorruptError(f"{self.location} has the tables of another application: give another file")
        if before is not None and before not in revisions.NEEDS:
            raise self._newer(connection)
        if before != revisions.HEAD:
            from otelwp_agent.control import migrations  # noqa: PLC0415 - agents do not need Alembic

            migrations.upgrade(connection, revisions.HEAD)
        return before, revisions.HEAD

    def check_file(self) -> list[str]:
        """Return the problems that SQLite's own integrity check finds; none for PostgreSQL."""
        if self._file is None:
            return []
        with self.read() as connection:
            found = [str(row[0]) for row in connection.execute(text("PRAGMA integrity_check(20)"))]
            found += [f"foreign key: {tuple(row)}" for row in connection.execute(text("PRAGMA foreign_key_check"))]
        return [problem for problem in found if problem != "ok"]

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Return a connection for a transaction that only reads; raise `StoreError`."""
        with self._transaction(write=False, check=True) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Return a connection for a transaction, which is committed at the end of the block; raise `StoreError`."""
        with self._transaction(write=True, check=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, write: bool, check: bool) -> Iterator[Connection]:
        try:
            engine = self._ready(check=check)
            with self._lock_for(write=write):
                with self._connect(engine, write=write) as connection, connection.begin():
                    yield connection
                if write and self._file is not None and self._file.needs_checkpoint():
                    _checkpoint(engine)
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.Error) as error:
            self.close()  # the next use connects again
            raise translate(error, self.location) from error

    def _connect(self, engine: Engine, *, write: bool) -> Connection:
        connection = engine.connect()
        if self.is_sqlite:
            return connection.execution_options(write=write)
        if not write:  # all statements of the transaction see the same state, as in SQLite
            return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return connection

    def _lock_for(self, *, write: bool) -> contextlib.AbstractContextManager[None]:
        return self._file.lock() if self._file is not None and write else contextlib.nullcontext()

    def _ready(self, *, check: bool) -> Engine:
        """Return the engine; connect and check the version if that has not been done, or the file was replaced."""
        identity = self._file.identity() if self._file is not None else None
        if self._engine is not None and identity == self._identity:
            return self._engine
        self.close()
        if self._file is not None:
            engine = database.sqlite_engine(self.url, self._patience)
            with self._file.lock(required=False), engine.connect():
                pass
        else:
            engine = database.postgresql_engine(self.url, self._patience)
        if check:
            try:
                with engine.connect() as connection, connection.begin():
                    self._check_version(connection)
            except BaseException:
                engine.dispose()
                raise
        self._engine, self._identity = engine, identity
        self.opened += 1
        return engine

    def _check_version(self, connection: Connection) -> None:
        found = revisions.current(connection)
        if found == revisions.HEAD:
            return
        if found is None:
            raise StoreNotMigratedError(
                f"control store {self.location}: it has no tables yet: create them with {MIGRATE}"
            )
        if found in revisions.NEEDS:
            raise StoreNotMigratedError(
                f"control store {self.location}: it has revision {found}, and this agent needs revision "
                f"{revisions.HEAD}: back it up, then upgrade it with {MIGRATE}"
            )
        raise self._newer(connection)

    def _newer(self, connection: Connection) -> StoreVersionError:
        version = revisions.needs(connection)
        needed = f"otelwp-agent {version} or newer" if version else "a newer otelwp-agent"
        return StoreVersionError(
            f"control store {self.location}: it was written by a newer version: it needs {needed}, and this is "
            f"{__version__}: upgrade this agent"
        )


def _checkpoint(engine: Engine) -> None:
    """Copy the write-ahead log to the database, as far as no reader needs it. Errors are left to the next write."""
    with contextlib.suppress(DBAPIError, sqlite3.Error), engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        if raw is not None:
            raw.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


def bind_pepper(connection: Connection, fingerprint: str, source: str) -> None:
    """Check that the pepper is the one that the store was created with; the first one is recorded.

    `source` names the pepper's file in the message of the `PepperError`.
    """
    known = recorded_pepper(connection)
    if not known:
        connection.execute(update(STATE).values(pepper=fingerprint))
    elif known != fingerprint:
        raise PepperError(
            f"{source} is not the pepper that the API keys of this store were created with, so none of them would be "
            "accepted: restore the pepper from a backup"
        )


def recorded_pepper(connection: Connection) -> str:
    """Return the fingerprint of the store's pepper, "" if none was recorded yet; raise `StoreCorruptError`."""
    found = connection.execute(select(STATE.c.pepper)).scalar_one_or_none()
    if found is None:
        raise StoreCorruptError("the control store has no state: restore it from a backup")
    return str(found)
