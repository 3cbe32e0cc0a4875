import asyncio
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.admin.mounting import AdminRoutes
from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.errors import StartError
from otelwp_agent.extensions.delivery_statements import FACTORY, Config
from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text
from otelwp_agent.model.deliveries import Deliveries
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.statements.chain import verify_chains
from otelwp_agent.statements.store import StatementStore, StatementStoreError
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import make_context
from tests.kit.graphs import until

T0 = 7200.0


class Routes(AdminRoutes):
    """An admin API that remembers what is mounted."""

    def __init__(self):
        self.mounted = {}

    def mount(self, owner, operations):
        self.mounted[owner] = operations

    def unmount(self, owner):
        self.mounted.pop(owner, None)


class Runs:
    """Runs of an agent with one file of statements, at a time that the test sets."""

    def __init__(self, folder):
        self.key = generate_key()
        self.folder = folder
        self.now = T0
        self.registry = Registry()
        self.routes = Routes()
        self.ledgers, self.deliveries = Ledgers(), Deliveries()
        self.extensions = []
        (folder / "key.pem").write_bytes(private_pem(self.key))

    def build(self, **settings):
        context = make_context(
            Kind.EXTENSION,
            "delivery_statements",
            registry=self.registry,
            log=structlog.get_logger(),
            extensions={ComponentId("admin_api"): self.routes},
        )
        context = replace(context, ledgers=self.ledgers, deliveries=self.deliveries)
        values = {
            "file": str(self.folder / "statements.db"),
            "key_file": str(self.folder / "key.pem"),
            "agent": "edge",
            "checkpoint_interval": "10ms",
            **settings,
        }
        extension = FACTORY.build(Config.model_validate(values), context)
        extension.wall = lambda: self.now
        self.extensions.append(extension)
        return extension

    def use(self, accepted, delivered, tenant="shop"):
        ledger = self.ledgers.get("traces", "otlp", tenant)
        ledger.accepted += accepted
        ledger.settle(Outcome.DELIVERED, delivered, "")
        self.deliveries.add("otlp_http", tenant, delivered, 0)

    def report(self, **options):
        """Verify the statements in the file, which no agent uses."""
        store = StatementStore(self.folder / "statements.db")
        store.open()
        texts = [(f"statement {each.sequence}", each.text) for each in store.statements("shop", 0, 100)]
        store.close()
        text = public_text(self.key)
        return verify_chains(texts, {key_id(text): text}, **options)


@pytest.fixture
async def runs(tmp_path):
    runs = Runs(tmp_path)
    yield runs
    for extension in runs.extensions:
        await extension.shutdown()


async def test_each_hour_gets_a_statement_and_a_stop_loses_nothing(runs):
    extension = runs.build()
    await extension.start()
    runs.use(10, 8)
    runs.now = T0 + 3600
    await until(lambda: runs.registry.value("otelwp_delivery_statements") == 1)
    runs.use(5, 5)
    await extension.shutdown()
    assert extension.health() is None
    again = runs.build()
    await again.start()
    runs.now = T0 + 7200
    await until(lambda: runs.registry.value("otelwp_delivery_statements") == 1)
    await until(lambda: again._recorder._unsaved == [])
    health = again.health()
    assert (health.healthy, health.details) == (True, {"tenants": 1, "statements": 1})
    assert runs.registry.value("otelwp_delivery_statements_tenants") == 1
    await again.shutdown()
    report = runs.report(last=2, until=T0 + 7200)
    assert report.problems == []
    first, second = [each.statement for each in report.chains[0].statements]
    assert (first.pipelines["traces"].accepted, first.exporters["otlp_http"].delivered) == (10, 8)
    assert (second.pipelines["traces"].opening, second.pipelines["traces"].closing) == (2, 2)
    assert second.exporters["otlp_http"].delivered == 5
    assert [*first.interruptions, *second.interruptions] == []


async def test_a_checkpoint_that_fails_is_reported_and_made_up_for(runs, monkeypatch):
    extension = runs.build()
    await extension.start()
    failing = True
    save = StatementStore.save

    def maybe(store, *arguments, **options):
        if failing:
            raise StatementStoreError("cannot use it: the disk is full")
        save(store, *arguments, **options)

    monkeypatch.setattr(StatementStore, "save", maybe)
    with capture_logs() as log:
        runs.use(10, 10)
        runs.now = T0 + 3600
        await until(lambda: runs.registry.value("otelwp_delivery_statements_failures") > 2)
        assert (extension.health().healthy, extension.health().message) == (False, "cannot use it: the disk is full")
        failing = False
        await until(lambda: extension.health().healthy)
    assert [line["event"] for line in log].count("statements of delivery not saved; the next try contains them") == 1
    await extension.shutdown()
    assert runs.report(last=1).problems == []


async def test_the_admin_api_serves_them_while_it_runs(runs):
    extension = runs.build(admin="admin_api")
    await extension.start()
    (operation,) = runs.routes.mounted["delivery_statements"]
    assert operation.path == "/api/v1/tenants/{tenant}/statements"
    await extension.shutdown()
    assert runs.routes.mounted == {}


async def test_a_second_agent_with_the_file_is_refused(runs):
    await runs.build().start()
    await asyncio.sleep(0)
    with pytest.raises(StartError, match=r"extensions/delivery_statements: .* is in use by another agent"):
        await runs.build().start()


@pytest.mark.parametrize("setting", ["key_file", "file"])
async def test_what_cannot_be_used_refuses_the_start(runs, setting):
    path = runs.folder / "directory"
    path.mkdir()
    with pytest.raises(StartError, match=r"extensions/delivery_statements: cannot "):
        await runs.build(**{setting: str(path)}).start()


def test_the_agent_has_the_name_of_the_host_by_default(runs, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "the-host")
    assert runs.build(agent="")._agent == "the-host"
