from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelwp_agent.codecs.jaeger import tags
from otelwp_agent.codecs.jaeger.from_json import decoding
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.signal import Signal
from tests.kit.jaeger import (
    CAPTURES,
    NOW,
    OTHER,
    TRACE,
    attributes_of,
    child_of,
    document,
    one,
    read,
    span,
    spans_of,
    trace,
)
from tests.kit.otlp import full

START = 1795186135546316


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
def test_captures_become_what_a_person_would_draw(capture):
    expected = json.loads(capture.with_name(capture.name + ".expected").read_text("utf-8"))
    for body in (capture.read_bytes(),) * 2:  # the second time, tags are known
        traces = read(body)
        assert document(traces) == expected["otlp"]
        assert traces.repairs == expected["mended"]
        assert traces.spans == 1


def test_jaegers_own_json():
    parent = span(
        spanID="0000000000000001",
        flags=1,
        operationName="GET /",
        tags=[
            {"key": "span.kind", "type": "string", "value": "server"},
            {"key": "otel.scope.name", "type": "string", "value": "wp"},
            {"key": "otel.scope.version", "type": "string", "value": "2"},
            {"key": "w3c.tracestate", "type": "string", "value": "a=b"},
            {"key": "otel.status_code", "type": "string", "value": "ERROR"},
            {"key": "error", "type": "bool", "value": True},
            {"key": "otel.status_description", "type": "string", "value": "boom"},
            {"key": "s", "type": "string", "value": "é"},
            {"key": "b", "type": "bool", "value": True},
            {"key": "i", "type": "int64", "value": -5},
            {"key": "big", "type": "int64", "value": "9223372036854775807"},
            {"key": "f", "type": "float64", "value": 2},
            {"key": "x", "type": "binary", "value": base64.b64encode(b"\0\1").decode()},
        ],
        logs=[
            {
                "timestamp": START + 5,
                "fields": [
                    {"key": "event", "type": "string", "value": "exception"},
                    {"key": "message", "type": "string", "value": "no"},
                ],
            }
        ],
        warnings=["clock skew"],
    )
    child = span(
        spanID="0000000000000002",
        references=[
            {"refType": "FOLLOWS_FROM", "traceID": OTHER, "spanID": "00000000000000aa"},
            {"refType": "CHILD_OF", "traceID": TRACE, "spanID": "0000000000000001"},
        ],
        processID="p2",
    )
    processes = {
        "p1": {"serviceName": "shop", "tags": [{"key": "hostname", "type": "string", "value": "web1"}]},
        "p2": {"serviceName": "blog"},
    }
    traces = read(trace(parent, child, processes=processes))
    assert traces.repairs == {}
    assert traces.service == "shop"
    shop, blog = document(traces)["resourceSpans"]
    assert attributes_of(shop["resource"]) == {"service.name": "shop", "host.name": "web1"}
    assert attributes_of(blog["resource"]) == {"service.name": "blog"}
    assert shop["scopeSpans"][0]["scope"] == {"name": "wp", "version": "2"}
    found = shop["scopeSpans"][0]["spans"][0]
    assert attributes_of(found) == {
        "s": "é",
        "b": True,
        "i": "-5",
        "big": "9223372036854775807",
        "f": 2,
        "x": "AAE=",
        "@jaeger@warnings": {"values": [{"stringValue": "clock skew"}]},
    }
    assert (found["kind"], found["flags"], found["traceState"]) == (2, 1, "a=b")
    assert found["status"] == {"code": 2, "message": "boom"}
    assert found["startTimeUnixNano"] == str(START * 1000)
    assert found["endTimeUnixNano"] == str((START + 87834) * 1000)
    (event,) = found["events"]
    assert (event["name"], event["timeUnixNano"]) == ("exception", str((START + 5) * 1000))
    assert attributes_of(event) == {"message": "no"}
    second = blog["scopeSpans"][0]["spans"][0]
    assert second["parentSpanId"] == "0000000000000001"
    assert [(link["traceId"], link["spanId"], attributes_of(link)) for link in second["links"]] == [
        (OTHER, "00000000000000aa", {"opentracing.ref_type": "follows_from"})
    ]


def test_shapes_around_spans():
    bare = span(processID=None, process={"serviceName": "shop"})
    inner = trace(bare)["data"][0]
    for shape, count in [
        ({"data": [inner]}, 1),
        ({"data": inner}, 1),
        (inner, 1),
        ([inner, {**inner, "spans": [span(spanID="00000000000000bb")]}], 2),
        (bare, 1),
        ([bare, span(spanID="00000000000000bb")], 2),
        ({"data": [bare]}, 1),
        ({"data": [[bare]]}, 1),
        ({"spans": {"0": bare, "1": span(spanID="00000000000000bb")}}, 2),
        ({"data": [inner, {"traceID": OTHER, "spans": [span(traceID=OTHER)]}]}, 2),
        ({"process": {"serviceName": "shop"}, "spans": [span(processID=None)]}, 1),
    ]:
        traces = read(shape)
        assert (traces.spans, traces.service) == (count, "shop"), shape


@pytest.mark.parametrize(
    ("start", "duration", "begin", "end", "kind"),
    [
        (START, 87834, START * 1000, (START + 87834) * 1000, ""),
        (float(START), 87834.0, START * 1000, (START + 87834) * 1000, "time_float"),
        (1.7951878961367e15, 1.5, 1795187896136700000, 1795187896136701500, "time_float"),
        (str(START), "87834", START * 1000, (START + 87834) * 1000, "time_text"),
        (1795186135.546316, 0.087834, START * 1000, (START + 87834) * 1000, "time_in_s"),
        (1795186135546, 87, 1795186135546000000, 1795186135633000000, "time_in_ms"),
        (1795186135546.25, 0.5, 1795186135546250000, 1795186135546750000, "time_in_ms"),
        (1.795187896136636e18, 1000, 1795187896136636000, 1795187896136637000, "time_in_ns"),
        (START * 1000 + 7, 3, START * 1000 + 7, START * 1000 + 10, "time_in_ns"),
        ("2026-11-20T16:00:00.5Z", 1, 1795190400500000000, 1795190400500001000, "time_text"),
        (START, -5, START * 1000, START * 1000, "negative_duration"),
        (START, None, START * 1000, START * 1000, "duration_missing"),
        (START, 1e300, START * 1000, START * 1000, "duration_out_of_range"),
        (None, 1000, NOW - 1_000_000, NOW, "time_missing"),
        ("yesterday", 1000, NOW - 1_000_000, NOW, "time_missing"),
        (0, 0, NOW, NOW, "time_missing"),
        (-1, 0, NOW, NOW, "time_missing"),
        (1e30, 0, NOW, NOW, "time_missing"),
    ],
)
def test_times_in_every_unit_and_form(start, duration, begin, end, kind):
    found, repairs = one(startTime=start, duration=duration)
    assert int(found["startTimeUnixNano"]) == pytest.approx(begin, abs=300 if isinstance(start, float) else 0)
    length = int(found["endTimeUnixNano"]) - int(found["startTimeUnixNano"])
    assert length == pytest.approx(end - begin, abs=1)
    assert not kind or kind in repairs


@pytest.mark.parametrize(
    ("tags", "attributes", "repairs"),
    [
        ([], {}, {}),
        (None, {}, {}),
        ({}, {}, {}),
        ([{"key": "a", "value": 1}], {"a": "1"}, {"tag_without_type": 1}),
        ({"a": "x", "b": 2, "0": {"key": "c", "value": True}}, {"a": "x", "b": "2", "c": True}, {"tags_map": 1}),
        ([{"key": "a", "type": "string", "value": None}], {}, {"null_value": 1}),
        ([{"key": "a", "type": "int64", "value": "x"}], {"a": "x"}, {"tag_type": 1}),
        ([{"key": "a", "type": "bool", "value": "true"}], {"a": True}, {}),
        ([{"key": "a", "type": "binary", "value": "%"}], {"a": "%"}, {"tag_type": 1}),
        ([{"key": "a", "type": "nonsense", "value": "%"}], {"a": "%"}, {"tag_type": 1}),
        ([{"key": "a", "type": "string", "value": {"b": [1]}}], {"a": '{"b":[1]}'}, {"tag_type": 1, "nested_value": 1}),
        ([{"key": "a", "type": "int64", "value": 1 << 63}], {"a": str(1 << 63)}, {"integer_out_of_range": 1}),
        ([{"key": 7, "type": "string", "value": "x"}], {"7": "x"}, {"tag_key": 1}),
        ([1, {"value": 1, "type": ""}, {"key": "", "type": "", "value": 1}], {}, {"tags_dropped": 3}),
        ("x", {}, {"tags_dropped": 1}),
    ],
)
def test_tags_in_every_shape(tags, attributes, repairs):
    for _ in range(2):  # the second time, tags are known
        found, counted = one(tags=tags)
        assert attributes_of(found) == attributes
        assert repairs.items() <= counted.items()


def test_what_is_equal_in_python_is_not_the_same_tag():
    """1, 1.0 and true are equal, and so are 0.0 and -0.0."""
    for value, text in [(1, {"intValue": "1"}), (True, {"boolValue": True}), (1.0, {"doubleValue": 1.0})] * 2:
        found, _ = one(tags=[{"key": "k", "value": value}])
        assert found["attributes"][0]["value"] == text
    for type_, value, text in [
        ("int64", 1, {"intValue": "1"}),
        ("bool", True, {"boolValue": True}),
        ("float64", 1, {"doubleValue": 1.0}),
        ("float64", 0.0, {"doubleValue": 0.0}),
        ("float64", -0.0, {"doubleValue": -0.0}),
        ("string", "1", {"stringValue": "1"}),
    ] * 2:
        found, _ = one(tags=[{"key": "k", "type": type_, "value": value}])
        assert repr(found["attributes"][0]["value"]) == repr(text)


def test_a_second_status_is_an_attribute_in_its_own_span_alone():
    status = [{"key": "http.status_code", "type": "int64", "value": value} for value in (404, 500)]
    for _ in range(3):
        one(tags=status)
        found, _ = one(tags=status[1:])
        assert found["status"] == {"code": 2}


def test_known_tags_are_bounded(monkeypatch):
    monkeypatch.setattr(tags, "MAX_ENTRIES", 10)
    for number in range(50):
        one(tags=[{"key": f"key {number}", "type": "string", "value": "x"}, {"key": "x", "value": "y" * 200}])
    assert len(tags.known_tags) <= 10


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ([("error", True)], {"code": 2}),
        ([("error", "true")], {"code": 2}),
        ([("error", False)], None),
        ([("error", True), ("otel.status_code", "OK")], {"code": 2}),
        ([("otel.status_code", "ok")], {"code": 1}),
        ([("otel.status_code", "ERROR"), ("otel.status_description", "no")], {"code": 2, "message": "no"}),
        ([("error", True), ("http.status_message", "Bad Gateway")], {"code": 2, "message": "Bad Gateway"}),
        ([("http.status_code", 200)], None),
        ([("http.status_code", 404)], {"code": 2}),
        ([("http.status_code", 404), ("span.kind", "server")], None),
        ([("span.kind", "server"), ("http.status_code", 500)], {"code": 2}),
        ([("http.response.status_code", "503"), ("span.kind", "server")], {"code": 2}),
        ([("span.kind", "client"), ("http.status_code", 404)], {"code": 2}),
        ([("http.status_code", False)], None),
    ],
)
def test_status(tags, status):
    for _ in range(2):
        found, _ = one(tags=[{"key": key, "value": value} for key, value in tags])
        assert found.get("status") == status


def test_kinds():
    for number, kind in enumerate(["internal", "server", "client", "producer", "consumer"], 1):
        found, _ = one(tags=[{"key": "span.kind", "type": "string", "value": kind}])
        assert (found["kind"], attributes_of(found)) == (number, {})
    found, _ = one(tags=[{"key": "span.kind", "type": "string", "value": "odd"}])
    assert ("kind" in found, attributes_of(found)) == (False, {"span.kind": "odd"})


def test_the_founding_plugins_404_is_no_error():
    found, _ = one(operationName="wordpress.request", tags=[{"key": "http.status_code", "value": 404}])
    assert (found["kind"], found.get("status")) == (2, None)
    found, _ = one(operationName="wordpress.request", tags=[{"key": "http.status_code", "value": 500}])
    assert (found["kind"], found["status"]) == (2, {"code": 2})


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (json.dumps(trace(span(operationName="Café")), ensure_ascii=False).encode("latin-1"), "Café"),
        (json.dumps(trace(span(operationName="€ Café")), ensure_ascii=False).encode().replace(b"\xc3", b""), "€ Caf©"),
        (json.dumps(trace(span(operationName="XX"))).encode().replace(b"XX", b"a\\ud800b"), "a\ufffdb"),
        (json.dumps(trace(span(operationName="XX"))).encode().replace(b"XX", b"a\\udc00b"), "a\ufffdb"),
        (b"\xef\xbb\xbf" + json.dumps(trace(span(operationName="a"))).encode(), "a"),
        (json.dumps(trace(span(operationName="\U0001f600 / é"))).encode().replace(b"/", b"\\/"), "\U0001f600 / é"),
    ],
)
def test_text_that_is_not_utf_8(body, name):
    assert spans_of(read(body))[0]["name"] == name


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 2000 + b"]" * 2000, "not JSON"),
        (b"1", "the body: "),
        (b'"text"', "the body: "),
        (b'{"merchant_id":"7b0c"}', "the body: "),
        (b'{"data":[{"traceID":"a"}]}', "data[0]: "),
        (b'{"data":[{"traceID":"a","spans":["x"]}]}', "data[0].spans[0]: "),
        (b"[1]", "the body[0]: "),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(body, place):
    with pytest.raises(MalformedError) as error:
        read(body)
    assert place in str(error.value)


def test_what_can_be_used_is_taken_and_the_rest_counted():
    traces = read(trace(span(), None, 7, "x"))
    assert (traces.spans, traces.repairs) == (1, {"span_dropped": 3})


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data":[]}', b'{"data":null}', b'{"data":[{"spans":[]}]}'])
def test_nothing_is_nothing(body):
    traces = read(body)
    assert (traces.spans, traces.body(), traces.repairs) == (0, b"", {})


def test_odd_processes_and_logs():
    traces = read(trace(span(), processes=[]))
    assert traces.repairs == {"process_missing": 1}
    traces = read(trace(span(), processes={"p1": []}))
    assert "resource" in document(traces)["resourceSpans"][0] or traces.spans == 1
    traces = read(trace(span(logs={"0": {"timestamp": None, "fields": {"message": "hello", "n": 1}}, "1": 5})))
    (event,) = spans_of(traces)[0]["events"]
    assert (event["name"], event["timeUnixNano"]) == ("hello", str(START * 1000))
    assert attributes_of(event) == {"n": "1"}
    assert traces.repairs == {"map_for_list": 1, "log_dropped": 1, "time_missing": 1, "tags_map": 1}


def test_a_hundred_thousand_spans_come_in_steps():
    body = json.dumps(trace(*[child_of(number, number // 2, tags=[]) for number in range(1, 100_001)])).encode()
    steps = decoding(body, NOW)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            traces = stop.value
            break
        count += 1
    assert (traces.spans, count) == (100_000, 195)
    assert len(full(Signal.TRACES, traces.body()).resource_spans[0].scope_spans[0].spans) == 100_000


def test_many_small_traces_come_in_steps():
    one = trace(span())["data"][0]
    steps = decoding(json.dumps({"data": [one, *[[[]]] * 2000]}).encode(), NOW)
    assert sum(1 for _ in steps) == 2 * 2000 // 512


KEYS = [*trace()["data"][0], *span(), "data", "process", "refType", "fields", "timestamp", "key", "value", "type",
        "serviceName", "flags", "warnings", "parentSpanID", "p1"]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([TRACE, "d20dab9aa6a9eaf4", "CHILD_OF", "span.kind", "error", "http.status_code", START]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(JSON, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_is_taken_or_refused(odd, seed):
    """Odd values in every place of a regular body, and odd bodies: what is taken is OTLP that parses."""
    draw = random.Random(seed)
    regular = trace(span(), span(spanID="1" * 16))
    where, key = draw.choice(
        [
            (regular["data"][0], draw.choice([*regular["data"][0], "process"])),
            (regular["data"][0]["spans"][0], draw.choice([*span(), "process", "flags", "warnings", "parentSpanID"])),
            (regular["data"][0]["processes"], "p1"),
        ]
    )
    where[key] = odd
    for body in (regular, odd):
        try:
            traces = read(body)
        except MalformedError:
            continue
        found = spans_of(traces)
        assert len(found) == traces.spans
        full(Signal.TRACES, traces.body())
        for each in found:
            assert (len(each["traceId"]), len(each["spanId"])) == (32, 16)
            assert int(each["traceId"], 16)
            assert int(each["spanId"], 16)
            assert int(each["startTimeUnixNano"]) <= int(each["endTimeUnixNano"])
            assert each["name"]
