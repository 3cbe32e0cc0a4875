import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, tenants
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
