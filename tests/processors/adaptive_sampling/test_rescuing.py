"""Dropped traces that return from the flight recorder."""

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Ledger, Outcome
from otelwp_agent.testing import run
from tests.kit.sampled_traces import (
    CHANCE,
    SITES,
    attributes_of,
    batch_of,
    deliver,
    kept_ids,
    metric,
    receipt_of,
    sampler,
    span,
    spans_of,
    text,
    trace_id,
    tree,
)

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
