"""The batch processor, adaptive sampling and the entry of a pipeline, with a tenant that uses as much as it can."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
import structlog

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError, refusal_for
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import PipelineHead, ReceiverEntry
from otelwp_agent.processors import batch as batch_module
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import FakeClock, run
from otelwp_agent.transport.status import GrpcCode, grpc_code, http_status
from tests.kit.stages import batch_of, build
from tests.processors.test_adaptive_sampling import batch_of as traces_of
from tests.processors.test_adaptive_sampling import span, trace_id


def of(tenant: str, size: int = 100, **headers: str) -> Batch:
    return batch_of(b"x" * size, 1, origin=Origin("otlp", "http", tenant, headers))


class NextStage:
    """A next stage that refuses some tenants because of their own share, or everything."""

    def __init__(self) -> None:
        self.full_for: set[str] = set()
        self.full = False
        self.taken: list[str] = []
        self.space = Capacity("exporters/x", time.monotonic)

    def refusal(self, batch: Batch) -> Overloaded | None:
        tenant = batch.origin.tenant
        if tenant in self.full_for:
            capacity = Capacity("exporters/x", time.monotonic, share=tenant, cause=self.space)
            return Overloaded("share", capacity=capacity, tenant=tenant)
        return Overloaded("full", capacity=self.space) if self.full else None

    def consume(self, batch: Batch) -> None:
        refusal = self.refusal(batch)
        if refusal is not None:
            raise refusal
        self.taken.append(batch.origin.tenant)


def batcher(**settings):
    stage, _ = build("batch", {"send_batch_bytes": 1000, **settings})
    stage.next = NextStage()
    return stage, stage.next


def fill(stage, tenant: str, size: int = 100) -> Overloaded:
    """Send batches of a tenant until it is refused; return the refusal."""
    for _ in range(1000):
        try:
            stage.consume(of(tenant, size))
        except Overloaded as refusal:
            return refusal
    raise AssertionError("nothing stops it")


class TestBatch:
    def test_tenants_that_the_next_stage_refuses_leave_memory_for_others(self):
        async def scenario():
            stage, backend = batcher()
            backend.full_for = {f"loud{number}" for number in range(4)}
            for name in backend.full_for:
                assert fill(stage, name).tenant == name
            assert stage._held <= 4000
            stage.admit()
            for _ in range(30):
                stage.consume(of("quiet", 500))
            await asyncio.sleep(1)
            assert backend.taken.count("quiet") >= 10
            stage._drop_everything()
            assert stage._held == 0
            assert len(stage._shares._bytes) == len(stage._shares._groups) == 0

        run(scenario())

    def test_a_refusal_names_the_tenant_only_if_it_is_the_cause(self):
        async def scenario():
            stage, backend = batcher()
            backend.full_for = {"a"}
            assert fill(stage, "a").tenant == "a"
            backend.full = True
            assert fill(stage, "b").tenant == ""
            assert fill(stage, "").tenant == ""
            stage._drop_everything()

        run(scenario())

    def test_a_tenant_alone_holds_what_it_held_without_shares(self):
        async def scenario():
            numbers = []
            for share, tenant in ((0.5, "a"), (1, "a"), (0.5, "")):
                stage, backend = batcher(max_tenant_share=share)
                backend.full = True
                fill(stage, tenant)
                numbers.append(stage._held)
                stage._drop_everything()
            assert numbers == [2000] * 3

        run(scenario())

    def test_combinations_of_metadata_are_shared(self):
        async def scenario():
            stage, _ = batcher(metadata_keys=["k"], metadata_cardinality_limit=10)
            for number in range(5):
                stage.consume(of("a", k=str(number)))
            with pytest.raises(Overloaded) as refused:
                stage.consume(of("a", k="more"))
            assert (refused.value.tenant, refused.value.reason) == ("a", "tenant_metadata_cardinality")
            assert stage.refusal(of("a", k="more")).tenant == "a"
            stage.consume(of("b", k="0"))
            await asyncio.sleep(1)
            stage.consume(of("a", k="more"))
            stage._drop_everything()

        run(scenario())

    def test_a_hundred_thousand_tenants_make_no_more_groups_than_there_may_be(self, monkeypatch):
        monkeypatch.setattr(batch_module, "_MOST_GROUPS", 100)

        async def scenario():
            stage, backend = batcher(send_batch_bytes="1GiB")
            most = 0
            for number in range(100_000):
                stage.consume(of(str(number), 1))
                most = max(most, len(stage._groups))
            assert most <= 101
            assert len(backend.taken) >= 100_000 - 100
            backend.full = True
            refused = 0
            for number in range(300):
                try:
                    stage.consume(of(str(number), 1))
                except Overloaded:
                    refused += 1
            assert refused > 100
            assert len(stage._groups) <= 101
            stage._drop_everything()

        run(scenario())


class Stage:
    """A first stage that refuses with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def consume(self, batch: Batch) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("tenant", "error", "status", "code"),
    [
        ("", Overloaded("full"), 429, GrpcCode.RESOURCE_EXHAUSTED),
        ("shop", Overloaded("full"), 503, GrpcCode.UNAVAILABLE),
        ("shop", Overloaded("your share", tenant="shop"), 429, GrpcCode.RESOURCE_EXHAUSTED),
        ("shop", Overloaded("the share of another", tenant="other"), 503, GrpcCode.UNAVAILABLE),
        ("shop", RetryableError("down"), 503, GrpcCode.UNAVAILABLE),
        ("shop", MalformedError("bad"), 400, GrpcCode.INVALID_ARGUMENT),
    ],
)
def test_a_tenant_gets_429_for_its_own_cause_and_503_for_the_agents(tenant, error, status, code):
    head = PipelineHead("traces", Ledgers())
    head.first = Stage(error)
    log = structlog.get_logger()
    entry = ReceiverEntry([head], "otlp", Signal.TRACES, Registry(), clock=time.monotonic, log=log)
    batch = Batch(Signal.TRACES, b"", 2, Origin("otlp", "http", tenant), ((Receipt(2), 2),))
    with pytest.raises(
        type(error).__mro__[1] if status == 503 and isinstance(error, Overloaded) else type(error)
    ) as got:
        entry.consume(batch)
    assert (http_status(got.value), grpc_code(got.value), got.value.items) == (status, code, 2)


def test_what_is_reported_keeps_reason_time_and_capacity():
    capacity = Capacity("x", time.monotonic)
    error = Overloaded("full", retry_after=7.0, reason="queue_full", capacity=capacity)
    error.items = 5
    reported = refusal_for("shop", error)
    assert (str(reported), reported.retry_after, reported.reason) == ("full", 7.0, "queue_full")
    assert (reported.capacity, reported.items) == (capacity, 5)
    assert refusal_for("", error) is error


ERROR = DEBUG = True
NOTHING = Always(debug=None, errors=None, slow=None, first=None)


class Flow:
    """Traces of tenants, in the proportions that a test gives, to one controller with a budget of 100 a second."""

    def __init__(self, **policy) -> None:
        policy = {"budget": Budget.traces_per_second(100), "always": NOTHING, **policy}
        self.controller = Controller(Policy(**policy), 0.0)
        self.dice = random.Random(1)

    def feed(self, begin: int, seconds: int, rates: dict[tuple[str, str], float], *, error: bool = False):
        """Return the share of kept traces by (service, tenant)."""
        kept = dict.fromkeys(rates, 0)
        seen = dict.fromkeys(rates, 0)
        for second in range(begin, begin + seconds):
            arrivals = [(second + self.dice.random(), key) for key, rate in rates.items() for _ in range(int(rate))]
            for now, (service, tenant) in sorted(arrivals):
                key = (service, tenant) if tenant else (service,)
                decision = self.controller.judge(
                    self.dice.getrandbits(56), 0, key, "", 1, 100, 0.1, error, not DEBUG, "", now, tenant
                )
                seen[service, tenant] += 1
                kept[service, tenant] += decision[0]
            self.controller.tick(second + 1.0)
        return {key: kept[key] / seen[key] for key in rates}, sum(kept.values()) / seconds


class TestAdaptiveSampling:
    def test_tenants_have_equal_parts_of_the_budget_whatever_number_of_keys_they_send(self):
        flow = Flow(power=1.0)
        rates = {(f"service {number}", "many"): 40.0 for number in range(20)} | {("web", "one"): 400.0}
        flow.feed(0, 40, rates)
        shares, total = flow.feed(40, 40, rates)
        many = sum(shares[key] * rate for key, rate in rates.items() if key[1] == "many")
        assert many == pytest.approx(50, rel=0.15)
        assert shares["web", "one"] * 400 == pytest.approx(50, rel=0.15)
        assert total == pytest.approx(100, rel=0.1)

    def test_what_a_small_tenant_does_not_need_the_others_get(self):
        flow = Flow()
        rates = {("web", "small"): 10.0, ("web", "large"): 1000.0}
        flow.feed(0, 40, rates)
        shares, total = flow.feed(40, 40, rates)
        assert shares["web", "small"] > 0.98
        assert shares["web", "large"] * 1000 == pytest.approx(90, rel=0.1)
        assert total == pytest.approx(100, rel=0.1)

    def test_a_flood_that_begins_now_costs_another_tenant_hardly_any_trace(self):
        """Before it is measured, the tokens that all share must not go to it alone."""
        flow = Flow()
        quiet = {("web", "quiet"): 30.0}
        flow.feed(0, 40, quiet)
        shares, _ = flow.feed(40, 10, quiet | {("web", "loud"): 10_000.0})
        assert shares["web", "quiet"] > 0.9

    def test_without_tenants_it_costs_many(self):
        """The same flood, if both are keys of one sender: the test above can fail."""
        flow = Flow()
        quiet = {("quiet", ""): 30.0}
        flow.feed(0, 40, quiet)
        shares, _ = flow.feed(40, 10, quiet | {("loud", ""): 10_000.0})
        assert shares["quiet", ""] < 0.9

    def test_errors_of_a_flood_leave_the_budget_to_others(self):
        flow = Flow(always=Always())
        quiet = {("web", "quiet"): 20.0}
        flow.feed(0, 40, quiet)
        flow.feed(40, 5, quiet | {("web", "loud"): 5000.0}, error=True)
        shares, _ = flow.feed(45, 30, quiet | {("web", "loud"): 5000.0}, error=True)
        assert shares["web", "quiet"] > 0.9

    def test_a_tenant_alone_gets_the_whole_budget(self):
        flow = Flow()
        rates = {("web", "a"): 1000.0}
        flow.feed(0, 40, rates)
        _, total = flow.feed(40, 40, rates)
        assert total == pytest.approx(100, rel=0.1)

    def test_keys_of_one_tenant_leave_keys_to_others(self):
        flow = Flow(max_keys=100)
        for number in range(1000):
            flow.feed(0, 1, {(str(number), "loud"): 1.0})
        states = flow.controller.key_states
        assert len(states.states) == 50
        flow.feed(1, 1, {("web", "quiet"): 5.0})
        assert ("web", "quiet") in states.states
        assert states.find(("unknown", "loud")) is states.others["loud"]
        assert ("other", "loud") in dict(flow.controller.keys())

    def test_a_hundred_thousand_tenants_have_no_more_states_than_there_may_be(self):
        flow = Flow(max_keys=200)
        for number in range(100_000):
            name = str(number)
            flow.controller.judge(number, 0, ("web", name), "", 1, 1, 0.1, not ERROR, not DEBUG, "", 1.0, name)
        states = flow.controller.key_states
        assert len(states.states) <= 200
        assert len(states.tenants) <= 200
        assert len(states.others) <= 200
        flow.controller.tick(2.0)
        flow.controller.tick(1e6)
        assert (states.states, states.tenants, states.others) == ({}, {}, {})

    def test_a_restart_knows_whose_keys_they_are(self):
        flow = Flow()
        rates = {("web", "a"): 300.0, ("web", "b"): 300.0, ("web", ""): 300.0}
        flow.feed(0, 30, rates)
        again = Controller(flow.controller.policy, 30.0)
        restore(again, state_of(flow.controller, 30.0), 30.0)
        assert set(again.key_states.tenants) == {"a", "b"}
        assert again.key_states.states["web",].tenant is None
        assert again.key_states.states["web", "a"].tenant is again.key_states.tenants["a"]
        assert again.probability(("web", "a")) == pytest.approx(33 / 300, rel=0.3)

    def test_waiting_traces_of_a_flood_do_not_displace_those_of_another_tenant(self):
        async def scenario():
            clock = FakeClock(100.0)
            config = {"target": {"spans_per_second": 1e6}, "max_bytes": "128KiB", "max_trace_bytes": "64KiB"}
            stage, catcher = build("adaptive_sampling", config, clock=clock)
            quiet = Origin("otlp", "http", "quiet")
            stage.consume(traces_of([span(trace_id(1), 1, 0)], quiet))
            for number in range(2, 1000):
                origin = Origin("otlp", "http", f"loud{number % 3}")
                stage.consume(traces_of([span(trace_id(number), 1, 0)], origin))
            held = stage._holding.held
            assert ("quiet", trace_id(1)) in held.traces
            assert stage._holding.size <= 2**17
            early = "otelwp_processor_adaptive_sampling_early_decisions"
            assert stage.context.registry.value(early, cause="tenant_memory") > 100
            assert stage.context.registry.value(early, cause="memory") == 0
            await stage.shutdown()
            assert (len(held.use), held._of_tenants, held.traces) == (0, {}, {})
            assert len(catcher.batches) > 0

        run(scenario())

    def test_a_tenant_that_the_next_stage_refuses_does_not_delay_another(self):
        async def scenario():
            config = {"target": {"spans_per_second": 1e6}, "max_bytes": "128KiB", "max_trace_bytes": "64KiB"}
            stage, _ = build("adaptive_sampling", {**config, "decision_wait": 0}, clock=FakeClock(100.0))
            stage.next = backend = NextStage()
            backend.full_for = {"loud"}

            def send(number, tenant):
                # The root comes later, so that the trace is held and then forwarded from memory.
                spans = [[span(trace_id(number), 1, 0, name="x" * 500)], [span(trace_id(number))]]
                for each in spans:
                    stage.consume(traces_of(each, Origin("otlp", "http", tenant)))
                stage._holding.decide_due(100.0)

            def flood():
                for number in range(1, 1000):
                    send(number, "loud")

            with pytest.raises(Overloaded) as refused:
                flood()
            assert (refused.value.tenant, refused.value.reason) == ("loud", "tenant_sampling_full")
            assert stage._outgoing.size <= 2**16 + 2000
            stage.admit()
            for number in range(2000, 2010):
                send(number, "quiet")
            assert backend.taken.count("quiet") >= 10
            assert "loud" not in backend.taken
            backend.full_for = set()
            stage.rewired()
            assert "loud" in backend.taken
            assert (stage._outgoing.size, stage._outgoing.blocked, bool(stage._outgoing)) == (0, False, False)
            await stage.shutdown()

        run(scenario())

    def test_keys_of_tenants_with_equal_names_are_kept_apart(self):
        async def scenario():
            stage, _ = build("adaptive_sampling", {"target": {"spans_per_second": 100}}, clock=FakeClock(100.0))
            for tenant in ("a", "b", ""):
                stage.consume(traces_of([span(trace_id(5))], Origin("otlp", "http", tenant)))
            assert set(stage.controller.key_states.states) == {("shop", "a"), ("shop", "b"), ("shop",)}
            await stage.shutdown()

        run(scenario())
