from __future__ import annotations

import orjson
import pytest
from hypothesis import given

from otelwp_agent.codecs.otlp_json import encode, encoding
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import delimited, full, signals_and_requests
from tests.kit.otlp_json import CAPTURES, reference_document


@given(signals_and_requests(repeats=True))
def test_writes_what_protobuf_writes_but_ids_in_hex(pair):
    signal, body = pair
    assert orjson.loads(encode(signal, body)) == reference_document(signal, body)


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.pb")), ids=lambda path: path.stem)
def test_writes_what_real_senders_sent(capture):
    body = capture.read_bytes()
    text = encode(Signal.TRACES, body)
    assert orjson.loads(text) == reference_document(Signal.TRACES, body)
    assert b"\n" not in text


def test_writes_the_same_from_memory():
    body = (CAPTURES / "php-sdk.pb").read_bytes()
    assert encode(Signal.TRACES, body) == encode(Signal.TRACES, body)
    assert encode(Signal.TRACES, body + body).count(b'"service.name"') == 2


def test_writes_each_form():
    request = full(Signal.TRACES, b"")
    span = request.resource_spans.add(schema_url='quo"te').scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.kind, span.flags = b"\xab" * 16, b"\xcd" * 8, 3, 257
    span.start_time_unix_nano = (1 << 64) - 1
    span.status.code = 2
    for key, value in {
        "s": {"string_value": "ключ\n"},
        "b": {"bool_value": True},
        "i": {"int_value": -1},
        "d": {"double_value": 0.1},
        "n": {"double_value": float("nan")},
        "p": {"double_value": float("inf")},
        "m": {"double_value": float("-inf")},
        "r": {"bytes_value": b"\xff\xef\x00"},
        "a": {"array_value": {"values": [{"int_value": 1}, {}]}},
        "k": {"kvlist_value": {"values": [{"key": "x", "value": {"string_value": ""}}]}},
        "e": {},
    }.items():
        span.attributes.add(key=key, value=value)
    assert encode(Signal.TRACES, request.SerializeToString()).decode() == (
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abababababababababababababababab",'
        '"spanId":"cdcdcdcdcdcdcdcd","kind":3,"startTimeUnixNano":"18446744073709551615","attributes":['
        '{"key":"s","value":{"stringValue":"ключ\\n"}},'
        '{"key":"b","value":{"boolValue":true}},'
        '{"key":"i","value":{"intValue":"-1"}},'
        '{"key":"d","value":{"doubleValue":0.1}},'
        '{"key":"n","value":{"doubleValue":"NaN"}},'
        '{"key":"p","value":{"doubleValue":"Infinity"}},'
        '{"key":"m","value":{"doubleValue":"-Infinity"}},'
        '{"key":"r","value":{"bytesValue":"/+8A"}},'
        '{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{}]}}},'
        '{"key":"k","value":{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":""}}]}}},'
        '{"key":"e","value":{}}],"status":{"code":2},"flags":257}]}],"schemaUrl":"quo\\"te"}]}'
    )


def test_an_empty_request_is_an_empty_object():
    assert encode(Signal.LOGS, b"") == b"{}"


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        delimited(1, delimited(2, delimited(2, b"\x09"))),
        delimited(1, delimited(1, delimited(1, b"\xff"))),  # an attribute that is none
        delimited(1, delimited(1, delimited(1, delimited(1, b"\xff\xfe")))),  # a key that is not UTF-8
    ],
)
def test_malformed_bytes_are_refused(body):
    for _ in range(2):
        with pytest.raises(MalformedError, match="not a serialized OTLP export request"):
            encode(Signal.TRACES, body)


def test_a_bomb_of_levels_is_refused():
    value = b""
    for _ in range(20_000):
        value = delimited(1, delimited(5, value))
    with pytest.raises(MalformedError):
        encode(Signal.LOGS, delimited(1, delimited(2, delimited(2, delimited(5, value)))))
    with pytest.raises(MalformedError):
        encode(Signal.LOGS, delimited(1, delimited(1, delimited(1, delimited(2, value)))))


def test_forgets_when_the_memory_is_full(monkeypatch):
    monkeypatch.setattr(encoding, "_MEMORY_ENTRIES", 3)
    encoding._memory.clear()
    request = full(Signal.TRACES, b"")
    resource = request.resource_spans.add().resource
    for number in range(10):
        resource.attributes.add(key=f"k{number}")
    resource.attributes.add(key="long" * 100)
    text = encode(Signal.TRACES, request.SerializeToString())
    assert orjson.loads(text)["resourceSpans"][0]["resource"]["attributes"][9] == {"key": "k9"}
    assert list(encoding._memory.values()) == [b'{"key":"k9"}']
