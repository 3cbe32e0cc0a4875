"""Decisions: keys, rules, thresholds of earlier samplers, and late spans."""

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import FakeClock, messages_of, run
from tests.kit.sampled_traces import (
    CHANCE,
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


def test_traces_of_tenants_are_separate():
    stage, catcher = sampler(**SITES, **CHANCE)
    trace = trace_id(1, 255)
    for tenant in ("a", "b"):
        stage.consume(batch_of([span(trace, 1, 0)], Origin("otlp", "http", tenant)))
    assert stage.health().details["waiting_traces"] == 2
    run(stage.shutdown())
    assert [batch.origin.tenant for batch in catcher.batches] == ["a", "b"]
