import fcntl
import sqlite3
import stat

import pytest
from sqlalchemy import insert, make_url, select, text, update

from otelwp_agent import __version__
from otelwp_agent.control import revisions
from otelwp_agent.control.errors import (
    PepperError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreNotMigratedError,
    StoreReadOnlyError,
    StoreUnreachableError,
    StoreVersionError,
)
from otelwp_agent.control.operations import tenants
from otelwp_agent.control.store import Store, bind_pepper, recorded_pepper
from otelwp_agent.control.tables import PLANS, REVISION, STATE


def names(store):
    with store.read() as connection:
        return [tenant.id for tenant in tenants.list_tenants(connection)]


def test_migrate_creates_a_store_with_a_plan_for_each_tier_and_repeats_without_effect(url):
    store = Store(url)
    assert store.migrate() == (None, revisions.HEAD)
    assert store.migrate() == (revisions.HEAD, revisions.HEAD)
    with store.read() as connection:
        assert sorted(connection.execute(select(PLANS.c.name)).scalars()) == ["enterprise", "free", "pro"]
        assert connection.execute(select(STATE.c.needs)).scalar_one() == revisions.NEEDS[revisions.HEAD]
    assert store.check_file() == []
    store.close()


def test_a_transaction_is_rolled_back_if_its_block_raises(store, actor):
    def create_and_fail():
        with store.write() as connection:
            tenants.create_tenant(connection, actor, "acme")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    assert names(store) == []
    with store.write() as connection:
        tenants.create_tenant(connection, actor, "acme")
    assert names(store) == ["acme"]


def test_two_processes_see_the_changes_of_each_other(store, url, actor):
    other = Store(url)
    for number in range(3):
        with (store, other)[number % 2].write() as connection:
            tenants.create_tenant(connection, actor, f"tenant{number}")
    assert names(store) == names(other) == ["tenant0", "tenant1", "tenant2"]
    other.close()
    assert names(store) == names(store)


def test_a_store_that_was_never_migrated_says_what_to_do(url):
    with pytest.raises(StoreNotMigratedError, match="otelwp-agent control migrate"):
        Store(url).open()


def test_an_older_store_must_be_migrated(store, url, monkeypatch):
    monkeypatch.setitem(revisions.NEEDS, "9999", "9.0.0")
    monkeypatch.setattr(revisions, "HEAD", "9999")
    with pytest.raises(
        StoreNotMigratedError, match=f"revision {list(revisions.NEEDS)[-2]}.*needs revision 9999.*migrate"
    ):
        Store(url).open()


def test_a_store_of_a_newer_version_names_the_version_that_is_needed(store, url):
    with store.write() as connection:
        connection.execute(update(STATE).values(needs="7.8.9"))
        connection.execute(update(REVISION).values(version_num="9999"))
    store.close()
    for attempt in (Store(url).open, Store(url).migrate):
        with pytest.raises(StoreVersionError, match=rf"needs otelwp-agent 7\.8\.9 or newer, and this is {__version__}"):
            attempt()


def test_the_first_pepper_is_recorded_and_another_one_is_refused(store):
    with store.write() as connection:
        assert recorded_pepper(connection) == ""
        bind_pepper(connection, "a" * 64, "pepper.txt")
        bind_pepper(connection, "a" * 64, "pepper.txt")
        assert recorded_pepper(connection) == "a" * 64
        with pytest.raises(PepperError, match=r"other\.txt is not the pepper .* restore the pepper"):
            bind_pepper(connection, "b" * 64, "other.txt")


def test_a_store_without_its_state_is_corrupt(store):
    with store.write() as connection:
        connection.execute(text("DELETE FROM store_state"))
        with pytest.raises(StoreCorruptError, match="restore it from a backup"):
            recorded_pepper(connection)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("", "is invalid: write `sqlite:///"),
        ("control.db", "is invalid: write `sqlite:///"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://host/path", "names no file"),
        ("mysql://user:hunter2@host/db", "cannot be in 'mysql'"),
    ],
)
def test_an_invalid_url_is_refused_without_its_password(url, wanted):
    with pytest.raises(StoreError, match=wanted) as caught:
        Store(url)
    assert "hunter2" not in str(caught.value)


def test_the_location_has_no_password():
    location = Store("postgresql://me:hunter2@db.example/control?sslpassword=hunter2").location
    assert location == "postgresql://me:***@db.example/control"


def test_a_server_that_does_not_answer_is_unreachable():
    store = Store("postgresql://me:hunter2@127.0.0.1:1/control", patience=0.1)
    with pytest.raises(StoreUnreachableError, match=r"check that it runs, and the host and port") as caught:
        store.open()
    assert "hunter2" not in str(caught.value)


def test_a_transaction_that_reads_cannot_write(store, actor):
    with pytest.raises(StoreReadOnlyError), store.read() as connection:
        tenants.create_tenant(connection, actor, "acme")
    assert names(store) == []


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "new" / "control.db"

    @pytest.fixture
    def store(self, path):
        store = Store(f"sqlite:///{path}", patience=0.1)
        store.migrate()
        yield store
        store.close()

    def test_files_are_private(self, store, path, actor):
        with store.write() as connection:
            tenants.create_tenant(connection, actor, "acme")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
        assert {"control.db", "control.db-wal", "control.db.lock"} <= set(modes)

    def test_every_connection_uses_the_log_and_foreign_keys(self, store):
        with store.read() as connection:
            for pragma, value in {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "wal_autocheckpoint": 0,
            }.items():
                assert connection.execute(text(f"PRAGMA {pragma}")).scalar_one() == value

    def test_a_missing_file_is_not_created(self, tmp_path):
        with pytest.raises(StoreNotMigratedError, match=r"there is no control store at .*migrate.*correct the path"):
            Store(f"sqlite:///{tmp_path}/none.db").open()
        assert list(tmp_path.iterdir()) == []

    def test_a_lock_of_another_process_is_reported_after_the_patience(self, store, path):
        with path.with_name("control.db.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreLockedError, match=r"another process has locked it for 0\.1 s"), store.write():
                pass
            assert names(store) == []  # reading needs no lock
        with store.write():
            pass

    def test_a_lock_of_another_program_is_reported_too(self, store, path):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLockedError, match="another process has locked it"), store.write():
            pass
        other.close()

    def test_a_read_only_file_can_be_read_but_not_written(self, store, path, actor):
        store.close()
        store.url = make_url(f"sqlite:///file:{path}?mode=ro&uri=true")  # root may write any file
        assert names(store) == []
        with (
            pytest.raises(StoreReadOnlyError, match="permission to write the file and its directory"),
            store.write() as connection,
        ):
            tenants.create_tenant(connection, actor, "acme")

    def test_a_directory_that_cannot_be_written(self, store, path, monkeypatch):
        def refuse(*arguments):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("otelwp_agent.storage.files.open_file", refuse)
        with pytest.raises(StoreReadOnlyError, match="permission to write the file and its directory"), store.write():
            pass
        assert names(store) == []
        with pytest.raises(StoreReadOnlyError, match="cannot create the control store"):
            Store(f"sqlite:///{path}").migrate()

    @pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
    def test_a_file_that_is_no_database(self, tmp_path, content):
        path = tmp_path / "wrong.db"
        path.write_bytes(content)
        for attempt in (Store(f"sqlite:///{path}").open, Store(f"sqlite:///{path}").migrate):
            with pytest.raises(StoreCorruptError, match="restore it from a backup"):
                attempt()
        assert path.read_bytes() == content

    def test_a_damaged_page_is_found_by_the_check(self, store, path, actor):
        with store.write() as connection:
            for number in range(300):
                tenants.create_tenant(connection, actor, f"tenant-{number:04}")
        store.close()
        data = bytearray(path.read_bytes())
        for page in range(4, len(data) // 4096):
            data[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
        path.write_bytes(data)
        with pytest.raises(StoreCorruptError, match="its file is damaged"):
            names(store)

    def test_the_database_of_another_application_is_left_alone(self, tmp_path):
        path = tmp_path / "other.db"
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (id INTEGER)")
        other.close()
        with pytest.raises(StoreCorruptError, match="tables of another application"):
            Store(f"sqlite:///{path}").migrate()
        with pytest.raises(StoreNotMigratedError, match="no tables"):
            Store(f"sqlite:///{path}").open()

    def test_a_file_that_was_replaced_is_opened_again(self, store, path, tmp_path, actor):
        backup = Store(f"sqlite:///{tmp_path}/backup.db")
        backup.migrate()
        with backup.write() as connection:
            tenants.create_tenant(connection, actor, "restored")
        backup.close()
        opened = store.opened
        assert names(store) == []
        path.unlink()
        with pytest.raises(StoreNotMigratedError, match="there is no control store"):
            names(store)
        for left in path.parent.glob("control.db-*"):
            left.unlink()
        (tmp_path / "backup.db").replace(path)
        assert names(store) == ["restored"]
        assert store.opened == opened + 1

    def test_the_log_is_copied_to_the_file_when_it_is_large(self, store, path, monkeypatch):
        monkeypatch.setattr("otelwp_agent.control.database.CHECKPOINT_BYTES", 100_000)
        log = path.with_name("control.db-wal")
        for _ in range(40):
            with store.write() as connection:
                connection.execute(update(STATE).values(pepper="x" * 64))
                connection.execute(insert(PLANS).values(_plan(connection)))
        assert log.stat().st_size < 300_000

    def test_an_error_in_a_statement_is_the_caller_s(self, store, actor):
        with pytest.raises(StoreError, match="the database reported an error"), store.write() as connection:
            connection.execute(text("SELECT nonsense FROM tenants"))
        assert names(store) == []


def _plan(connection):
    number = len(connection.execute(select(PLANS.c.name)).all())
    return {"name": f"plan{number}", "tier": "free", "limits": {"x": "y" * 3000}, "created": _now(), "changed": 1}


def _now():
    from datetime import UTC, datetime

    return datetime.now(UTC)
