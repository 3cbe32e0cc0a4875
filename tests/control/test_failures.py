import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from otelwp_agent.control import errors
from otelwp_agent.control.failures import translate


class PostgresqlError(Exception):
    def __init__(self, sqlstate):
        super().__init__("the server's words\nin two lines")
        self.sqlstate = sqlstate


def wrapped(cause):
    return OperationalError("SELECT 1", {"hash": "s3cret"}, cause)


@pytest.mark.parametrize(
    ("state", "kind", "advice"),
    [
        (None, errors.StoreUnreachableError, "check that it runs, and the host and port of the URL"),
        ("08006", errors.StoreUnreachableError, "check that it runs"),
        ("57P01", errors.StoreUnreachableError, "check that it runs"),
        ("28P01", errors.StoreUnreachableError, "check the user and password of the URL"),
        ("3D000", errors.StoreUnreachableError, "create it, or correct the URL"),
        ("53300", errors.StoreUnreachableError, "check its disk, memory and connections"),
        ("25006", errors.StoreReadOnlyError, "connect to the primary server"),
        ("42501", errors.StoreReadOnlyError, "grant them on the tables"),
        ("42P01", errors.StoreNotMigratedError, "`otelwp-agent control migrate`"),
        ("55P03", errors.StoreLockedError, "end that session, or try again"),
        ("57014", errors.StoreLockedError, "pg_stat_activity"),
        ("40001", errors.StoreLockedError, "try again"),
        ("XX001", errors.StoreCorruptError, "restore it from a backup"),
        ("42601", errors.StoreError, "the database reported an error"),
    ],
)
def test_errors_of_postgresql(state, kind, advice):
    error = translate(wrapped(PostgresqlError(state)), "postgresql://db/control")
    assert type(error) is kind
    assert str(error).startswith("control store postgresql://db/control: ")
    assert advice in str(error)
    assert str(error).endswith("(the server's words in two lines)")
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, errors.StoreLockedError, "another process has locked it"),
        (sqlite3.SQLITE_READONLY_DBMOVED, errors.StoreReadOnlyError, "permission to write the file and its directory"),
        (sqlite3.SQLITE_IOERR_WRITE, errors.StoreUnreachableError, "check the disk"),
        (sqlite3.SQLITE_CORRUPT_VTAB, errors.StoreCorruptError, "restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, errors.StoreCorruptError, "not an SQLite database"),
        (sqlite3.SQLITE_FULL, errors.StoreUnreachableError, "free some space"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, errors.StoreUnreachableError, "check the path"),
        (sqlite3.SQLITE_ERROR, errors.StoreError, "the database reported an error"),
    ],
)
def test_errors_of_sqlite(code, kind, advice):
    cause = sqlite3.OperationalError("words")
    cause.sqlite_errorcode = code
    for error in (translate(wrapped(cause), "control.db"), translate(cause, "control.db")):
        assert type(error) is kind
        assert advice in str(error)


def test_a_missing_table():
    cause = sqlite3.OperationalError("no such table: tenants")
    cause.sqlite_errorcode = sqlite3.SQLITE_ERROR
    assert isinstance(translate(cause, "control.db"), errors.StoreNotMigratedError)
