import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control.errors import StoreLockedError
from otelwp_agent.control.fleet.versions import register_version
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import tenants
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.extensions.fleet import FACTORY, Config
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock, make_context
from tests.kit.fleet import NOW, beat, sent
from tests.kit.graphs import until

SETUP = Actor("test")


@pytest.fixture
async def store(tmp_path):
    config = CONTROL_STORE.config(url=f"sqlite:///{tmp_path}/control.db", create=True)
    store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
    await store.start()

    def fill(connection):
        for tenant in ("acme", "globex"):
            tenants.create_tenant(connection, SETUP, tenant)
        register_version(connection, SETUP, "woocommerce", "1.4.0")
        sent(connection, beat(), beat("globex"), beat("globex", cms="magento"))

    await store.store.write(fill)
    yield store
    await store.shutdown()


@pytest.fixture
def fleet(store):
    context = make_context(
        Kind.EXTENSION,
        "fleet",
        registry=Registry(),
        log=structlog.get_logger(),
        extensions={ComponentId("control_store"): store},
    )
    extension = FACTORY.build(Config(), context)
    extension.wall = FakeClock(NOW.timestamp())
    return extension


async def test_metrics_and_alerts_of_the_fleet(fleet, store):
    registry = fleet.context.registry
    with capture_logs() as logs:
        await fleet.check()
        await fleet.check()
    assert registry.value("plugin_installations_total", cms="woocommerce") == 2
    assert registry.value("plugin_installations_total", cms="magento") == 1
    assert registry.value("plugin_outdated_percentage") == 66.67
    assert [(each["event"], each["alert"]) for each in logs] == [("fleet alert", "PluginOutdatedHigh")]
    assert fleet.health().details == {"alerts": {"PluginOutdatedHigh": "66.67 % of plugins are outdated"}}
    beats = [beat(plugin_version="1.4.0"), beat("globex", plugin_version="1.4.0")]
    await store.store.write(lambda connection: sent(connection, *beats))
    with capture_logs() as logs:
        await fleet.check()
    assert [(each["event"], each["alert"]) for each in logs] == [("fleet alert ended", "PluginOutdatedHigh")]
    assert fleet.health().details == {"alerts": {}}


async def test_it_works_in_the_background(fleet):
    await fleet.start()
    registry = fleet.context.registry
    await until(lambda: registry.value("plugin_outdated_percentage") > 0)
    assert registry.value("otelwp_fleet_jobs", job="hourly") == 1
    await fleet.shutdown()


async def test_a_store_that_is_away(fleet, store, monkeypatch):
    async def write(function):
        raise StoreLockedError("locked")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(store.store, "write", write)
        await fleet.check()
    assert [(each["log_level"], each["event"]) for each in logs] == [("warning", "fleet not checked")]
    assert (fleet.health().healthy, fleet.health().message) == (False, "locked")
    assert fleet.context.registry.value("otelwp_fleet_failures") == 1
    await fleet.check()
    assert fleet.health().healthy
