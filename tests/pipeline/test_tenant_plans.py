"""What a tenant gets of a pipeline: the stages that the tier of its plan enables."""

from itertools import pairwise
from typing import ClassVar

import pytest

from otelwp_agent.component import Carries, ComponentConfig, Extension, Factory, Kind, Tier
from otelwp_agent.config.references import Capability
from otelwp_agent.errors import ForbiddenError, Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.tenant_plans import TierSwitch, admit_any, left_out, tenant_variants
from tests.kit import graphs
from tests.kit.graphs import Hand, HandConfig, Pass, Running, Sink, SinkConfig, plan, until
from tests.pipeline.test_intake import Agent

YAML = """
extensions: {plans: }
receivers: {hand: }
processors: {pass: , paid: , secret: }
exporters: {sink: , dear: , dear/2: }
service:
  extensions: [plans]
  pipelines:
    traces: {receivers: [hand], processors: [pass, paid, secret], exporters: [sink, dear, dear/2]}
"""


class Plans(Extension):
    """Gives tenants the tier that is their name."""

    tiers: ClassVar = {}

    async def start(self):
        self.remove = self.context.tenant_tiers.add(Plans.tiers.get)

    async def shutdown(self):
        self.remove()


@pytest.fixture(autouse=True)
def _paid(monkeypatch):
    Plans.tiers = {tier.value: tier for tier in Tier}
    pro, enterprise = {"tier": Tier.PRO}, {"tier": Tier.ENTERPRISE}
    factories = [
        Factory(
            Kind.EXTENSION,
            "plans",
            ComponentConfig,
            lambda _config, context: Plans(context),
            signals=frozenset(),
            tier=Tier.ENTERPRISE,
            capabilities=frozenset({Capability.CONTROL_STORE}),
        ),
        Factory(Kind.PROCESSOR, "paid", HandConfig, Pass, **pro),
        Factory(Kind.PROCESSOR, "secret", HandConfig, Pass, **enterprise),
        Factory(Kind.EXPORTER, "dear", SinkConfig, Sink, **pro),
        Factory(Kind.RECEIVER, "vip", HandConfig, Hand, **pro),
    ]
    for factory in factories:
        monkeypatch.setitem(graphs.FACTORIES, (factory.kind, factory.type), factory)


def a_batch(tenant, receiver="hand"):
    receipt = Receipt(2)
    body = b"\n\x06\x12\x04" + b"\x12\x00" * 2
    return Batch(Signal.TRACES, body, 2, Origin(receiver, "hand", tenant), ((receipt, 2),)), receipt


def send(running, tenant):
    batch, receipt = a_batch(tenant)
    running.hand.next[Signal.TRACES].consume(batch)
    return receipt


def hold(running, *names):
    """Let processors keep what they get; return the tenants of the batches that each has, later."""
    for name in names:
        getattr(running, name).held = []
    return lambda: {name: [batch.origin.tenant for batch in getattr(running, name).held] for name in names}


def bypassed(running, component, tenant):
    labels = {"pipeline": "traces", "component": component, "tenant": tenant}
    return running.registry.value("otelwp_tenant_bypassed_items", **labels)


async def test_each_tenant_gets_the_exporters_of_its_tier_and_each_item_is_settled_once():
    running = Running()
    await running.go(YAML)
    receipts = [send(running, tenant) for tenant in ("free", "pro", "enterprise", "stranger", "")]
    await until(lambda: not any(receipt.pending for receipt in receipts))
    assert all(receipt.count(Outcome.DELIVERED) == 2 for receipt in receipts)
    got = {name: [each.origin.tenant for each in getattr(running, name).batches] for name in ("sink", "dear", "dear_2")}
    assert sorted(got["sink"]) == ["", "enterprise", "free", "pro", "stranger"]
    assert sorted(got["dear"]) == sorted(got["dear_2"]) == ["", "enterprise", "pro", "stranger"]
    assert [bypassed(running, f"exporters/{name}", "free") for name in ("dear", "dear/2")] == [2, 2]
    assert running.registry.value("otelwp_tenant_bypassed_items", component="exporters/sink") == 0
    await running.stop()


async def test_processors_above_the_tier_are_bypassed_and_the_others_are_not():
    running = Running()
    await running.go(YAML)
    held = hold(running, "secret")
    for tenant in ("free", "pro", "enterprise"):
        send(running, tenant)
    assert held() == {"secret": ["enterprise"]}
    assert (bypassed(running, "processors/paid", "free"), bypassed(running, "processors/paid", "pro")) == (2, 0)
    assert (bypassed(running, "processors/secret", "free"), bypassed(running, "processors/secret", "pro")) == (2, 2)
    held_by_all = hold(running, "pass")
    send(running, "free")
    assert held_by_all() == {"pass": ["free"]}
    await running.stop()


async def test_a_changed_plan_counts_for_the_next_batch():
    running = Running()
    await running.go(YAML)
    held = hold(running, "paid")
    send(running, "free")
    Plans.tiers["free"] = Tier.PRO
    send(running, "free")
    assert held() == {"paid": ["free"]}
    await running.stop()


async def test_without_plans_there_are_no_switches():
    assert tenant_variants(plan(YAML.replace("[plans]", "[]").replace("{plans: }", "{}"))) == {}
    running = Running()
    await running.go(YAML.replace("[plans]", "[]").replace("{plans: }", "{}"))
    stages = [*running.graph.processors.values()]
    assert running.graph.heads["traces"].first is stages[0]
    assert all(before.next is after for before, after in pairwise(stages))
    await running.stop()


async def test_plans_appear_and_disappear_with_a_reload():
    running = Running()
    without = YAML.replace("[plans]", "[]").replace("{plans: }", "{}")
    await running.go(without)
    send(running, "free")
    await running.go(YAML)
    send(running, "free")
    await running.go(without)
    send(running, "free")
    await until(lambda: len(running.sink.batches) == 3)
    assert len(running.dear.batches) == 2
    await running.stop()


async def test_a_full_exporter_of_others_does_not_stop_a_tenant_that_does_not_use_it():
    running = Running()
    tight = "{sending_queue: {queue_size: 1, num_consumers: 1, isolate_after: null, max_tenant_share: 1}}"
    await running.go(YAML.replace("dear: ,", f"dear: {tight},"))
    running.dear.gate.clear()
    send(running, "pro")
    with pytest.raises(RetryableError, match="sending queue of dear is full"):
        send(running, "pro")
    running.hand.next[Signal.TRACES].admit()
    receipt = send(running, "free")
    await until(lambda: not receipt.pending)
    assert running.hand.next[Signal.TRACES].refusal(a_batch("free")[0]) is None
    assert running.hand.next[Signal.TRACES].refusal(a_batch("pro")[0]) is not None
    running.dear.gate.set()
    await running.stop()


async def test_a_receiver_above_the_tier_refuses_a_tenant():
    running = Running()
    await running.go(YAML.replace("receivers: {hand: }", "receivers: {vip: }").replace("[hand]", "[vip]"))
    entry = running.vip.next[Signal.TRACES]
    with pytest.raises(ForbiddenError, match=r"requests to `vip` need a plan of tier `pro`, .* has tier `free`"):
        entry.consume(a_batch("free", "vip")[0])
    assert running.registry.value("otelcol_receiver_refused_spans", receiver="vip", transport="hand") == 2
    batch, receipt = a_batch("pro", "vip")
    entry.consume(batch)
    await until(lambda: not receipt.pending)
    await running.stop()


@pytest.mark.parametrize("then", [Tier.FREE, Tier.ENTERPRISE])
async def test_the_journal_replays_to_what_the_plan_enables(tmp_path, then):
    first = Agent(tmp_path)
    await first.go(YAML)
    for name in ("sink", "dear", "dear_2"):
        getattr(first, name).gate.clear()
    assert [await first.send(number, tenant="free") for number in range(3)] == ["yes"] * 3
    await first.die()

    Plans.tiers["free"] = then
    second = Agent(tmp_path)
    await second.go(YAML)
    await until(lambda: second.journal.entries == 0)
    assert len(second.sink.batches) == 3
    assert len(second.dear.batches) == (0 if then is Tier.FREE else 3)
    assert second.sums() == (3, [3, 0, 0, 0], 0)
    await second.stop()


async def test_an_entry_that_waits_for_an_exporter_the_plan_no_longer_enables_is_settled(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(YAML.replace("dear: ,", "dear: {sending_queue: {queue_size: 1, num_consumers: 1}},"))
    agent.dear.gate.clear()
    for number in range(3):
        await agent.send(number, tenant="pro")
    await until(lambda: agent.journal.waiting)
    Plans.tiers["pro"] = Tier.FREE
    await until(lambda: not agent.journal.waiting)
    agent.dear.gate.set()
    await until(lambda: agent.journal.entries == 0)
    assert agent.sums() == (3, [3, 0, 0, 0], 0)
    await agent.stop()


def test_variants_keep_what_protects_data_and_a_destination(monkeypatch):
    class Encrypting(HandConfig):
        def encodes(self):
            return Carries.ENCODED

    secret = Factory(Kind.PROCESSOR, "secret", Encrypting, Pass, tier=Tier.ENTERPRISE)
    dear = Factory(Kind.EXPORTER, "dear", SinkConfig, Sink, tier=Tier.PRO, accepts=Carries.ENCODED)
    monkeypatch.setitem(graphs.FACTORIES, (Kind.PROCESSOR, "secret"), secret)
    monkeypatch.setitem(graphs.FACTORIES, (Kind.EXPORTER, "dear"), dear)
    variants = tenant_variants(plan(YAML.replace("[sink, dear, dear/2]", "[dear, dear/2]")))["traces"]
    assert [str(each) for each in variants[Tier.FREE].processors] == ["pass", "secret"]
    assert [str(each) for each in variants[Tier.FREE].exporters] == ["dear"]
    assert [str(each) for each in variants[Tier.ENTERPRISE].exporters] == ["dear", "dear/2"]


def test_what_is_left_out_is_listed_by_tier():
    found = left_out(plan(YAML.replace("receivers: {hand: }", "receivers: {vip: }").replace("[hand]", "[vip]")))
    assert {tier.value: [(each.component, each.effect) for each in listed] for tier, listed in found.items()} == {
        "free": [
            ("processors/paid", "bypassed"),
            ("processors/secret", "bypassed"),
            ("exporters/dear", "gets nothing"),
            ("exporters/dear/2", "gets nothing"),
            ("receivers/vip", "requests refused"),
        ],
        "pro": [("processors/secret", "bypassed")],
        "enterprise": [],
    }


def test_an_early_refusal_needs_all_ends_to_refuse():
    def full():
        raise Overloaded("full")

    admit_any([full, lambda: None])()
    with pytest.raises(Overloaded):
        admit_any([full, full])()


def test_a_batch_that_is_refused_is_not_counted():
    class Full:
        def consume(self, batch):
            raise Overloaded("full")

    running = Running()
    tiers = running.environment.tenant_tiers
    switch = TierSwitch(tiers, dict.fromkeys(Tier, Full()), "traces", dict.fromkeys(Tier, ("processors/paid",)))
    with pytest.raises(Overloaded):
        switch.consume(a_batch("free")[0])
    assert bypassed(running, "processors/paid", "free") == 0
