"""Every item goes to exactly the destinations that its rules say, whatever the request looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import count
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.division import batch_of, divide
from otelwp_agent.routing.parser import parse
from otelwp_agent.routing.table import RoutingRule, RoutingTable

SPANS = st.tuples(st.integers(0, 3), st.sampled_from("abc"))
"""A trace and a name."""
REQUESTS = st.lists(st.tuples(st.sampled_from("xyz"), st.lists(st.lists(SPANS, max_size=4), max_size=3)), max_size=4)
"""Resources with a service and the spans of their scopes."""
RULES = [
    ('resource.attributes["service.name"] == "x"', "to-x", False),
    ('name == "a"', "to-a", True),
    ('name == "b" and resource.attributes["service.name"] == "y"', "to-by", False),
    ('resource.attributes["service.name"] == "z"', "to-z", False),
]


def table(rules=RULES, default=("rest",), signal=Signal.TRACES, context="span"):
    return RoutingTable([RoutingRule(t, parse(t, context, signal), (to,), copies) for t, to, copies in rules], default)


def matches(text, service, name):
    return {
        RULES[0][0]: service == "x",
        RULES[1][0]: name == "a",
        RULES[2][0]: name == "b" and service == "y",
        RULES[3][0]: service == "z",
    }[text]


def expected(rules, matched):
    """Return the destinations of an item that matches the rules with these numbers."""
    found = []
    for number, (_, target, copies) in enumerate(rules):
        if number in matched:
            found.append(target)
            if not copies:
                return tuple(found)
    return (*found, "rest")


def request_of(resources):
    request, number = ExportTraceServiceRequest(), 0
    for service, scopes in resources:
        group = request.resource_spans.add(schema_url=f"schema {service}")
        group.resource.attributes.add(key="service.name").value.string_value = service
        for spans in scopes:
            scope = group.scope_spans.add()
            scope.scope.name = f"scope {service}"
            for trace, name in spans:
                number += 1
                scope.spans.add(trace_id=bytes([trace]) * 16, span_id=number.to_bytes(8), name=name)
    return request


def rows(body):
    """Return (span id, trace, name, service, scope, schema) of each span in a request."""
    return [
        (
            int.from_bytes(span.span_id),
            span.trace_id[:1],
            span.name,
            group.resource.attributes[0].value.string_value,
            scope.scope.name,
            group.schema_url,
        )
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


@given(REQUESTS, st.sets(st.integers(0, 3)), st.booleans())
def test_every_span_goes_where_the_rules_say(resources, numbers, whole_traces):
    rules = [RULES[number] for number in sorted(numbers)]
    body = request_of(resources).SerializeToString()
    routed = divide(table(rules), Signal.TRACES, body, Origin(), whole_traces=whole_traces)
    spans = rows(body)
    own = {
        span[0]: {number for number, (text, _, _) in enumerate(rules) if matches(text, span[3], span[2])}
        for span in spans
    }
    reads_spans = any("name ==" in text for text, _, _ in rules)
    wanted = {}
    for span in spans:
        matched = own[span[0]]
        if whole_traces and reads_spans:
            matched = set().union(*(_tried(rules, own[other[0]], other) for other in spans if other[1] == span[1]))
        wanted[span[0]] = expected(rules, matched)
    got = {}
    for part in routed:
        for span in rows(part.body):
            assert span[0] not in got, "a span is in two parts"
            got[span[0]] = part.targets
            assert span in spans, "a span has lost its resource, scope or schema"
    assert got == wanted
    assert len({part.targets for part in routed}) == len(routed)


def _tried(rules, matched, span):
    """Return the matching rules that are tried for a span: not those behind a rule that its resource decides."""
    for number, (text, _, copies) in enumerate(rules):
        if "name ==" not in text and not copies and number in matched:
            return {each for each in matched if each <= number}
    return matched


@given(REQUESTS, st.lists(st.integers(1, 5), min_size=1))
def test_receipts_get_the_outcome_of_their_items(resources, sizes):
    body = request_of(resources).SerializeToString()
    total = count(Signal.TRACES, body)
    shares, left = [], total
    for size in sizes:
        if left:
            items = min(size, left)
            shares.append((Receipt(items), items))
            left -= items
    if left:
        shares.append((Receipt(left), left))
    batch = Batch(Signal.TRACES, body, total, Origin(), shares)
    routed = divide(table(), Signal.TRACES, body, Origin(), whole_traces=False)
    parts = [batch_of(batch, part) for part in routed]
    assert sum(part.items for part in parts) == total
    for part in parts:
        assert count(Signal.TRACES, part.body) == part.items == sum(items for _, items in part.shares)
        part.settle(Outcome.DELIVERED)
    assert all(receipt.pending == 0 for receipt, _ in shares)


def test_a_request_with_one_destination_is_forwarded_as_it_is():
    body = request_of([("x", [[(1, "a")]]), ("x", [[(2, "b")]])]).SerializeToString()
    (part,) = divide(table(), Signal.TRACES, body, Origin(), whole_traces=True)
    assert part.body is body
    assert part.targets == ("to-x",)
    assert part.places is None


def test_resources_are_not_read_for_rules_about_the_request():
    rules = [('request.tenant == "acme"', "acme", False)]
    (part,) = divide(table(rules), Signal.TRACES, b"sealed", Origin("", "", "acme"), whole_traces=True)
    assert part == (("acme",), b"sealed", None)


def test_a_request_cut_between_resources_keeps_its_items_in_order():
    body = request_of([("x", [[(1, "a")], [(1, "b"), (2, "c")]]), ("q", [[(2, "a")]]), ("x", [[(3, "a")]])])
    routed = divide(table(RULES[:1]), Signal.TRACES, body.SerializeToString(), Origin(), whole_traces=True)
    assert [(part.targets, [span[0] for span in rows(part.body)], [*part.places]) for part in routed] == [
        (("to-x",), [1, 2, 3, 5], [0, 1, 2, 4]),
        (("rest",), [4], [3]),
    ]


def test_metrics_go_with_all_their_points():
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for name, points in (("a", 2), ("b", 3), ("empty", 0), ("a", 1)):
        metric = scope.metrics.add(name=name)
        for value in range(points):
            metric.gauge.data_points.add(as_int=value)
    body = request.SerializeToString()
    rules = [('name == "a"', "to-a", False)]
    first, second = divide(
        table(rules, signal=Signal.METRICS, context="metric"), Signal.METRICS, body, Origin(), whole_traces=True
    )
    assert (first.targets, [*first.places]) == (("to-a",), [0, 1, 5])
    assert (second.targets, [*second.places]) == (("rest",), [2, 3, 4])
    assert [
        metric.name
        for metric in ExportMetricsServiceRequest.FromString(second.body).resource_metrics[0].scope_metrics[0].metrics
    ] == ["b", "empty"]


def test_log_records_by_severity():
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in (9, 17, 13):
        records.add(severity_number=number)
    rules = [("severity_number >= SEVERITY_NUMBER_ERROR", "errors", False)]
    routed = divide(
        table(rules, signal=Signal.LOGS, context="log"),
        Signal.LOGS,
        request.SerializeToString(),
        Origin(),
        whole_traces=True,
    )
    assert [(part.targets, [*part.places]) for part in routed] == [(("rest",), [0, 2]), (("errors",), [1])]


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05\x12\x03\x12\x01\xff"])
def test_a_malformed_request_is_refused(body):
    with pytest.raises(MalformedError):
        divide(table(), Signal.TRACES, body, Origin(), whole_traces=True)
