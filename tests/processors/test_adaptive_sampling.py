"""Adaptive sampling: immediate and delayed decisions, forwarding, and settling of every span exactly once."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Ledger, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.consistent import TraceState, randomness_of
from otelwp_agent.sampling.traces import read
from otelwp_agent.sampling.traces.framing import enclose, frame
from otelwp_agent.testing import FakeClock, messages_of, run
from tests.kit.stages import build

NAME = "otelwp_processor_adaptive_sampling_"
SITES = {"sites": {"rules": [{"keep": 0.25}]}}
"""Keeps a quarter of everything, regardless of traffic: the same in every agent."""
CHANCE = {"always_keep": {each: {"enabled": False} for each in ("errors", "slow", "first_seen", "releases", "debug")}}
QUARTER = 3 << 54
"""The threshold of that."""
START = 1_760_000_000_000_000_000


def sampler(clock=None, **config):
    return build("adaptive_sampling", config or {"target": {"spans_per_second": 100}}, clock=clock or FakeClock(100.0))


def trace_id(number, randomness=None):
    """Return a trace id; `randomness` is the first byte of its randomness."""
    drawn = random.Random(number).randbytes(16)
    return drawn if randomness is None else drawn[:9] + bytes([randomness]) + drawn[10:]


def ids(index):
    return (index + 1).to_bytes(8, "big")


def span(trace, index=0, parent=None, *, error=False, lasts=1.0, **fields):
    fields = {
        "trace_id": trace,
        "span_id": ids(index),
        "parent_span_id": b"" if parent is None else ids(parent),
        "name": f"span {index}",
        "start_time_unix_nano": START,
        "end_time_unix_nano": START + int(lasts * 1e9),
        **fields,
    }
    return fields | ({"status": {"code": 2}} if error else {})


def tree(trace, size=3, **root):
    """Return a trace, its root last."""
    return [span(trace, index, 0) for index in range(1, size)] + [span(trace, **root)]


def text(key, value):
    return {"key": key, "value": {"string_value": value}}


def body_of(spans, service="shop", **resource):
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in {"service.name": service, "wordpress.site.host": "shop.example", **resource}.items():
        group.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    scope = group.scope_spans.add()
    for each in spans:
        scope.spans.add(**each)
    return request.SerializeToString()


def batch_of(spans, origin=None, **resource):
    return Batch(
        Signal.TRACES,
        body_of(spans, **resource),
        len(spans),
        origin or Origin("otlp", "http"),
        [(Receipt(len(spans)), len(spans))],
    )


def receipt_of(batch):
    return batch.shares[0][0]


def spans_of(catcher):
    return [each for batch in catcher.batches for each in messages_of(Signal.TRACES, batch.body)]


def kept_ids(catcher):
    return {each.trace_id for each in spans_of(catcher)}


def attributes_of(each):
    return {attribute.key: attribute.value.string_value for attribute in each.attributes}


def deliver(catcher):
    """Settle the forwarded batches, and check that the shares of each match its content."""
    for batch in catcher.batches:
        assert sum(items for _, items in batch.shares) == batch.items == len(messages_of(Signal.TRACES, batch.body))
        batch.settle(Outcome.DELIVERED)


def read_items(body):
    request, pieces = read(body)
    return [item for place in range(len(pieces)) for item in request.spans(place)]


def look(stage, catcher):
    """Make the stage read its clock: an empty request passes unchanged."""
    stage.consume(batch_of([]))
    catcher.batches = [batch for batch in catcher.batches if batch.items]


def metric(stage, name, **labels):
    return stage.context.registry.value(NAME + name, **labels)


def test_a_whole_trace_is_decided_about_at_once():
    stage, catcher = sampler(**SITES, **CHANCE)
    kept, dropped = trace_id(1, 255), trace_id(2, 0)
    batch = batch_of([*tree(kept), *tree(dropped)])
    stage.consume(batch)
    assert kept_ids(catcher) == {kept}
    assert [each.trace_state for each in spans_of(catcher)] == ["ot=th:c"] * 3
    assert receipt_of(batch).count(Outcome.SAMPLED_OUT) == 3
    deliver(catcher)
    assert receipt_of(batch).pending == 0
    assert metric(stage, "traces", decision="kept", reason="site_rule") == 1
    assert metric(stage, "spans", decision="dropped", reason="site_rule") == 3


def test_a_budget_is_kept():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, target={"spans_per_second": 30}, **CHANCE)
    for number in range(3000):
        stage.consume(batch_of(tree(trace_id(number))))
        clock.now += 0.01
    kept = catcher.items / 30
    assert kept == pytest.approx(30, rel=0.15), "of 300 spans a second"


@pytest.mark.parametrize(
    ("root", "reason"),
    [({"error": True}, "error"), ({"lasts": 9}, "slow"), ({"attributes": [text("jaeger-debug-id", "me")]}, "debug")],
)
def test_always_kept_spans_have_a_reason_and_no_threshold(root, reason):
    stage, catcher = sampler(**SITES, always_keep={"slow": {"above": "2s"}, "first_seen": {"enabled": False}})
    stage.consume(batch_of(tree(trace_id(1, 0), **root)))
    assert {attributes_of(each)["sampling.reason"] for each in spans_of(catcher)} == {reason}
    assert {each.trace_state for each in spans_of(catcher)} == {""}


def test_keys_come_from_resource_and_root():
    stage, _ = sampler(target={"spans_per_second": 9}, per=["service.name", "http.route", "span.name", "code"])
    code = {"key": "code", "value": {"int_value": 7}}
    root = span(trace_id(1), name="GET", attributes=[text("http.route", "/cart"), code])
    stage.consume(batch_of([span(trace_id(1), 1, 0, attributes=[text("http.route", "/no")]), root]))
    assert next(key for key, _ in [*stage.controller.keys()]) == ("shop", "/cart", "GET", "7")


def test_the_route_in_an_event_or_a_value_is_not_the_route():
    stage, _ = sampler(target={"spans_per_second": 9}, per=["http.route"])
    odd = [text("note", "http.route"), {"key": "m", "value": {"kvlist_value": {"values": [text("http.route", "/in")]}}}]
    root = span(trace_id(1), attributes=[*odd], events=[{"name": "e", "attributes": [text("http.route", "/event")]}])
    stage.consume(batch_of([root]))
    stage.consume(batch_of([span(trace_id(2), attributes=[*odd, text("http.route", "x" * 300)])]))
    assert {key for key, _ in [*stage.controller.keys()]} == {("",), ("x" * 200,)}


def test_drop_rules():
    rules = [{"name": "static", "attributes": {"url.path": ["*.css", "*.js"]}}]
    stage, catcher = sampler(drop={"health_checks": True, "bots": True, "rules": rules})
    roots = {
        "health": [text("url.path", "/healthz")],
        "probe": [text("url.path", "/"), text("user_agent.original", "kube-probe/1.30")],
        "bot": [text("url.path", "/"), text("user_agent.original", "Mozilla/5.0 (compatible; Googlebot/2.1)")],
        "style": [text("url.path", "/a/style.css")],
        "page": [text("url.path", "/health-insurance"), text("user_agent.original", "Mozilla/5.0 Firefox/130.0")],
    }
    batches = {
        name: batch_of(tree(trace_id(number), attributes=attributes))
        for number, (name, attributes) in enumerate(roots.items())
    }
    for batch in batches.values():
        stage.consume(batch)
    assert {each.name for each in spans_of(catcher) if attributes_of(each).get("url.path")} == {"span 0"}
    assert catcher.items == 3, "the page"
    assert [receipt_of(batch).count(Outcome.FILTERED) for batch in batches.values()] == [3, 3, 3, 3, 0]
    assert metric(stage, "traces", reason="static") == 1
    stage.consume(batch_of(tree(trace_id(9), attributes=roots["health"], error=True)))
    assert catcher.items == 6, "a health check that fails is worth seeing"


def test_a_drop_rule_may_read_what_keys_are_made_of():
    """Both are `service.name` here, and nothing else is wanted of a trace."""
    stage, catcher = sampler(drop={"rules": [{"name": "probes", "attributes": {"service.name": ["probe"]}}]})
    probe = batch_of(tree(trace_id(1)), service="probe")
    stage.consume(probe)
    stage.consume(batch_of(tree(trace_id(2)), service="shop"))
    assert catcher.items == 3
    assert receipt_of(probe).count(Outcome.FILTERED) == 3


def test_rules_for_sites_may_read_what_keys_are_made_of():
    sites = {"attribute": "service.name", "rules": [{"keep": 0, "sites": ["probe"]}]}
    stage, catcher = sampler(sites=sites, **CHANCE)
    probe = batch_of(tree(trace_id(1)), service="probe")
    stage.consume(probe)
    stage.consume(batch_of(tree(trace_id(2)), service="shop"))
    assert catcher.items == 3
    assert receipt_of(probe).count(Outcome.SAMPLED_OUT) == 3


def test_th_is_honoured_and_only_raised():
    stage, catcher = sampler(**SITES, **CHANCE)
    arrived = f"ot=th:{0xE0:x},other=1"
    for number, first in ((1, 0xFF), (2, 0xD0)):
        states = [each | {"trace_state": arrived} for each in tree(trace_id(number, first))]
        stage.consume(batch_of(states))
    states = {each.trace_state for each in spans_of(catcher)}
    assert states == {"ot=th:e,other=1", "ot=th:c,other=1"}, "the second should not have come through its th"
    assert metric(stage, "odd_traces", kind="inconsistent_threshold") == 1


def test_rv_decides_before_the_trace_id():
    stage, catcher = sampler(**SITES, **CHANCE)
    low, high = trace_id(1, 0), trace_id(2, 255)
    stage.consume(batch_of([each | {"trace_state": "ot=rv:ffffffffffffff"} for each in tree(low)]))
    stage.consume(batch_of([each | {"trace_state": "ot=rv:00000000000000"} for each in tree(high)]))
    assert kept_ids(catcher) == {low}
    assert {each.trace_state for each in spans_of(catcher)} == {"ot=th:c;rv:ffffffffffffff"}


def test_erased_th():
    stage, catcher = sampler(**SITES)
    stage.consume(batch_of([each | {"trace_state": "ot=th:8,a=b"} for each in tree(trace_id(1, 255), error=True)]))
    assert {each.trace_state for each in spans_of(catcher)} == {"a=b"}


def test_a_reason_that_is_there_is_replaced():
    stage, catcher = sampler(**SITES)
    stage.consume(batch_of(tree(trace_id(1), error=True, attributes=[text("sampling.reason", "older")])))
    assert [attributes_of(each)["sampling.reason"] for each in spans_of(catcher)] == ["error"] * 3


@pytest.mark.parametrize(
    ("spans", "kind"),
    [
        ([span(bytes(16))], "invalid_trace_id"),
        ([span(b"x")], "invalid_trace_id"),
        ([span(trace_id(1)), span(trace_id(1))], "duplicate_span_id"),
        ([span(trace_id(1), lasts=-3)], "clock_skew"),
        ([span(trace_id(1), trace_state="ot=th:nonsense")], "invalid_trace_state"),
    ],
)
def test_odd_traces_are_counted_and_settled(spans, kind):
    stage, catcher = sampler(**SITES)
    batch = batch_of(spans)
    stage.consume(batch)
    run(stage.shutdown())
    deliver(catcher)
    assert metric(stage, "odd_traces", kind=kind) == 1
    assert receipt_of(batch).pending == 0


BROKEN = b"J\x03\xff\xff\xff"
"""Attributes that do not parse."""


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("state", [b"", b"\x1a\x07ot=th:8"])
def test_attributes_that_do_not_parse_stop_nothing(at_once, state):
    """Deeper parts of a span may be invalid: other senders' spans must not be affected."""
    stage, catcher = sampler(**SITES, per=["http.route", "span.name"])
    root = span(trace_id(1, 255), error=True)
    request = ExportTraceServiceRequest.FromString(body_of([root]))
    item = request.resource_spans[0].scope_spans[0].spans[0].SerializeToString() + state + BROKEN
    children = [] if at_once else [span(trace_id(1, 255), 1, 9)]
    other = request.resource_spans[0].scope_spans[0].spans[0].__class__
    heads = read(body_of([root]))[0].heads()[0]
    items = [item, *[other(**child).SerializeToString() for child in children]]
    receipt = Receipt(len(items))
    stage.consume(Batch(Signal.TRACES, enclose([(heads, frame(items))]), len(items), Origin(), [(receipt, len(items))]))
    run(stage.shutdown())
    assert sum(batch.items for batch in catcher.batches) == len(items)
    for batch in catcher.batches:
        batch.settle(Outcome.DELIVERED)
    assert receipt.pending == 0


def test_names_that_are_no_text_hide_nothing_else():
    stage, _ = sampler(target={"spans_per_second": 9}, per=["http.route"])
    request = ExportTraceServiceRequest.FromString(body_of([span(trace_id(1), attributes=[text("http.route", "/a")])]))
    item = request.resource_spans[0].scope_spans[0].spans[0].SerializeToString() + b"J\x04\n\x02\xff\xfe"
    body = enclose([(read(request.SerializeToString())[0].heads()[0], frame([item]))])
    stage.consume(Batch(Signal.TRACES, body, 1, Origin(), [(Receipt(1), 1)]))
    assert {key for key, _ in [*stage.controller.keys()]} == {("/a",)}


def test_a_resource_that_does_not_parse_says_nothing():
    stage, catcher = sampler(**SITES)
    item = read_items(body_of([span(trace_id(1), error=True)]))[0]
    body = enclose([((b"\n\x03\n\x01\xff", b""), frame([item]))])
    stage.consume(Batch(Signal.TRACES, body, 1, Origin(), [(Receipt(1), 1)]))
    assert len(catcher.batches) == 1


def test_a_dry_run_marks_and_drops_nothing():
    stage, catcher = sampler(**SITES, mode="dry_run")
    batch = batch_of([*tree(trace_id(1, 0), lasts=0), *tree(trace_id(2, 0), error=True), span(bytes(16))])
    stage.consume(batch)
    told = {attributes_of(each)["sampling.dry_run"] for each in spans_of(catcher)}
    assert told == {"kept:first_seen", "kept:error", "dropped:invalid_trace_id"}
    assert catcher.items == 7
    assert {each.trace_state for each in spans_of(catcher)} == {""}
    deliver(catcher)
    assert receipt_of(batch).pending == 0


def test_a_refusal_leaves_everything_with_the_sender_and_is_decided_alike_next_time():
    stage, catcher = sampler(**SITES, **CHANCE)
    batch = batch_of([*tree(trace_id(1, 255)), *tree(trace_id(2, 0)), span(trace_id(3), 4, 3)])
    catcher.error = Overloaded("full")
    with pytest.raises(Overloaded):
        stage.consume(batch)
    assert receipt_of(batch).pending == 7
    assert stage.health().details["waiting_traces"] == 0
    catcher.error = None
    stage.consume(batch)
    assert catcher.items == 3
    assert metric(stage, "late_spans") == 0
    assert metric(stage, "traces") == 2
    assert stage.health().details["waiting_traces"] == 1


# --- traces that wait ---


def test_a_trace_waits_for_its_root_and_a_while_longer():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, **SITES, **CHANCE, decision_wait="2s", max_wait="10s")
    trace = trace_id(1, 255)
    first, second, third = (batch_of([each]) for each in tree(trace))
    for batch in (first, second, third):
        stage.consume(batch)
        clock.now += 1
    look(stage, catcher)
    assert catcher.items == 0
    clock.now += 1
    look(stage, catcher)
    assert [each.name for each in spans_of(catcher)] == ["span 1", "span 2", "span 0"]
    assert [receipt for receipt, _ in catcher.batches[0].shares] == [receipt_of(b) for b in (first, second, third)]
    deliver(catcher)
    assert receipt_of(second).pending == 0


def test_an_error_in_any_request_is_an_error():
    stage, catcher = sampler(**SITES)
    trace = trace_id(1, 0)
    for spans in ([span(trace, 1, 0)], [span(trace, 2, 0, error=True)], [span(trace, 3, 0)]):
        stage.consume(batch_of(spans))
    run(stage.shutdown())
    assert [attributes_of(each)["sampling.reason"] for each in spans_of(catcher)] == ["error"] * 3


def test_without_a_root_the_longest_wait_decides():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, **SITES, **CHANCE, max_wait="10s")
    batch = batch_of([span(trace_id(1, 0), 1, 0)])
    stage.consume(batch)
    clock.now += 9.9
    look(stage, catcher)
    assert receipt_of(batch).pending == 1
    clock.now += 0.3
    look(stage, catcher)
    assert receipt_of(batch).count(Outcome.SAMPLED_OUT) == 1
    assert metric(stage, "odd_traces", kind="no_root") == 1
    assert catcher.items == 0


def test_timers_decide_when_nothing_comes():
    async def live():
        loop = asyncio.get_running_loop()
        stage, catcher = build("adaptive_sampling", {**SITES, **CHANCE, "max_wait": "3s"}, clock=loop.time)
        await stage.start()
        stage.consume(batch_of([span(trace_id(1, 255), 1, 0)]))
        await asyncio.sleep(4)
        assert catcher.items == 1
        await stage.shutdown()

    run(live())


def test_late_spans_follow_what_was_decided():
    stage, catcher = sampler(**SITES, **CHANCE)
    kept, dropped = trace_id(1, 255), trace_id(2, 0)
    stage.consume(batch_of([*tree(kept), *tree(dropped)]))
    late = batch_of([span(kept, 7, 6), span(dropped, 7, 6)])
    stage.consume(late)
    assert [each.trace_state for each in messages_of(Signal.TRACES, catcher.batches[-1].body)] == ["ot=th:c"]
    assert receipt_of(late).count(Outcome.SAMPLED_OUT) == 1
    assert metric(stage, "late_spans", decision="kept") == metric(stage, "late_spans", decision="dropped") == 1


@pytest.mark.parametrize("unit", ["spans_per_second", "bytes_per_day"])
def test_the_budget_pays_for_late_spans(unit):
    """A root with a few children looks whole; most of each trace comes when it has been decided about."""
    clock = FakeClock(100.0)
    size = len(read_items(body_of([span(trace_id(0), 2, 0)]))[0])
    target = {unit: 100 if unit == "spans_per_second" else 100 * size * 86_400}
    stage, catcher = sampler(clock, target=target, **CHANCE)
    came = []
    for number in range(9_000):
        trace = trace_id(number)
        stage.consume(batch_of(tree(trace, 2)))
        stage.consume(batch_of([span(trace, index, 0) for index in range(2, 6)]))
        came.append(catcher.items)
        clock.now += 0.01
    assert 0.9 * 6_000 < came[-1] - came[2_999] < 1.1 * 6_000, "in the last minute, of 36 000"


def test_spans_that_come_again_are_paid_for_once():
    stage, catcher = sampler(target={"spans_per_second": 100}, **CHANCE)
    catcher.error = Overloaded("full", retry_after=1.0)
    batch = batch_of(tree(trace_id(1, 255)))
    for _ in range(5):
        with pytest.raises(Overloaded):
            stage.consume(batch)
    catcher.error = None
    stage.consume(batch)
    assert stage.controller.guard.spent == 3


def test_decisions_are_forgotten_in_time():
    stage, _ = sampler(**SITES, **CHANCE, remember=100)
    for number in range(1000):
        stage.consume(batch_of([span(trace_id(number))]))
    assert stage.health().details["remembered_traces"] <= 100
    stage.consume(batch_of([span(trace_id(999), 1, 0)]))
    assert metric(stage, "late_spans") == 1


def test_memory_is_bounded_by_deciding_the_oldest_early():
    stage, catcher = sampler(**SITES, **CHANCE, max_bytes="64KiB", max_trace_bytes="32KiB")
    for number in range(500):
        stage.consume(batch_of([span(trace_id(number), 1, 0)]))
        assert stage.health().details["waiting_bytes"] <= 65536
    early = metric(stage, "early_decisions", cause="memory")
    assert early == 500 - stage.health().details["waiting_traces"] > 300
    assert 0 < catcher.items < early / 2


def test_what_stands_around_spans_counts_once_as_long_as_somebody_waits_with_it():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, **SITES, **CHANCE, max_bytes="1MiB", max_trace_bytes="64KiB", max_wait="10s")
    large = "x" * 100_000
    for number in range(5):
        stage.consume(batch_of([span(trace_id(number), 1, 0)], host__name=large))
    assert 100_000 < stage.health().details["waiting_bytes"] < 150_000
    for number in range(5, 100):
        stage.consume(batch_of([span(trace_id(number), 1, 0)], host__name=f"{number}{large}"))
        assert stage.health().details["waiting_bytes"] <= 2**20
    assert metric(stage, "early_decisions", cause="memory") > 80
    clock.now += 20
    look(stage, catcher)
    assert stage.health().details["waiting_bytes"] == 0


def test_a_trace_of_many_scopes_is_forwarded_without_growing():
    stage, catcher = sampler(**SITES, **CHANCE)
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="host.name").value.string_value = "x" * 10_000
    for number in range(1_000):
        group.scope_spans.add(scope={"name": f"scope {number}"}).spans.add(**span(trace_id(1, 255), number + 1, 0))
    body = request.SerializeToString()
    stage.consume(Batch(Signal.TRACES, body, 1_000, Origin(), [(Receipt(1_000), 1_000)]))
    run(stage.shutdown())
    assert catcher.items == 1_000
    assert sum(len(batch.body) for batch in catcher.batches) < 1.2 * len(body)


def test_a_next_stage_that_refuses_loses_nothing():
    async def live():
        loop = asyncio.get_running_loop()
        config = {**SITES, "max_wait": "1s", "decision_wait": "1s", "max_bytes": "64KiB", "max_trace_bytes": "32KiB"}
        stage, catcher = build("adaptive_sampling", config, clock=loop.time)
        await stage.start()
        catcher.error = Overloaded("full")
        batches = []
        with pytest.raises(Overloaded):  # noqa: PT012 - how many fit is no matter
            for number in range(2000):
                batch = batch_of([span(trace_id(number), 1, 0, error=True)])
                stage.consume(batch)
                batches.append(batch)
                await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            stage.admit()
        assert not stage.health().healthy
        assert stage.health().details["waiting_bytes"] < 2 * 65536
        await asyncio.sleep(2)
        catcher.error = None
        await asyncio.sleep(2)
        stage.admit()
        assert stage.health().healthy
        assert catcher.items == len(batches) > 50
        assert len(catcher.batches) < 50, "what waited is merged"
        assert [each.trace_id for each in spans_of(catcher)] == [trace_id(number) for number in range(len(batches))]
        deliver(catcher)
        assert {receipt_of(batch).pending for batch in batches} == {0}
        await stage.shutdown()

    run(live())


def test_batches_refused_permanently_are_dropped():
    stage, catcher = sampler(**SITES, max_wait="1s", decision_wait="1s")
    catcher.error = PermanentError("no")
    batch = batch_of([span(trace_id(1), 1, 0, error=True)])
    stage.consume(batch)
    run(stage.shutdown())
    assert receipt_of(batch).count(Outcome.DROPPED) == 1


def test_a_stop_decides_and_forwards():
    stage, catcher = sampler(**SITES, **CHANCE)
    kept, dropped = batch_of([span(trace_id(1, 255), 1, 0)]), batch_of([span(trace_id(2, 0), 1, 0)])
    stage.consume(kept)
    stage.consume(dropped)
    run(stage.shutdown())
    deliver(catcher)
    assert receipt_of(kept).count(Outcome.DELIVERED) == receipt_of(dropped).count(Outcome.SAMPLED_OUT) == 1
    assert metric(stage, "early_decisions", cause="shutdown") == 2


def test_a_cancelled_stop_drops_waiting_spans():
    async def live():
        stage, catcher = sampler(**SITES, **CHANCE)
        catcher.error = Overloaded("full")
        batch = batch_of([span(trace_id(1, 255), 1, 0)])
        stage.consume(batch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.shutdown(), 1)
        assert receipt_of(batch).count(Outcome.DROPPED) == 1
        assert receipt_of(batch).reason == "shutdown"

    run(live())


def test_a_giant_trace_is_cut_to_its_error_spine():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, **SITES, max_trace_bytes="16KiB", decision_wait="1s")
    trace = trace_id(1)
    receipts = []
    chain = [span(trace, 1, 0), span(trace, 2, 1), span(trace, 3, 2, error=True)]
    for spans in (chain, *([span(trace, number, 1) for number in range(at, at + 20)] for at in range(10, 410, 20))):
        batch = batch_of(spans)
        receipts.append(receipt_of(batch))
        stage.consume(batch)
    end = batch_of([span(trace)])
    stage.consume(end)
    assert stage.health().details["waiting_bytes"] < 16384
    clock.now += 2
    look(stage, catcher)
    names = {each.name for each in spans_of(catcher)}
    assert {"span 0", "span 1", "span 2", "span 3"} <= names
    assert len(names) < 200
    deliver(catcher)
    assert {receipt.pending for receipt in receipts} == {0}
    cut = sum(receipt.count(Outcome.SAMPLED_OUT) for receipt in receipts)
    assert metric(stage, "cut_spans") == cut > 200
    assert cut + catcher.items == 404


def test_traces_of_tenants_are_separate():
    stage, catcher = sampler(**SITES, **CHANCE)
    trace = trace_id(1, 255)
    for tenant in ("a", "b"):
        stage.consume(batch_of([span(trace, 1, 0)], Origin("otlp", "http", tenant)))
    assert stage.health().details["waiting_traces"] == 2
    run(stage.shutdown())
    assert [batch.origin.tenant for batch in catcher.batches] == ["a", "b"]


def test_a_request_of_many_receipts():
    """A batch stage before it has merged requests; one trace's spans come from several of them."""
    stage, catcher = sampler(**SITES, **CHANCE)
    kept, dropped = trace_id(1, 255), trace_id(2, 0)
    spans = [span(kept, 1, 0), span(dropped, 1, 0), span(kept, 2, 0), span(kept, 3, 0), span(dropped, 2, 0)]
    receipts = [Receipt(1), Receipt(2), Receipt(2)]
    shares = list(zip(receipts, (1, 2, 2), strict=True))
    stage.consume(Batch(Signal.TRACES, body_of(spans), 5, Origin(), shares))
    run(stage.shutdown())
    assert catcher.batches[0].shares == [(receipts[0], 1), (receipts[1], 1), (receipts[2], 1)]
    deliver(catcher)
    assert [receipt.count(Outcome.DELIVERED) for receipt in receipts] == [1, 1, 1]
    assert [receipt.count(Outcome.SAMPLED_OUT) for receipt in receipts] == [0, 1, 1]


# --- whatever the order ---

TRACES = [trace_id(number) for number in range(8)]


@st.composite
def traffic(draw):
    """Return spans of some traces, in any order and in any batches."""
    spans = []
    for trace in draw(st.lists(st.sampled_from(TRACES), min_size=1, unique=True)):
        size = draw(st.integers(1, 5))
        spans += [span(trace, i, draw(st.integers(0, i - 1)), error=draw(st.booleans())) for i in range(1, size)]
        spans += [span(trace)] * draw(st.integers(0, 1))
    return spans


def cut(draw, spans):
    spans = draw(st.permutations(spans))
    batches = []
    while spans:
        size = draw(st.integers(1, len(spans)))
        batches.append(batch_of(spans[:size]))
        spans = spans[size:]
    return batches


@settings(max_examples=60)
@given(st.data())
def test_every_span_is_settled_once_and_agents_agree(data):
    """In any order and batches the same traces are kept; with a lower rate further down, some of those."""
    spans = data.draw(traffic())
    kept = []
    for _ in range(2):
        clock = FakeClock(100.0)
        stage, catcher = sampler(clock, **SITES, **CHANCE, decision_wait="2s", max_wait="3s")
        batches = cut(data.draw, spans)
        for batch in batches:
            stage.consume(batch)
            clock.now += data.draw(st.sampled_from([0, 1.0, 4.0]))
        run(stage.shutdown())
        deliver(catcher)
        assert {receipt_of(batch).pending for batch in batches} <= {0}
        assert all(receipt_of(batch).count(Outcome.DROPPED) == 0 for batch in batches)
        kept.append(sorted((each.trace_id, each.span_id) for each in spans_of(catcher)))
    assert kept[0] == kept[1]
    expected = {trace for trace in TRACES if (randomness_of(trace) or 0) >= QUARTER}
    assert {trace for trace, _ in kept[0]} == expected & {each["trace_id"] for each in spans}

    lower, downstream = sampler(sites={"rules": [{"keep": 0.05}]}, **CHANCE)
    for batch in catcher.batches:
        lower.consume(
            Batch(Signal.TRACES, batch.body, batch.items, batch.origin, [(Receipt(batch.items), batch.items)])
        )
    run(lower.shutdown())
    assert kept_ids(downstream) <= {trace for trace, _ in kept[0]}
    for each in spans_of(downstream):
        assert (TraceState.parse(each.trace_state).threshold or 0) > QUARTER


# --- the flight recorder ---

RECORDER = {**SITES, "always_keep": {**CHANCE["always_keep"], "errors": {}}, "flight_recorder": {"enabled": True}}


def test_a_late_error_brings_a_dropped_trace_back():
    stage, catcher = sampler(**RECORDER)
    trace, other = trace_id(1, 0), trace_id(2, 0)
    batch = batch_of([*tree(trace), *tree(other)])
    ledger = receipt_of(batch).ledger = Ledger()
    ledger.accepted = 6
    stage.consume(batch)
    assert (catcher.items, ledger.in_flight) == (0, 0)
    late = batch_of([span(trace, 5, 0, error=True)])
    stage.consume(late)
    assert {each.trace_id for each in spans_of(catcher)} == {trace}
    reasons = [attributes_of(each)["sampling.reason"] for each in spans_of(catcher)]
    assert sorted(reasons) == ["error", "rescued", "rescued", "rescued"]
    assert (ledger.accepted, ledger.in_flight) == (6, 0), "the sender's account has what was sent, each item once"
    rescued = stage.context.ledgers.get("traces", "rescue", "")
    assert (rescued.accepted, rescued.in_flight) == (3, 3), "the rescued ones are new items of another origin"
    assert {batch.origin.receiver for batch in catcher.batches if batch.items == 3} == {"rescue"}
    deliver(catcher)
    assert (rescued.settled[Outcome.DELIVERED], rescued.in_flight) == (3, 0)
    assert metric(stage, "rescued_spans") == 3
    stage.consume(batch_of([span(trace, 6, 0)]))
    assert catcher.items == 5, "and what comes later is kept"


def test_a_late_error_that_the_next_stage_refuses_brings_its_trace_back_all_the_same():
    stage, catcher = sampler(**RECORDER)
    trace = trace_id(1, 0)
    stage.consume(batch_of(tree(trace)))

    async def refused_at_first():
        late = batch_of([span(trace, 5, 0, error=True)])
        catcher.error = Overloaded("full", retry_after=1.0)
        with pytest.raises(Overloaded):
            stage.consume(late)
        catcher.error = None
        stage.consume(late)
        await stage.shutdown()

    run(refused_at_first())
    reasons = [attributes_of(each)["sampling.reason"] for each in spans_of(catcher)]
    assert sorted(reasons) == ["rescued"] * 4, "and the late span is of a rescued trace by now"


def test_late_errors_are_no_traces_of_their_own():
    """They belong to known keys, although late spans do not contain their key."""
    stage, catcher = sampler(**RECORDER, per=["service.name", "http.route"], target={"spans_per_second": 100})
    root = {"attributes": [text("http.route", "/a")]}
    for number in range(200):
        stage.consume(batch_of(tree(trace_id(number, 0), **root)))
    before = catcher.items
    for number in range(200):
        stage.consume(batch_of([span(trace_id(number), 5, 0)], Origin("otlp", "http")))
        stage.consume(batch_of([span(trace_id(number, 0), 5, 0, error=True)]))
    assert metric(stage, "rescued_spans") > 0
    assert {key for key, _ in [*stage.controller.keys()]} == {("shop", "/a")}
    # The ceiling: 30 % of the budget, of which five seconds can be used up at once, and then one trace more.
    assert 0 < catcher.items - before <= 150 + 4


def test_an_error_of_another_tenant_brings_nothing_back():
    stage, catcher = sampler(**RECORDER)
    trace = trace_id(1, 0)
    stage.consume(batch_of(tree(trace), Origin("otlp", "http", "a")))
    stage.consume(batch_of([span(trace, 5, 0, error=True)], Origin("otlp", "http", "b")))
    run(stage.shutdown())
    assert {batch.origin.tenant for batch in catcher.batches} == {"b"}
    assert catcher.items == 1


def test_rescue_by_id_by_time_and_by_attribute():
    stage, catcher = sampler(**RECORDER)
    traces = [trace_id(number, 0) for number in range(4)]
    for number, trace in enumerate(traces):
        root = {"attributes": [text("http.route", f"/{number}")]}
        stage.consume(batch_of(tree(trace, **root), service="shop" if number % 2 else "blog"))
    assert stage.rescue(trace_id=traces[0]) == 3
    assert stage.rescue(trace_id=traces[0]) == 0
    assert stage.rescue(where={"service.name": "sh*", "http.route": "/1"}) == 3
    assert stage.rescue(since=4e9) == 0
    assert stage.rescue(since=0) == 6
    assert kept_ids(catcher) == set(traces)


def test_a_trace_that_waited_is_recorded():
    stage, catcher = sampler(**RECORDER)
    stage.consume(batch_of([span(trace_id(1, 0), 1, 0)]))
    run(stage.shutdown())
    assert catcher.items == 0
    assert stage.rescue(trace_id=trace_id(1, 0)) == 1


def test_without_a_recorder_there_is_nothing_to_rescue():
    stage, _ = sampler(**SITES)
    assert stage.rescue(since=0) == 0
