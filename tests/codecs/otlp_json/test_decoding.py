from __future__ import annotations

import math
import random
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.codecs.otlp_json import decode, encode
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.projections import check
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import full, meaning, signals_and_requests
from tests.kit.otlp_json import CAPTURES, IDS, reference_meaning

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"

WIDE = {"intValue", "asInt", "count", "zeroCount", "startTimeUnixNano", "endTimeUnixNano", "timeUnixNano"}
"""Fields of 64-bit integers."""

ENUMS = {
    "kind": ["SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT"],
    "code": ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"],
    "severityNumber": ["SEVERITY_NUMBER_UNSPECIFIED", "SEVERITY_NUMBER_TRACE"],
}


def a_span(**fields):
    span = {"traceId": TRACE_ID, "spanId": SPAN_ID, **fields}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def decoded_span(**fields):
    return full(Signal.TRACES, decode(Signal.TRACES, orjson.dumps(a_span(**fields)))).resource_spans[0].scope_spans[
        0
    ].spans[0]  # fmt: skip


def decoded_value(value):
    return decoded_span(attributes=[{"key": "k", "value": value}]).attributes[0].value


def decoded_point(kind, **fields):
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", kind: {"dataPoints": [fields]}}]}]}]}
    request = full(Signal.METRICS, decode(Signal.METRICS, orjson.dumps(document)))
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    return getattr(metric, metric.WhichOneof("data")).data_points[0]


def known(signal, body):
    """Return what a request means but for unknown fields, which JSON cannot hold."""
    message = full(signal, body)
    message.DiscardUnknownFields()
    return message.SerializeToString(deterministic=True)


@given(signals_and_requests(repeats=True))
def test_what_was_encoded_comes_back(pair):
    signal, body = pair
    text = encode(signal, body)
    back = decode(signal, text)
    assert meaning(signal, back) == known(signal, body)
    assert encode(signal, back) == text
    assert check(signal, back) == check(signal, body)


@given(signals_and_requests())
def test_reads_what_protobuf_reads(pair):
    signal, body = pair
    document = orjson.loads(encode(signal, body))
    assert meaning(signal, decode(signal, orjson.dumps(document))) == reference_meaning(signal, document)


def respelled(document, draw):
    """Return the document as other senders would write it: other names, other forms of values, noise between them."""
    if isinstance(document, list):
        return [respelled(value, draw) for value in document]
    if not isinstance(document, dict):
        return document
    if not document:
        return draw.choice([{}, [], {"unknown": 1}])
    out = {}
    for key, value in document.items():
        snake = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), key)
        out[draw.choice([key, snake])] = respelled(draw.choice(spellings(key, value)), draw)
    if draw.random() < 0.3:
        out["notOfThisVersion"] = {"traceId": 5, "deeper": [None, {"x": [1.5]}]}
    if draw.random() < 0.3 and "dropped_attributes_count" not in out:
        out.setdefault("droppedAttributesCount", None)
    return out


def spellings(key, value):
    """Return the ways to write a field's value."""
    if key in IDS:
        return [value, value.upper()]
    if key in WIDE:
        number = int(value)
        return [value, number, float(number) if number == float(number) < 1 << 63 else number]
    if key in ENUMS and type(value) is int and 0 <= value < len(ENUMS[key]):
        return [value, str(value), float(value), ENUMS[key][value]]
    if key == "bytesValue":
        return [value, value.rstrip("="), value.replace("+", "-").replace("/", "_")]
    return [value]


@given(signals_and_requests(), st.randoms(use_true_random=True))
def test_reads_every_spelling(pair, draw):
    signal, body = pair
    text = encode(signal, body)
    other = orjson.dumps(respelled(orjson.loads(text), draw))
    assert meaning(signal, decode(signal, other)) == meaning(signal, decode(signal, text))


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
def test_reads_what_real_senders_wrote(capture):
    data = capture.read_bytes()
    body = decode(Signal.TRACES, data)
    assert meaning(Signal.TRACES, body) == reference_meaning(Signal.TRACES, orjson.loads(data))
    spans = [
        span
        for resource in orjson.loads(data)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert check(Signal.TRACES, body) == len(spans) >= 1
    # What the PHP SDK leaves out and what it writes is what we leave out and write.
    assert orjson.loads(encode(Signal.TRACES, body)) == orjson.loads(data)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": "x"}, "x"),
        ({"string_value": ""}, ""),
        ({"stringValue": "x" * 300}, "x" * 300),
        ({"boolValue": False}, False),
        ({"intValue": "-9223372036854775808"}, -(1 << 63)),
        ({"intValue": 9223372036854775807}, (1 << 63) - 1),
        ({"intValue": "0007"}, 7),
        ({"intValue": "+7"}, 7),
        ({"intValue": 1.7e18}, 1_700_000_000_000_000_000),
        ({"intValue": "1.7e18"}, 1_700_000_000_000_000_000),
        ({"intValue": -0.0}, 0),
        ({"doubleValue": 1}, 1.0),
        ({"doubleValue": "2.5e-3"}, 0.0025),
        ({"doubleValue": "-Infinity"}, -math.inf),
        ({"doubleValue": "1e999"}, math.inf),
        ({"bytesValue": "_-8="}, b"\xff\xef"),
        ({"bytesValue": "/+8"}, b"\xff\xef"),
        ({"bytesValue": ""}, b""),
    ],
)
def test_values(value, expected):
    got = decoded_value(value)
    result = getattr(got, got.WhichOneof("value"))
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [{}, [], None, {"other": 1}, {"stringValue": None}])
def test_an_empty_value_is_a_value(value):
    span = decoded_span(attributes=[{"key": "k", "value": value}])
    assert span.attributes[0].key == "k"
    assert span.attributes[0].value.WhichOneof("value") is None
    assert span.attributes[0].HasField("value") is (value is not None)


def test_lists_and_maps_as_php_writes_them():
    value = decoded_value({"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": []}}, None]}})
    assert value.kvlist_value.values[0].value.WhichOneof("value") == "array_value"
    assert len(value.kvlist_value.values) == 2
    assert decoded_value({"arrayValue": {"values": [None, {"intValue": 1}]}}).array_value.values[1].int_value == 1
    assert full(Signal.TRACES, decode(Signal.TRACES, b"[]")).resource_spans == []
    assert decode(Signal.LOGS, b'{"resourceLogs":null}') == b""


def test_ids_that_need_not_be_there():
    assert decoded_span(parentSpanId="").parent_span_id == b""
    assert decoded_span(traceId="0" * 32, spanId="F" * 16).span_id == b"\xff" * 8
    log = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": "", "spanId": "", "body": {}}]}]}]}
    record = full(Signal.LOGS, decode(Signal.LOGS, orjson.dumps(log))).resource_logs[0].scope_logs[0].log_records[0]
    assert (record.trace_id, record.span_id, record.HasField("body")) == (b"", b"", True)


def test_numbers_of_points():
    point = decoded_point("exponentialHistogram", scale=-3, positive={"offset": "-2", "bucketCounts": ["1", 300, 2.0]})
    assert (point.scale, point.positive.offset, list(point.positive.bucket_counts)) == (-3, -2, [1, 300, 2])
    point = decoded_point("histogram", bucketCounts=["1", 2], explicitBounds=[0.5, 1, "Infinity"], min="NaN", sum=-0.0)
    assert list(point.bucket_counts) == [1, 2]
    assert list(point.explicit_bounds) == [0.5, 1.0, math.inf]
    assert math.isnan(point.min)
    assert not point.HasField("max")
    assert math.copysign(1, point.sum) == -1
    assert decoded_point("sum", asInt="-5").as_int == -5
    assert decoded_point("summary", quantileValues=[{"quantile": 0.5, "value": 2}]).quantile_values[0].value == 2


SPAN = "resourceSpans[0].scopeSpans[0].spans[0]"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"traceId": TRACE_ID[1:]}, "traceId: 31 hex digits: a trace id has 32"),
        ({"traceId": ""}, "traceId: 0 hex digits: a trace id has 32"),
        ({"traceId": SPAN_ID}, "traceId: 16 hex digits: a trace id has 32"),
        ({"spanId": "zz" * 8}, "spanId: not hex digits only: a span id has 16 hex digits"),
        ({"spanId": "é" * 16}, "spanId: not hex digits only: a span id has 16 hex digits"),
        ({"spanId": 12}, "spanId: a number, where a span id of 16 hex digits belongs"),
        ({"span_id": True}, "span_id: a boolean, where a span id of 16 hex digits belongs"),
        ({"parentSpanId": "00"}, "parentSpanId: 2 hex digits: a span id has 16"),
        ({"name": 5}, "name: a number, where a string belongs"),
        ({"name": ["x"]}, "name: a list, where a string belongs"),
        ({"startTimeUnixNano": "-1"}, "startTimeUnixNano: out of range: an integer from 0 to 18446744073709551615"),
        ({"startTimeUnixNano": -1}, "startTimeUnixNano: out of range: an integer from 0"),
        ({"startTimeUnixNano": "18446744073709551616"}, "startTimeUnixNano: out of range"),
        ({"startTimeUnixNano": 1e20}, "startTimeUnixNano: out of range"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano: a number, where an integer from 0"),
        ({"startTimeUnixNano": ""}, "startTimeUnixNano: a string, where an integer from 0"),
        ({"startTimeUnixNano": "1_0"}, "startTimeUnixNano: a string, where an integer"),
        ({"startTimeUnixNano": "١٢"}, "startTimeUnixNano: a string, where an integer"),
        ({"startTimeUnixNano": "[1]"}, "startTimeUnixNano: a string, where an integer"),
        ({"startTimeUnixNano": "true"}, "startTimeUnixNano: a string, where an integer"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano: a boolean, where an integer"),
        ({"startTimeUnixNano": {}}, "startTimeUnixNano: an object, where an integer"),
        ({"startTimeUnixNano": "9" * 5000}, "startTimeUnixNano: a string, where an integer"),
        ({"droppedAttributesCount": 1 << 32}, "droppedAttributesCount: out of range: an integer from 0 to 4294967295"),
        ({"flags": False}, "flags: a boolean, where an integer from 0 to 4294967295 belongs"),
        ({"kind": "SERVER"}, "kind: not a name of a SpanKind: write one of SPAN_KIND_UNSPECIFIED, SPAN_KIND_INTERNAL,"),
        ({"kind": True}, "kind: a boolean, where an integer"),
        ({"kind": 1 << 31}, "kind: out of range"),
        ({"status": "ok"}, "status: a string, where an object belongs"),
        ({"status": [1]}, "status: a list, where an object belongs"),
        ({"attributes": {"a": 1}}, "attributes: an object, where a list belongs"),
        ({"attributes": [1]}, "attributes[0]: a number, where an object belongs"),
        ({"attributes": [{"key": "a"}, {"key": 1}]}, "attributes[1].key: a number, where a string belongs"),
        (
            {"attributes": [{"key": 1, "value": {"stringValue": "x"}}]},
            "attributes[0].key: a number, where a string belongs",
        ),
        (
            {"attributes": [{"key": [], "value": {"intValue": "1"}}]},
            "attributes[0].key: a list, where a string belongs",
        ),
        (
            {"attributes": [{"key": "k", "value": "x"}]},
            "attributes[0].value: a string, where an object belongs",
        ),
        (
            {"attributes": [{"key": "k", "value": {"stringValue": 1}}]},
            "attributes[0].value.stringValue: a number, where a string belongs",
        ),
        (
            {"attributes": [{"key": "k", "value": {"intValue": []}}]},
            "attributes[0].value.intValue: a list, where an integer",
        ),
        (
            {"events": [{}, {"attributes": [{"value": {"intValue": True}}]}]},
            "events[1].attributes[0].value.intValue: a",
        ),
        (
            {"attributes": [{"key": "k", "value": {"boolValue": 1}}]},
            "attributes[0].value.boolValue: a number, where true",
        ),
        (
            {"attributes": [{"key": "k", "value": {"boolValue": "true"}}]},
            "value.boolValue: a string, where true or false",
        ),
        (
            {"attributes": [{"key": "k", "value": {"doubleValue": True}}]},
            "value.doubleValue: a boolean, where a number",
        ),
        (
            {"attributes": [{"key": "k", "value": {"doubleValue": "nan"}}]},
            "value.doubleValue: a string, where a number",
        ),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "a"}}]}, "value.bytesValue: not base64"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "a*b="}}]}, "value.bytesValue: not base64"),
        ({"links": [{"traceId": "", "spanId": SPAN_ID}]}, "links[0].traceId: 0 hex digits: a trace id has 32"),
    ],
)
def test_says_what_is_wrong_and_where(fields, problem):
    with pytest.raises(MalformedError) as caught:
        decode(Signal.TRACES, orjson.dumps(a_span(**fields)))
    assert str(caught.value).startswith(SPAN)
    assert problem in str(caught.value)
    assert caught.value.__suppress_context__


def test_names_the_place_in_lists_of_numbers():
    with pytest.raises(MalformedError, match=r"dataPoints\[0\].bucketCounts\[1\]: out of range"):
        decoded_point("histogram", bucketCounts=["1", "-1"])
    with pytest.raises(MalformedError, match=r"dataPoints\[0\].explicitBounds: an object, where a list"):
        decoded_point("histogram", explicitBounds={})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"null", "the body: null, where an object belongs"),
        (b"[1]", "the body: a list, where an object belongs"),
        (b'"x"', "the body: a string, where an object belongs"),
        (b'{"resourceSpans":{}}', "resourceSpans: an object, where a list belongs"),
        (b'{"resourceSpans":[NaN]}', "not JSON"),
        (b'{"resourceSpans":[{"schemaUrl":"\xff"}]}', "not JSON"),
        (b'{"resourceSpans":[{"schemaUrl":"\\ud800"}]}', "not JSON"),
        (b'{"resourceSpans":' + b"[" * 5000, "not JSON"),
        (b"\n\x00\x12", "not JSON"),
    ],
)
def test_what_is_no_request(data, problem):
    with pytest.raises(MalformedError, match=problem):
        decode(Signal.TRACES, data)


def nested(levels):
    """Return a request, an attribute of which is a list of a list of …, so many levels deep."""
    frame = orjson.dumps(a_span(attributes=[{"key": "k", "value": {"stringValue": "deep"}}]))
    value = b'{"stringValue":"deep"}'
    return frame.replace(value, b'{"arrayValue":{"values":[' * levels + value + b"]}}" * levels)


def test_nests_as_deep_as_protobuf_reads():
    body = decode(Signal.TRACES, nested(40))
    assert decode(Signal.TRACES, encode(Signal.TRACES, body)) == body
    for levels in (60, 300):
        with pytest.raises(MalformedError, match="…: nested too deeply: 100 levels"):
            decode(Signal.TRACES, nested(levels))
    deepest = max(levels for levels in range(40, 60) if _decodes(nested(levels)))
    full(Signal.TRACES, decode(Signal.TRACES, nested(deepest)))


def _decodes(data):
    try:
        decode(Signal.TRACES, data)
    except MalformedError:
        return False
    return True


def test_no_value_stands_in_a_message():
    for fields in (
        {"traceId": "my secret"},
        {"kind": "my secret"},
        {"flags": "my secret"},
        {"my secret": 1, "name": 1},
    ):
        with pytest.raises(MalformedError) as caught:
            decode(Signal.TRACES, orjson.dumps(a_span(**fields)))
        assert "my secret" not in str(caught.value)


@given(signals_and_requests(unknown=False), st.randoms(use_true_random=True))
def test_broken_json_is_malformed_or_read(pair, draw):
    signal, body = pair
    text = bytearray(encode(signal, body))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        text[at : at + draw.randint(0, 3)] = draw.choice(
            [b"", b"1", b"null", b"[]", b"{}", b'"', b"true", b"-1", b"\xff"]
        )
    try:
        decoded = decode(signal, bytes(text))
    except MalformedError:
        return
    full(signal, decoded)


def test_the_same_draw_gives_the_same_request():
    # Failing examples are reported as the call that made them; that only helps if it makes them again.
    from tests.kit.otlp import Maker

    first, second = (Maker(random.Random(7), repeats=True).request(Signal.METRICS) for _ in range(2))
    assert first == second
