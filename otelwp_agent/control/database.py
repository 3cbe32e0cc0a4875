"""Connect to SQLite or PostgreSQL.

SQLite before 3.51.3 can damage a database in WAL mode if two connections write or checkpoint at the same time. So each
process has one connection, automatic checkpoints are off, and a process that writes, checkpoints, opens or closes holds
a lock on `<file>.lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from otelwp_agent.control.errors import StoreError, StoreLockedError, StoreMissingError, StoreReadOnlyError
from otelwp_agent.control.failures import MIGRATE
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from sqlite3 import Connection as SqliteConnection

PATIENCE = 5.0
"""Seconds to wait for a lock, or for a connection to a server."""
STATEMENT_TIMEOUT = 30.0
"""Seconds after which PostgreSQL cancels a statement."""
CHECKPOINT_BYTES = 1024 * 1024
"""Size of the write-ahead log from which a write is followed by a checkpoint."""

_LOCK_RETRY = 0.01
"""Seconds between two attempts to lock a store: `flock` cannot wait with a time limit."""
_FORMS = "write `sqlite:///control.db` (a relative path), `sqlite:////var/lib/otelwp/control.db` or `postgresql://…`"


def parse_url(text: str) -> URL:
    """Return the URL of a store; raise `StoreError` that names the valid forms if it is invalid."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StoreError(f"the URL of the control store is invalid: {_FORMS}") from None
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:" or url.host or url.query:
            raise StoreError(f"the URL of the control store names no file: {_FORMS}")
        return url
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"the control store cannot be in {url.drivername!r}: {_FORMS}")


def location(url: URL) -> str:
    """Return the path or URL of a store for messages, without a password."""
    if url.drivername == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


class SqliteFile:
    """The file of a store in SQLite, and the lock for its writers."""

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        """Use the database `path`; wait up to `patience` seconds for locks."""
        self.path = path
        self._patience = patience
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._log_path = path.with_name(f"{path.name}-wal")

    def create(self) -> None:
        """Create an empty file, mode 0600, and its directory; raise `StoreReadOnlyError`."""
        try:
            files.make_directory(self.path.parent)
            files.close(files.open_file(self.path, os.O_RDWR | os.O_CREAT))
        except OSError as error:
            raise StoreReadOnlyError(
                f"cannot create the control store {self.path}: {error.strerror}. Give a file in a directory that can "
                "be written"
            ) from error

    def identity(self) -> tuple[int, int]:
        """Return the device and inode of the file; raise `StoreMissingError` if it does not exist."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise StoreMissingError(
                f"there is no control store at {self.path} ({error.strerror}): create it with {MIGRATE}, or correct "
                "the path"
            ) from error
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def lock(self, *, required: bool = True) -> Iterator[None]:
        """Hold the lock for writers.

        Raises `StoreLockedError` if another process holds it for too long, and `StoreReadOnlyError` if the lock cannot
        be created. If the lock is not `required`, it is left out in that case: the store cannot be written anyway.
        """
        try:
            fd = files.open_file(self._lock_path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if not required:
                yield
                return
            raise StoreReadOnlyError(
                f"control store {self.path}: it cannot be written ({self._lock_path.name}: {error.strerror}): give the "
                "agent's user permission to write the file and its directory"
            ) from error
        try:
            self._wait(fd)
            yield
        finally:
            files.close(fd)

    def needs_checkpoint(self) -> bool:
        """Return whether the write-ahead log is large."""
        try:
            return self._log_path.stat().st_size >= CHECKPOINT_BYTES
        except OSError:
            return False

    def _wait(self, fd: int) -> None:
        end = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() >= end:
                    raise StoreLockedError(
                        f"control store {self.path}: another process has locked it for {self._patience:g} s: end that "
                        "process, or try again"
                    ) from error
                time.sleep(_LOCK_RETRY)
            else:
                return


def sqlite_engine(url: URL, patience: float = PATIENCE) -> Engine:
    """Return an engine with one connection, in WAL mode, whose transactions begin with the write lock of SQLite."""
    engine = create_engine(
        url,
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": patience, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: SqliteConnection, _record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        # Without BEGIN, sqlite3 would run each statement in a transaction of its own.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def postgresql_engine(url: URL, patience: float = PATIENCE) -> Engine:
    """Return an engine with one connection, which is checked before each use; raise `StoreError` without psycopg."""
    options = (
        f"-c lock_timeout={patience * 1000:.0f} -c statement_timeout={STATEMENT_TIMEOUT * 1000:.0f} -c timezone=UTC"
    )
    defaults = {
        "connect_timeout": f"{max(2, round(patience))}",
        "application_name": "otelwp-agent",
        "options": options,
        "tcp_user_timeout": f"{STATEMENT_TIMEOUT * 1000:.0f}",
    }
    try:
        return create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=patience,
            connect_args={name: value for name, value in defaults.items() if name not in url.query},
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            "a control store in PostgreSQL needs psycopg: install it with `pip install 'otelwp-agent[postgresql]'`"
        ) from error
