from __future__ import annotations

import copy
import gc
import json
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.codecs.otlp_json import decode, decoding, encode, schema
from otelwp_agent.codecs.otlp_json.compiling import FieldKind, compiled
from otelwp_agent.model import json_slices, native
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import signals_and_requests
from tests.kit.otlp_json import same_as_python

needs_c = pytest.mark.skipif(native.extension is None, reason="the extension module is not available")

ODD = (
    None, True, False, [], {}, [None], [[]], [{}], {"a": 1}, "", "a", "é\U0001f600", "x" * 300, "00", "0a" * 16,
    "0A" * 8, "g" * 32, 0, 1, 127, 128, -1, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**63 - 1, -(2**63),
    2**64 - 1, 1.0, -0.0, 1.5, 1e300, "0", "-0", "007", "+5", "-5", " 5", "5 ", "1e3", "1.5", "0x1", "1_0", "٣",
    "999999999999999999", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "NaN", "Infinity", "STATUS_CODE_ERROR", "SPAN_KIND_SERVER", "Zm9v", "Zm9",
    {"stringValue": "v"}, {"arrayValue": {"values": [{}, None]}},
)  # fmt: skip
"""Values that are put into documents. The last string of digits is Arabic."""


def agree(signal, document):
    return same_as_python(signal, json.dumps(document).encode())


def places(value, path=()):
    """Yield the path of every value in a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def changed(document, path, value):
    if not path:
        return value
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


def document_of(drawn):
    signal, body = drawn
    return orjson.loads(encode(signal, body))


@needs_c
@settings(max_examples=80)
@given(signals_and_requests(unknown=False))
def test_valid_documents_are_converted_in_c(drawn):
    assert agree(drawn[0], document_of(drawn))


@needs_c
@settings(max_examples=200)
@given(signals_and_requests(unknown=False), st.data())
def test_unusual_values_have_the_same_result_or_error(drawn, data):
    document = document_of(drawn)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(document))))
        document = changed(document, path, copy.deepcopy(data.draw(st.sampled_from(ODD))))
    agree(drawn[0], document)


SPAN = {
    "traceId": "0af7651916cd43dd8448eb211c80319c",
    "spanId": "b7ad6b7169203331",
    "traceState": "a",
    "parentSpanId": "",
    "flags": 1,
    "name": "n",
    "kind": 2,
    "startTimeUnixNano": "1",
    "attributes": [{"key": "k", "value": {"doubleValue": 1.5}}, {"key": "k", "value": {"bytesValue": "Zm9v"}}],
    "droppedAttributesCount": 1,
    "status": {"code": 1},
}


@needs_c
@pytest.mark.parametrize("key", [*SPAN, "trace_id", "unknown"])
def test_every_unusual_value_of_every_field_of_a_span(key):
    for value in ODD:
        agree(Signal.TRACES, {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, {**SPAN, key: value}]}]}]})


@needs_c
@pytest.mark.parametrize("kind", ["stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "bytesValue"])
def test_every_unusual_attribute(kind):
    for value in ODD:
        attribute = {"key": "k", "value": {kind: value}}
        agree(Signal.LOGS, {"resourceLogs": [{"resource": {"attributes": [attribute]}}]})


@needs_c
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_383, 16_384, 200_000])
def test_lengths(size):
    span = {**SPAN, "name": "x" * size, "events": [{"name": "é" * size}]}
    assert agree(Signal.TRACES, {"resourceSpans": [{"scopeSpans": [{"spans": [span, span]}]}]})


@needs_c
@pytest.mark.parametrize("depth", [1, 20, 40, 47, 48, 49, 100, 300])
def test_nesting(depth):
    value = {"stringValue": "v"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    document = {"resourceLogs": [{"resource": {"attributes": [{"key": "k", "value": value}]}}]}
    agree(Signal.LOGS, document)


@needs_c
@pytest.mark.parametrize("wrong", [None, {"name": 5}, "no span"])
def test_large_documents_are_converted_in_c_slice_by_slice(wrong, monkeypatch):
    spans = [{**SPAN, "name": f"span {number}"} for number in range(3000)]
    if wrong is not None:
        spans[2500] = wrong
    document = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    assert len(orjson.dumps(document)) > json_slices.LARGE
    agree(Signal.TRACES, document)
    if wrong is None:
        monkeypatch.setattr(decoding, "_element", lambda *_: pytest.fail("converted in Python"))
        decode(Signal.TRACES, orjson.dumps(document))


@needs_c
def test_other_errors_are_raised():
    def fail(_value, _depth):
        raise KeyboardInterrupt

    field = (FieldKind.CALLED, b"\x08", 0, False, 0, 0, fail)
    converter = native.extension.converter((({"a": 0}, (field,)),))
    with pytest.raises(KeyboardInterrupt):
        converter.convert({"a": 1}, 0, 1)
    with pytest.raises(ValueError, match="no such table"):
        converter.convert({"a": 1}, 1, 1)
    with pytest.raises(TypeError):
        converter.convert({})


@needs_c
@pytest.mark.parametrize(
    "change", [{0: 12}, {0: -1}, {1: b"123456"}, {0: FieldKind.MESSAGE, 2: 1}, {2: 1000}], ids=str
)  # fmt: skip
def test_invalid_tables_are_refused(change):
    field = [FieldKind.TEXT, b"\x0a", 0, False, 0, 0, len]
    for place, value in change.items():
        field[place] = value
    with pytest.raises(ValueError, match="not a field"):
        native.extension.converter((({"a": 0}, (tuple(field),)),))


@needs_c
def test_nothing_is_leaked():
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN] * 50}]}]}
    broken = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, {**SPAN, "name": 5}]}]}]}
    agree(Signal.TRACES, document)
    tables = decoding._tables

    def work():
        for _ in range(20):
            converter = compiled(schema.request(Signal.TRACES), tables)
            assert converter.message(document)
            assert converter.message(broken) is None

    work()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 5_000
    finally:
        tracemalloc.stop()


def test_python_converts_without_the_extension_module(monkeypatch):
    monkeypatch.setattr(native, "extension", None)
    assert compiled(schema.request(Signal.LOGS), decoding._tables) is None
