import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from otelwp_agent.errors import MalformedError
from otelwp_agent.traces import spans
from tests.kit.page_traces import page
from tests.kit.wordpress_traces import put

ID = b"i" * 16


def request(*of):
    """Return a request with a span for each (trace id, span id, parent, start ms, end ms, plugin)."""
    found = ExportTraceServiceRequest()
    scope = found.resource_spans.add().scope_spans.add()
    for trace_id, span_id, parent, start, end, plugin in of:
        span = scope.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name="span",
            start_time_unix_nano=start * 1_000_000,
            end_time_unix_nano=end * 1_000_000,
        )
        if plugin:
            put(span.attributes, {"wordpress.plugin": plugin})
    return found


def test_a_request_is_divided_by_trace():
    body = request((ID, b"a", b"", 0, 9, ""), (b"j" * 16, b"b", b"", 0, 5, ""), (ID, b"c", b"a", 1, 2, "shop"))
    first, second = spans.divide(body.SerializeToString())
    assert (first.trace_id, first.spans, first.owners, second.spans) == (ID, 2, {"shop"}, 1)
    assert [span["id"] for span in spans.spans_of([first.body], 10)[0]] == [b"a".hex(), b"c".hex()]
    assert first.usage["shop"].us == 1000
    assert first.usage["core"].us == 8000


def test_a_summary_has_the_root_span():
    (part,) = spans.divide(page(1, error=True).SerializeToString())
    assert (part.root, part.service, part.errors) == ("GET /{postname}", "shop.example", 1)
    assert part.attributes["http.response.status_code"] == "500"
    assert part.owners == {"woocommerce", "contact-form-7", "slow-related-posts", "seo-suite"}
    assert part.usage["woocommerce"].queries == 1


def test_overlapping_children_count_once():
    body = request((ID, b"a", b"", 0, 10, ""), (ID, b"b", b"a", 1, 6, "x"), (ID, b"c", b"a", 4, 20, "y"))
    (part,) = spans.divide(body.SerializeToString())
    found, _ = spans.spans_of([part.body], 10)
    assert {span["id"]: span["self"] for span in found} == {b"a".hex(): 1000, b"b".hex(): 5000, b"c".hex(): 16000}
    assert list(spans.self_times(found)) == ["y", "x", "core"]


@pytest.mark.parametrize("parent", [b"a", b"c"])
def test_circles_of_parents_are_harmless(parent):
    body = request((ID, b"a", parent, 0, 10, ""), (ID, b"c", b"a", 0, 10, ""))
    (part,) = spans.divide(body.SerializeToString())
    assert all(span["self"] >= 0 for span in spans.spans_of([part.body], 10)[0])


def test_the_root_span_reports_usage():
    body = page(2)
    root = body.resource_spans[0].scope_spans[0].spans[0]
    rows = [json.dumps({"kind": "plugin", "name": "shop", "load_ms": 2, "self_ms": 40, "sql_ms": 30}), "no JSON"]
    root.attributes.add(
        key=spans.USAGE, value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=row) for row in rows]))
    )
    root.trace_state = "ot=th:8"
    (part,) = spans.divide(body.SerializeToString())
    assert (part.measure, part.usage["shop"].us, part.weight) == ("lower_bound", 32_000, 2)
    put(root.attributes, {"wordpress.profile_rate": "0.1"})
    (part,) = spans.divide(body.SerializeToString())
    assert (part.measure, part.usage["shop"].us) == ("profiled", 42_000)


def test_a_sender_cannot_claim_any_weight():
    body = page(3)
    body.resource_spans[0].scope_spans[0].spans[0].trace_state = "ot=th:ffffffffffffff"
    (part,) = spans.divide(body.SerializeToString())
    assert part.weight == spans.LARGEST_WEIGHT


def test_long_names_and_values_are_cut():
    body = request((ID, b"a", b"", 0, 1, "p" * 10_000))
    body.resource_spans[0].scope_spans[0].spans[0].name = "n" * 10_000
    put(body.resource_spans[0].scope_spans[0].spans[0].attributes, {"long": "v" * 10_000})
    (part,) = spans.divide(body.SerializeToString())
    assert len(part.root) == spans.LONGEST_NAME
    assert max(map(len, part.owners)) == spans.LONGEST_NAME
    (span,), _ = spans.spans_of([part.body], 10)
    assert len(span["attributes"]["long"]) == spans.LONGEST_VALUE


def test_every_type_of_value_is_shown():
    values = {
        "text": AnyValue(string_value="a"),
        "true": AnyValue(bool_value=True),
        "7": AnyValue(int_value=7),
        "[a, 1.5]": AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a"), AnyValue(double_value=1.5)])),
        "00ff": AnyValue(bytes_value=b"\x00\xff"),
        "": AnyValue(),
    }
    body = request((ID, b"a", b"", 0, 1, ""))
    span = body.resource_spans[0].scope_spans[0].spans[0]
    for number, value in enumerate(values.values()):
        span.attributes.add(key=str(number), value=value)
    (part,) = spans.divide(body.SerializeToString())
    ((found,), _) = spans.spans_of([part.body], 10)
    assert list(found["attributes"].values()) == ["a", *list(values)[1:]]


def test_invalid_bytes_are_refused():
    with pytest.raises(MalformedError, match="not an export request"):
        spans.divide(b"\xff\xff")
