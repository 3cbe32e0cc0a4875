"""Adaptive sampling: immediate and delayed decisions, forwarding, and settling of every span exactly once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.consistent import TraceState, randomness_of
from otelwp_agent.sampling.traces import read
from otelwp_agent.sampling.traces.framing import enclose, frame
from otelwp_agent.testing import FakeClock, run
from tests.kit.sampled_traces import (
    CHANCE,
    QUARTER,
    SITES,
    attributes_of,
    batch_of,
    body_of,
    deliver,
    kept_ids,
    metric,
    read_items,
    receipt_of,
    sampler,
    span,
    spans_of,
    text,
    trace_id,
    tree,
)
from tests.kit.stages import build


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
