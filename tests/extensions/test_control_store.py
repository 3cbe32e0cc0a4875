import contextlib
import re
import sqlite3

import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control import refresh, tables
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.api_keys import Hasher
from otelwp_agent.control.directory import Directory, TenantEntry
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.control.snapshot_file import SnapshotFile
from otelwp_agent.control.store import Store
from otelwp_agent.errors import StartError
from otelwp_agent.extensions import control_store
from otelwp_agent.extensions.control_store import FACTORY, Config
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import make_context
from tests.kit.graphs import until

ACTOR = Actor("test")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/control.db"


@pytest.fixture
async def make(url):
    made = []

    def build(registry=None, clock=None, **settings):
        options = {"clock": clock} if clock else {}
        context = make_context(Kind.EXTENSION, "control_store", registry=registry, **options)
        config = Config.model_validate({"url": url, "refresh_interval": "20ms", **settings})
        made.append(FACTORY.build(config, context))
        return made[-1]

    yield build
    for extension in made:
        await extension.shutdown()
        await extension.shutdown()


async def test_it_offers_the_directory_and_the_store(make, url):
    registry = Registry()
    extension = make(registry, create=True)
    await extension.start()
    assert isinstance(extension, ControlAccess)
    await extension.store.write(lambda connection: tenants.create_tenant(connection, ACTOR, "acme"))
    hasher = extension.directory.hasher
    key, _ = await extension.store.write(lambda connection: keys.create_key(connection, ACTOR, hasher, "acme"))
    await until(lambda: extension.directory.current.key(key.id) is not None)
    assert registry.value("otelwp_control_store_tenants") == 1
    assert registry.value("otelwp_control_store_keys") == 1
    assert registry.value("otelwp_control_store_refresh_failures") == 0
    assert 0 <= registry.value("otelwp_control_store_age_seconds") < 60
    health = extension.health()
    assert (health.healthy, health.details["tenants"], health.details["keys"]) == (True, 1, 1)
    assert health.details["store"] == url.removeprefix("sqlite:///")


async def test_uses_of_keys_are_stored_in_the_background_and_at_the_end(make, monkeypatch, url):
    monkeypatch.setattr(control_store, "STORE_USES_EVERY", 0.01)
    extension = make(create=True)
    await extension.start()
    await extension.store.write(lambda connection: tenants.create_tenant(connection, ACTOR, "acme"))
    hasher = extension.directory.hasher
    first, second = [
        (await extension.store.write(lambda connection: keys.create_key(connection, ACTOR, hasher, "acme"))).key.id
        for _ in range(2)
    ]
    extension.used.note(first, 1_800_000_000.0)
    await until(lambda: not extension.used._waiting)
    stored = await extension.store.read(lambda connection: keys.get_key(connection, first))
    assert stored.last_used.timestamp() == 1_800_000_000.0
    monkeypatch.setattr(control_store, "STORE_USES_EVERY", 60.0)
    extension.used.note(second, 1_800_000_000.0)
    await extension.shutdown()
    store = Store(url)
    with store.read() as connection:
        assert keys.get_key(connection, second).last_used is not None
    store.close()


async def test_without_the_store_the_state_stays_and_health_says_why(make, tmp_path):
    now = [100.0]
    registry = Registry()
    extension = make(registry, clock=lambda: now[0], create=True)
    await extension.start()
    version = extension.directory.version
    (tmp_path / "control.db").rename(tmp_path / "away.db")
    await until(lambda: not extension.health().healthy)
    now[0] += 3600
    assert "there is no control store at" in extension.health().message
    assert extension.health().details["age"] >= 3600
    assert registry.value("otelwp_control_store_refresh_failures") >= 1
    assert extension.directory.version == version
    extension.used.note("a" * 16, 1_800_000_000.0)
    await extension._store_uses()
    assert extension.used._waiting
    (tmp_path / "away.db").rename(tmp_path / "control.db")
    await until(lambda: extension.health().healthy)


@pytest.mark.parametrize(
    ("prepare", "wanted"),
    [
        (lambda path: None, "there is no control store at .*control migrate"),
        (lambda path: path.write_bytes(b"nonsense" * 999), "not an SQLite database"),
        (lambda path: Store(f"sqlite:///{path}").migrate(), "there is no pepper in .* yet: create it with"),
    ],
    ids=["missing", "corrupt", "without a pepper"],
)
async def test_a_store_that_cannot_be_used_fails_the_start(make, tmp_path, prepare, wanted):
    prepare(tmp_path / "control.db")
    extension = make()
    with pytest.raises(StartError, match=rf"extensions/control_store: .*{wanted}"):
        await extension.start()
    assert extension.health() is None
    for attempt in ("directory", "store"):
        with pytest.raises(StartError, match="the control store is not open"):
            getattr(extension, attempt)


async def test_a_server_that_does_not_answer_fails_the_start(make):
    extension = make(url="postgresql://me:hunter2@127.0.0.1:1/control")
    with pytest.raises(StartError, match="check that it runs") as caught:
        await extension.start()
    assert "hunter2" not in str(caught.value)


async def test_without_the_packages_the_extra_is_named(make, monkeypatch):
    async def fail():
        raise ModuleNotFoundError(name="sqlalchemy")

    extension = make()
    monkeypatch.setattr(extension, "_open", fail)
    with pytest.raises(StartError, match=r"sqlalchemy is not installed: .*pip install 'otelwp-agent\[control\]'"):
        await extension.start()


async def stopped_with_a_snapshot(make, url):
    """Run an agent's extension with a tenant and a key once; return the text of the key."""
    extension = make(create=True, snapshot_file="/".join([*url.removeprefix("sqlite:///").split("/")[:-1], "snapshot"]))
    await extension.start()
    hasher = extension.directory.hasher
    await extension.store.write(lambda connection: tenants.create_tenant(connection, ACTOR, "acme"))
    key, text = await extension.store.write(lambda connection: keys.create_key(connection, ACTOR, hasher, "acme"))
    await until(lambda: extension.directory.current.key(key.id) is not None)
    await extension.shutdown()
    return text


@contextlib.contextmanager
def locked(path):
    """Lock a database in SQLite for readers too, as another process would."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.rollback()
    other.execute("PRAGMA locking_mode = NORMAL")
    other.execute("PRAGMA journal_mode = WAL")
    other.close()


@contextlib.contextmanager
def missing(path):
    path.rename(f"{path}.away")
    yield
    path.with_name(f"{path.name}.away").rename(path)


@contextlib.contextmanager
def corrupt(path):
    good = path.read_bytes()
    path.write_bytes(b"nonsense" * 1000)
    yield
    path.write_bytes(good)


@pytest.mark.parametrize(
    ("away", "reason"),
    [(missing, "there is no control store at"), (locked, "has locked it"), (corrupt, "not an SQLite database")],
)
async def test_an_agent_starts_with_the_snapshot_while_the_store_is_away(make, url, tmp_path, away, reason):
    text = await stopped_with_a_snapshot(make, url)
    registry = Registry()
    extension = make(registry, snapshot_file=str(tmp_path / "snapshot"))
    with away(tmp_path / "control.db"):
        await extension.start()
        assert extension.directory.check(text, 0.0).entry.tenant.id == "acme"
        health = extension.health()
        assert not health.healthy
        assert re.fullmatch(rf"the snapshot in use was compared with the store \d+ s ago: .*{reason}.*", health.message)
        assert health.details["snapshot"] == {"file": str(tmp_path / "snapshot"), "in_use": True, "error": ""}
        assert 0 <= registry.value("otelwp_control_store_age_seconds") < 60
        assert registry.value("otelwp_control_store_snapshot_failures") == 0
    await until(lambda: extension.health().healthy)
    assert extension.health().details["snapshot"]["in_use"] is False
    assert extension.directory.check(text, 0.0).entry.tenant.id == "acme"
    key_id = extension.directory.check(text, 0.0).id
    await extension.store.write(lambda connection: keys.revoke_key(connection, ACTOR, key_id))
    await until(lambda: extension.directory.check(text, 0.0).refusal == "unknown")


async def test_a_store_with_another_pepper_is_refused_when_it_returns(make, url, tmp_path, monkeypatch):
    monkeypatch.setattr(refresh, "RETRY", 0.02)
    text = await stopped_with_a_snapshot(make, url)
    with missing(tmp_path / "control.db"):
        extension = make(snapshot_file=str(tmp_path / "snapshot"))
        await extension.start()
    store = Store(url)
    with store.write() as connection:
        connection.execute(tables.STATE.update().values(pepper="that of another store"))
    store.close()
    await until(lambda: "is not the pepper" in extension.health().message)
    assert extension.directory.check(text, 0.0).entry.tenant.id == "acme"


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda folder: (folder / "snapshot").unlink(), "there is no control store .*; there is no snapshot .* yet"),
        (lambda folder: (folder / "snapshot").write_bytes(b"?"), "there is no control store .*; .* is not a snapshot"),
        (lambda folder: (folder / "control.db.pepper").write_text("ab" * 32), "written with another pepper: remove it"),
        (lambda folder: (folder / "control.db.pepper").unlink(), "there is no pepper in .*: restore it from a backup"),
    ],
    ids=["no file", "damaged", "another pepper", "no pepper"],
)
async def test_a_snapshot_that_cannot_be_used_fails_the_start(make, url, tmp_path, spoil, wanted):
    await stopped_with_a_snapshot(make, url)
    spoil(tmp_path)
    extension = make(snapshot_file=str(tmp_path / "snapshot"))
    with missing(tmp_path / "control.db"), pytest.raises(StartError, match=wanted):
        await extension.start()


async def test_the_snapshot_is_not_used_for_a_store_that_somebody_must_upgrade(make, url, tmp_path):
    await stopped_with_a_snapshot(make, url)
    store = Store(url)
    with store.write() as connection:
        connection.execute(tables.REVISION.update().values(version_num="9999"))
    store.close()
    with pytest.raises(StartError, match="written by a newer version"):
        await make(snapshot_file=str(tmp_path / "snapshot")).start()


async def test_a_server_that_does_not_answer_at_the_start_is_replaced_by_the_snapshot(make, tmp_path, monkeypatch):
    pepper = "ab" * 32
    monkeypatch.setenv("OTELWP_CONTROL_PEPPER", pepper)
    url = "postgresql://me:hunter2@127.0.0.1:1/control"
    file = SnapshotFile(tmp_path / "snapshot", Store(url).location, Hasher(bytes.fromhex(pepper)))
    file.save(Directory(3, {}, [TenantEntry("acme", "free", active=True)], {"acme": 0}, {}))
    extension = make(url=url, snapshot_file=str(tmp_path / "snapshot"))
    await extension.start()
    assert extension.directory.current.tenant("acme").active
    assert "hunter2" not in str(extension.health())


@pytest.mark.interop
async def test_an_agent_starts_with_the_snapshot_while_postgresql_is_stopped(make, tmp_path, monkeypatch):
    from tests.interop.postgresql import Postgresql

    monkeypatch.setenv("OTELWP_CONTROL_PEPPER", "ab" * 32)
    monkeypatch.setattr(refresh, "RETRY", 0.02)
    server = Postgresql()
    try:
        with server:
            url = server.database()
            settings = {"url": url, "create": True, "snapshot_file": str(tmp_path / "snapshot")}
            first = make(**settings)
            await first.start()
            await first.store.write(lambda connection: tenants.create_tenant(connection, ACTOR, "acme"))
            await until(lambda: first.directory.current.tenant("acme") is not None)
            await first.shutdown()
            server.stop()
            second = make(**settings)
            await second.start()
            assert second.directory.current.tenant("acme").active
            assert not second.health().healthy
            server.__enter__()
            await until(lambda: second.health().healthy)
            await second.store.write(lambda connection: tenants.create_tenant(connection, ACTOR, "other"))
            await until(lambda: second.directory.current.tenant("other") is not None)
            await second.shutdown()
    finally:
        server.remove()


def test_settings():
    assert Config().store_url == "sqlite:////var/lib/otelwp/control.db"
    assert "hunter2" not in repr(Config.model_validate({"url": "postgresql://me:hunter2@db/control"}))
    with pytest.raises(ValidationError, match="not the URL of a control store") as caught:
        Config.model_validate({"url": "mysql://me:hunter2@db/control"})
    assert "hunter2" not in str(caught.value.errors(include_input=False, include_context=False))
    assert FACTORY.type == ComponentId.parse("control_store").type


def test_a_sidecar_does_not_import_the_packages_of_the_store():
    import subprocess
    import sys

    code = (
        "import sys; from otelwp_agent.extensions import api_key, control_store; import otelwp_agent.cli.run; "
        "print(sorted({'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
