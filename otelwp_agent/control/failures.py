"""Translate errors of SQLite and PostgreSQL to errors that say what to do."""

from __future__ import annotations

import sqlite3

from otelwp_agent.control.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreNotMigratedError,
    StoreReadOnlyError,
    StoreUnreachableError,
)

MIGRATE = "`otelwp-agent control migrate`"
"""The command that creates and upgrades a store, for messages."""

_PRIMARY = 0xFF
"""Bits of an extended SQLite error code that contain the primary code."""

_SQLITE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_PERM: (StoreReadOnlyError, "give the agent's user permission to read and write it"),
    sqlite3.SQLITE_BUSY: (StoreLockedError, "another process has locked it: end that process, or try again"),
    sqlite3.SQLITE_LOCKED: (StoreLockedError, "another process has locked it: end that process, or try again"),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnlyError,
        "it cannot be written: give the agent's user permission to write the file and its directory",
    ),
    sqlite3.SQLITE_IOERR: (StoreUnreachableError, "reading or writing its file failed: check the disk"),
    sqlite3.SQLITE_CORRUPT: (StoreCorruptError, "its file is damaged: restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (
        StoreCorruptError,
        "its file is not an SQLite database: give the right path, or restore it from a backup",
    ),
    sqlite3.SQLITE_FULL: (StoreUnreachableError, "the disk is full: free some space"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnreachableError,
        "its file cannot be opened: check the path, and that the agent's user can read and write the directory",
    ),
}

_CONNECTION_FAILED = "08"
_NO_SERVER = "the server cannot be reached: check that it runs, and the host and port of the URL"
_POSTGRESQL: tuple[tuple[str, type[StoreError], str], ...] = (
    ("25006", StoreReadOnlyError, "the server is read-only: connect to the primary server"),
    (
        "42501",
        StoreReadOnlyError,
        "the user has too few privileges: grant them on the tables, or use the tables' owner",
    ),
    ("42P01", StoreNotMigratedError, f"it has no tables yet: create them with {MIGRATE}"),
    ("55P03", StoreLockedError, "another session has locked it: end that session, or try again"),
    ("57014", StoreLockedError, "a statement took too long: look for locks in pg_stat_activity, or try again"),
    ("40", StoreLockedError, "another session changed the same rows: try again"),
    ("XX", StoreCorruptError, "the database is damaged: restore it from a backup"),
    (_CONNECTION_FAILED, StoreUnreachableError, _NO_SERVER),
    ("57P", StoreUnreachableError, _NO_SERVER),
    ("28", StoreUnreachableError, "the server refused the user: check the user and password of the URL"),
    ("3D000", StoreUnreachableError, "the database does not exist: create it, or correct the URL"),
    ("53", StoreUnreachableError, "the server has no resources left: check its disk, memory and connections"),
)
"""Beginnings of SQLSTATE codes, with the error and what to do."""


def translate(error: Exception, location: str) -> StoreError:
    """Return the error to raise for an error of the database at `location`, which contains no password."""
    cause = getattr(error, "orig", None) or error
    kind, advice = _classify(cause)
    return kind(f"control store {location}: {advice} ({_one_line(cause)})")


def _classify(cause: BaseException) -> tuple[type[StoreError], str]:
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & _PRIMARY in _SQLITE:
            return _SQLITE[code & _PRIMARY]
        if "no such table" in str(cause):
            return StoreNotMigratedError, f"it has no tables yet: create them with {MIGRATE}"
        return StoreError, "the database reported an error"
    # psycopg's errors have no SQLSTATE if there is no connection.
    state = getattr(cause, "sqlstate", None) or _CONNECTION_FAILED
    matching = ((kind, advice) for beginning, kind, advice in _POSTGRESQL if state.startswith(beginning))
    return next(matching, (StoreError, "the database reported an error"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
