"""The tier of a running agent changes: what it runs changes with it, and no item is lost."""

import asyncio
import re

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.errors import StartError
from otelwp_agent.licensing.manager import LicenseManager
from otelwp_agent.licensing.online import RefreshError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.control_plane import ControlPlane
from otelwp_agent.service.service import Service
from otelwp_agent.service.tiers import RETRY_AFTER
from otelwp_agent.telemetry import logging
from otelwp_agent.testing import run
from tests.kit.graphs import Sink, plan, until
from tests.licensing.issuer import DAY, ISSUER, START

HOUR = 3600.0

SHOP = """
receivers: {hand: }
processors:
  attributes: {actions: [{key: shop, value: 1, action: upsert}]}
  probabilistic_sampler: {sampling_percentage: 50}
  batch: {send_batch_size: 1000, timeout: 10m}
exporters:
  sink: {retry_on_failure: {max_elapsed_time: 0}}
  sink/extra: {retry_on_failure: {max_elapsed_time: 0, max_interval: 1m}}
service:
  LICENSE
  pipelines:
    traces:
      receivers: [hand]
      processors: [attributes, probabilistic_sampler, batch]
      exporters: [sink, sink/extra]
  telemetry: {metrics: {address: none}}
"""
EVERYTHING = ["attributes", "probabilistic_sampler", "batch"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """No freeze of the garbage collector, and no watchdog: it would beat twice in each simulated second."""
    for name in ("memory.release", "memory.tune", "service.Watchdog.start"):
        monkeypatch.setattr(f"otelwp_agent.service.{name}", lambda *_: None)
    yield
    logging.configure()


class LicenseServer:
    """Answers as the licence server does, with a lease of two days; or not at all."""

    def __init__(self, wall, tier="pro"):
        self.wall, self.tier, self.reachable, self.revoked = wall, tier, True, None

    async def ask(self, text, nonce):
        if not self.reachable:
            raise RefreshError("unreachable", "no route to the licence server")
        now = int(self.wall())
        return ISSUER.issue(iat=now, lease=now + 2 * int(DAY), tier=self.tier, nonce=nonce, revoked=self.revoked)


class Shop:
    """An agent on simulated time, its licence server, and every request that it has received."""

    def __init__(self, yaml=SHOP, tier="pro"):
        loop = asyncio.get_running_loop()
        self.wall = lambda: START + loop.time()
        self.server = LicenseServer(self.wall, tier)
        licence = f"license: {{key: {ISSUER.issue(lease=int(START + 2 * DAY), tier=tier)}, "
        licence += f"url: 'https://license.example', public_keys: ['{ISSUER.public}']}}"
        self.yaml = yaml.replace("LICENSE", licence)
        self.service = Service(lambda: plan(self.yaml), clock=loop.time, license_=self.manager)
        self.receipts = []
        self.refused = 0

    def manager(self, registry):
        time = asyncio.get_running_loop().time
        log = logging.get().bind(component="license")
        return LicenseManager(
            registry, log, required=False, wall=self.wall, monotonic=time, random=lambda: 0.5, ask=self.server.ask
        )

    def part(self, name, kind="exporters"):
        return next(part for identifier, part in getattr(self.service.graph, kind).items() if str(identifier) == name)

    @property
    def stages(self):
        return [str(identifier) for _, identifier in self.service.graph.processors]

    @property
    def exporters(self):
        return [str(each) for each in self.service.graph.plan.pipelines["traces"].exporters]

    @property
    def percentage(self):
        components = self.service.graph.plan.components.items()
        return next(
            one.config.sampling_percentage for (_, identifier), one in components if "sampler" in str(identifier)
        )

    @property
    def basis(self):
        return self.service.license.current.basis.value

    def receive(self):
        """Send the spans of one trace to the agent."""
        body = Sample(spans_per_trace=4, seed=len(self.receipts)).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
        receipt = Receipt(4)
        hand = self.part("hand", "receivers")
        hand.next[Signal.TRACES].consume(Batch(Signal.TRACES, body, 4, Origin("hand"), ((receipt, 4),)))
        self.receipts.append(receipt)
        return receipt

    async def flow(self, seconds, every=HOUR):
        """Send a trace now and then for a simulated time; check the ledger each time."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            self.receive()
            self.check_ledger()
            await asyncio.sleep(every)

    async def permit(self, tier):
        """Give the agent another licence, and wait until it runs what that permits."""
        settings = LicenseConfig(key=ISSUER.issue(tier=tier), public_keys=[ISSUER.public])
        await self.service.license.start(settings, None)
        stages = EVERYTHING if tier == "pro" else EVERYTHING[:2]
        while self.stages != stages:
            await asyncio.sleep(0.1)

    def check_ledger(self):
        """Every item that was accepted is settled or held by a receipt, and none is dropped."""
        ledger = self.service.graph.heads["traces"].total
        in_flight = sum(receipt.pending for receipt in self.receipts)
        assert ledger.accepted == 4 * len(self.receipts) == sum(ledger.settled) + in_flight
        assert ledger.settled[Outcome.DROPPED] == 0
        return ledger

    def value(self, name, **labels):
        return self.service.registry.value(name, **labels)

    async def stop(self):
        """Stop the agent, and check that every item was settled."""
        await self.service.stop()
        assert sum(receipt.pending for receipt in self.receipts) == 0
        return self.check_ledger()


def test_a_licence_lives_lapses_and_returns_while_telemetry_flows(capsys):  # noqa: PLR0915 - one life
    async def life():
        shop = Shop()
        await shop.service.start()
        sink, extra = shop.part("sink"), shop.part("sink/extra")
        assert (shop.basis, shop.stages, shop.exporters) == ("license", EVERYTHING, ["sink", "sink/extra"])
        await shop.flow(3 * DAY)
        assert (shop.basis, shop.stages) == ("license", EVERYTHING), "the lease of two days has been renewed"

        shop.server.reachable = False
        await shop.flow(4 * DAY)
        assert (shop.basis, shop.stages, shop.exporters) == ("grace", EVERYTHING, ["sink", "sink/extra"])
        assert shop.part("sink/extra") is extra

        # When the grace period ends, one exporter has a queue, and `batch` holds spans.
        await shop.flow(shop.service.license.current.until - shop.wall() - 2 * HOUR)
        extra.gate.clear()
        while shop.basis == "grace":
            shop.receive()
            shop.check_ledger()
            await asyncio.sleep(60)
        assert shop.basis == "lapsed"
        await asyncio.sleep(1)
        assert shop.stages == EVERYTHING[:2]
        assert (shop.percentage, shop.exporters) == (10.0, ["sink"])
        assert shop.part("sink") is sink
        assert shop.part("sink/extra") is extra, "its queue is not empty"
        assert shop.value("otelwp_tier_emptying_exporters") == 1
        queued = shop.check_ledger().in_flight
        assert queued > 100
        delivered = len(extra.batches)
        await shop.flow(HOUR, every=60)
        assert len(extra.batches) == delivered
        assert shop.check_ledger().in_flight == queued, "what came since has left, what was queued waits"
        assert shop.part("sink/extra") is extra

        extra.gate.set()
        await shop.flow(10 * 60, every=60)
        assert shop.check_ledger().in_flight == 0
        assert sum(batch.items for batch in extra.batches[delivered:]) >= queued
        assert (extra.life, [str(each) for each in shop.service.graph.exporters]) == (["start", "shutdown"], ["sink"])
        assert shop.value("otelwp_tier_emptying_exporters") == 0
        await shop.flow(2 * DAY)
        assert shop.basis == "lapsed"

        shop.server.reachable = True
        await shop.flow(DAY)
        assert (shop.basis, shop.stages, shop.percentage) == ("license", EVERYTHING, 50.0)
        assert shop.exporters == ["sink", "sink/extra"]
        assert shop.part("sink") is sink
        assert shop.part("sink/extra").batches
        await shop.flow(DAY)
        actions = ("bypassed", "stopped", "limited", "kept", "emptied", "restored")
        assert [shop.value("otelwp_tier_steps", action=action) for action in actions] == [1, 1, 1, 0, 1, 3]
        ledger = await shop.stop()
        assert ledger.settled[Outcome.DELIVERED] > ledger.accepted / 10
        assert sum(batch.items for batch in sink.batches) == ledger.settled[Outcome.DELIVERED]

    run(life())
    steps = re.findall(r"(WARN|INFO)  (component|processor|setting) (\w+) .*component=(\S+)", capsys.readouterr().err)
    assert steps == [
        ("WARN", "component", "stopped", "exporters/sink/extra"),
        ("WARN", "processor", "bypassed", "processors/batch"),
        ("WARN", "setting", "limited", "processors/probabilistic_sampler"),
        ("INFO", "component", "restored", "exporters/sink/extra"),
        ("INFO", "component", "restored", "processors/batch"),
        ("INFO", "component", "restored", "processors/probabilistic_sampler"),
    ]


def test_an_exporter_that_still_has_a_queue_when_the_licence_returns_continues_with_it():
    async def life():
        shop = Shop()
        await shop.service.start()
        extra = shop.part("sink/extra")
        extra.gate.clear()
        await shop.flow(20 * 60, every=60)
        await shop.permit("free")
        assert (shop.exporters, shop.part("sink/extra")) == (["sink"], extra)
        queued = shop.check_ledger().in_flight
        await shop.flow(5 * 60, every=60)
        await shop.permit("pro")
        assert (shop.exporters, shop.part("sink/extra"), extra.life) == (["sink", "sink/extra"], extra, ["start"])
        assert shop.check_ledger().in_flight == queued > 0
        extra.gate.set()
        await shop.stop()

    run(life())


def test_a_change_that_cannot_be_applied_is_tried_again(monkeypatch, capsys):
    async def life():
        shop = Shop()
        await shop.service.start()
        await shop.permit("free")
        await shop.flow(60, every=1)
        assert "sink/extra" not in map(str, shop.service.graph.exporters)
        start, failures = Sink.start, iter(range(3))

        async def fail(sink):
            if next(failures, None) is not None:
                raise StartError("exporters/sink/extra: the port is in use")
            await start(sink)

        monkeypatch.setattr(Sink, "start", fail)
        before = asyncio.get_running_loop().time()
        await shop.permit("pro")
        assert asyncio.get_running_loop().time() - before == pytest.approx(3 * RETRY_AFTER, abs=1)
        await shop.stop()

    run(life())
    assert capsys.readouterr().err.count("tier not applied; the components of the old one still run") == 3


def test_a_bug_while_a_change_is_applied_does_not_end_the_changes(monkeypatch, capsys):
    async def life():
        shop = Shop()
        await shop.service.start()
        listen, failures = ControlPlane.listen, iter(range(1))

        async def fail(plane, settings):
            if next(failures, None) is not None:
                raise RuntimeError("a bug")
            await listen(plane, settings)

        monkeypatch.setattr(ControlPlane, "listen", fail)
        await shop.permit("free")
        assert shop.exporters == ["sink"]
        await shop.stop()

    run(life())
    assert "RuntimeError: a bug" in capsys.readouterr().err


def test_a_stop_does_not_wait_for_ever_for_an_exporter_that_the_tier_has_stopped():
    async def life():
        shop = Shop()
        await shop.service.start()
        shop.part("sink/extra").gate.clear()
        await shop.flow(20 * 60, every=60)
        await shop.permit("free")
        queued = shop.check_ledger().in_flight
        assert queued
        before = asyncio.get_running_loop().time()
        await shop.service.stop()
        assert asyncio.get_running_loop().time() - before <= 31
        ledger = shop.service.graph.heads["traces"].total
        assert (ledger.in_flight, ledger.dropped_reasons) == (0, {"shutdown": queued})

    run(life())


def test_a_reload_keeps_what_the_licence_permits_and_takes_what_the_file_changes():
    async def life():
        shop = Shop(tier="free")
        await shop.service.start()
        assert (shop.stages, shop.exporters) == (["attributes", "probabilistic_sampler"], ["sink"])
        shop.yaml = shop.yaml.replace("sink/extra]", "sink/extra]\n    logs: {receivers: [hand], exporters: [sink]}")
        assert await shop.service.reload()
        assert list(shop.service.graph.heads) == ["traces", "logs"]
        assert (shop.stages, shop.exporters) == (["attributes", "probabilistic_sampler"], ["sink"])
        shop.yaml = shop.yaml.replace("[sink, sink/extra]", "[sink, sink/other]")
        assert not await shop.service.reload()
        shop.server.tier = "pro"
        await shop.flow(DAY)
        assert (shop.stages, shop.exporters) == (EVERYTHING, ["sink", "sink/extra"])
        await shop.stop()

    run(life())


def agent(yaml, *, required=False):
    def manager(registry):
        return LicenseManager(registry, logging.get(), required=required)

    return Service(lambda: plan(yaml), license_=manager)


@pytest.mark.parametrize(
    ("stated", "required", "basis", "stages"),
    [
        ("", False, "evaluation", EVERYTHING),
        ("tier: pro", False, "configured", EVERYTHING),
        ("", True, "required", ["attributes", "probabilistic_sampler"]),
        ("tier: pro", True, "required", ["attributes", "probabilistic_sampler"]),
        ("license: {key: not.a.licence}", False, "lapsed", ["attributes", "probabilistic_sampler"]),
        ("license: {key: not.a.licence}\n  tier: pro", False, "lapsed", ["attributes", "probabilistic_sampler"]),
    ],
)
async def test_an_agent_starts_with_what_it_may_use(stated, required, basis, stages, capsys):
    service = agent(SHOP.replace("LICENSE", stated), required=required)
    await service.start()
    assert [str(identifier) for _, identifier in service.graph.processors] == stages
    (state,) = [state for state in service.components() if state.id == "license"]
    assert state.details["basis"] == basis
    assert ("processors/batch bypassed" in state.details.get("changes", ())) == ("batch" not in stages)
    assert f"basis={basis}" in capsys.readouterr().err
    await service.stop()


async def test_what_a_journal_keeps_survives_a_change_of_the_tier(tmp_path):
    """The batches of a bypassed processor and of a stopped exporter are delivered, each item once for each exporter."""
    yaml = SHOP.replace("LICENSE", f"journal: {{directory: {tmp_path}/journal}}").replace(
        "percentage: 50", "percentage: 100"
    )
    service = agent(yaml.replace("timeout: 10m", "timeout: 50ms"))
    await service.start()
    sink, extra = service.graph.exporters.values()
    extra.gate.clear()
    hand = next(iter(service.graph.receivers.values()))
    body = Sample(spans_per_trace=4).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)

    async def receive(requests):
        for _ in range(requests):
            await hand.next[Signal.TRACES].consume(Batch(Signal.TRACES, body, 4, Origin("hand"), ()), "ok")

    await receive(20)
    await until(lambda: sum(batch.items for batch in sink.batches) == 80)
    licence = LicenseConfig(key=ISSUER.issue(tier="free"), public_keys=[ISSUER.public])
    await service.license.start(licence, None)
    await until(lambda: len(service.graph.plan.pipelines["traces"].exporters) == 1)
    assert extra in service.graph.exporters.values()
    extra.gate.set()
    await until(lambda: sum(batch.items for batch in extra.batches) == 80)
    await until(lambda: extra not in service.graph.exporters.values())
    await receive(5)
    await service.stop()
    ledger = service.graph.heads["traces"].total
    assert (ledger.accepted, ledger.in_flight, ledger.settled[Outcome.DROPPED]) == (100, 0, 0)
    assert sum(batch.items for batch in extra.batches) == 80
