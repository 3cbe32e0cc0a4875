"""Everything with the same key goes to one destination, and nothing is lost, doubled or changed on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import count
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.balancing import SIGNALS, by_resource_attribute, by_tenant, by_trace, divider

SPANS = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("ab")), max_size=30)
"""A trace and a name."""
RESOURCES = st.lists(st.tuples(st.sampled_from("xyz"), st.lists(SPANS, max_size=3)), max_size=4)


def traces_of(resources):
    request, number = ExportTraceServiceRequest(), 0
    for service, scopes in resources:
        group = request.resource_spans.add(schema_url=f"schema {service}")
        group.resource.attributes.add(key="service.name").value.string_value = service
        for spans in scopes:
            scope = group.scope_spans.add()
            scope.scope.name = f"scope {service}"
            for trace, name in spans:
                number += 1
                scope.spans.add(trace_id=trace.to_bytes(16), span_id=number.to_bytes(8), name=name, kind=number % 3)
    return request


def batch_of(signal, message, sizes=None):
    body = message.SerializeToString()
    items = count(signal, body)
    shares = [(Receipt(size), size) for size in sizes or [items]]
    return Batch(signal, body, items, Origin(), shares)


def rows(body):
    return [
        (span.span_id, span.trace_id, span.name, group.resource.attributes[0].value.string_value, group.schema_url)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


@settings(deadline=None)
@given(RESOURCES, st.integers(1, 300), st.data())
def test_traces_stay_whole_and_their_receipts_are_divided_like_the_spans(resources, destinations, data):
    message = traces_of(resources)
    spans = rows(message.SerializeToString())
    cut = data.draw(st.integers(0, len(spans)))
    batch = batch_of(Signal.TRACES, message, [size for size in (cut, len(spans) - cut) if size] or [0])
    first = {span[0] for span in spans[:cut]} if len(batch.shares) == 2 else {span[0] for span in spans}
    parts = by_trace(batch, lambda key: str(int.from_bytes(key) % destinations))
    assert len({name for name, _ in parts}) == len(parts)
    found = []
    for name, part in parts:
        own = rows(part.body)
        found += own
        assert {str(int.from_bytes(span[1]) % destinations) for span in own} <= {name}
        assert part.items == len(own) == sum(items for _, items in part.shares)
        of_first = sum(items for receipt, items in part.shares if receipt is batch.shares[0][0])
        assert of_first == len([span for span in own if span[0] in first])
    assert sorted(found) == sorted(spans)


@pytest.mark.parametrize(
    ("key", "names", "expected"),
    [
        ("service", (), {"x": "x", "y": "y"}),
        ("resource", (), None),
        ("attributes", ("service.name",), None),
        ("attributes", ("span.name", "missing"), None),
        ("attributes", ("span.kind",), None),
    ],
)
def test_keys_of_spans(key, names, expected):
    message = traces_of([("x", [[(1, "a"), (2, "b")]]), ("y", [[(1, "a")]]), ("x", [[(3, "a")]])])
    batch = batch_of(Signal.TRACES, message)
    keys = []
    parts = divider(key, Signal.TRACES, names)(batch, lambda key: keys.append(key) or repr(key))
    by_key = {name: rows(part.body) for name, part in parts}
    field = {"span.name": 2, "span.kind": 0}.get(names[0] if names else "", 3)
    for own in by_key.values():
        values = {span[field] for span in own} if field else {int.from_bytes(span[0]) % 3 for span in own}
        assert len(values) == 1
    assert sorted(span for own in by_key.values() for span in own) == sorted(rows(batch.body))
    if expected:
        assert sorted(key[2:].decode() for key in {*keys}) == sorted(expected)


def test_order_of_attributes_does_not_make_another_resource():
    message = ExportTraceServiceRequest()
    for keys in ("ab", "ba"):
        group = message.resource_spans.add()
        for key in keys:
            group.resource.attributes.add(key=key).value.string_value = key
        group.scope_spans.add().spans.add(name="x")
    keys = set()
    divider("resource", Signal.TRACES)(batch_of(Signal.TRACES, message), lambda key: keys.add(key) or "one")
    assert len(keys) == 1


def test_metrics_are_divided_by_name_with_all_of_their_points():
    message = ExportMetricsServiceRequest()
    metrics = message.resource_metrics.add().scope_metrics.add().metrics
    for name, points in (("a", 3), ("b", 1), ("a", 2)):
        metric = metrics.add(name=name)
        for _ in range(points):
            metric.gauge.data_points.add(as_int=1)
    parts = divider("metric", Signal.METRICS)(batch_of(Signal.METRICS, message), bytes.decode)
    assert [(name, part.items, count(Signal.METRICS, part.body)) for name, part in parts] == [("a", 5, 5), ("b", 1, 1)]


def test_logs_without_a_trace_are_spread_and_others_stay_with_their_trace():
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number in range(40):
        records.add(severity_number=number % 20, trace_id=b"t" * 16 if number < 20 else b"", time_unix_nano=number)
    keys = []
    divider("traceID", Signal.LOGS)(batch_of(Signal.LOGS, message), lambda key: keys.append(key) or "one")
    assert {*keys[:20]} == {b"t" * 16}
    assert len({*keys[20:]}) == 20


def test_a_signal_without_the_key_is_refused():
    with pytest.raises(ValueError, match="metrics have no key `traceID`"):
        divider("traceID", Signal.METRICS)


@pytest.mark.parametrize("signal", Signal)
def test_empty_and_malformed_requests(signal):
    for key in (key for key, signals in SIGNALS.items() if signal in signals):
        divide = divider(key, signal, ["a"])
        empty = Batch(signal, b"", 0, Origin(), [(Receipt(0), 0)])
        assert [(name, part.items) for name, part in divide(empty, lambda _: "one")] == [("one", 0)]
        with pytest.raises(MalformedError):
            divide(Batch(signal, b"\xff\xff", 1, Origin(), [(Receipt(1), 1)]), lambda _: "one")


def test_one_attribute_of_the_resource_decides():
    batch = batch_of(
        Signal.TRACES, traces_of([("x", [[(1, "a")]]), ("y", [[(1, "a"), (2, "a")]]), ("x", [[(3, "b")]])])
    )
    parts = by_resource_attribute("service.name")(batch, lambda key: key[-1:].decode())
    assert [(name, part.items, {row[3] for row in rows(part.body)}) for name, part in parts] == [
        ("x", 2, {"x"}),
        ("y", 2, {"y"}),
    ]
    assert [name for name, _ in by_resource_attribute("other")(batch, lambda key: f"<{key.decode()}>")] == ["<>"]


def test_the_tenant_decides_about_bodies_that_cannot_be_read():
    batch = Batch(Signal.LOGS, b"sealed", 3, Origin(tenant="acme"), ((Receipt(3), 3),), ("zstd",))
    assert by_tenant(batch, bytes.decode) == [("acme", batch)]
