"""Traces that wait for their root, and the memory they use."""

import asyncio

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import FakeClock, run
from tests.kit.sampled_traces import (
    CHANCE,
    SITES,
    attributes_of,
    batch_of,
    deliver,
    look,
    metric,
    receipt_of,
    sampler,
    span,
    spans_of,
    trace_id,
    tree,
)
from tests.kit.stages import build


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
