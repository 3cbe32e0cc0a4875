"""The count agrees with protobuf about what parses and how many items there are, in C and in Python."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import counting, projections
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.native import extension
from otelwp_agent.model.signal import Signal
from tests.kit.counting import KEYS, SCHEMAS, agree
from tests.kit.otlp import Maker, delimited, signals_and_requests

COUNTS = [counting.count] if extension is None else [counting.count, extension.count]
LIMIT = 10**9
GROUP = b"\x1b\x08\x01\x23\x0a\x00\x24\x1c"
"""A group (3) with a number and another group (4) in it."""


@given(signals_and_requests())
def test_the_items_are_those_of_the_projection(drawn):
    signal, body = drawn
    for count in COUNTS:
        assert count(body, KEYS[signal], LIMIT) == projections.count(signal, body)


@settings(max_examples=300)
@given(seed=st.integers(0, 10**6), changes=st.lists(st.tuples(st.integers(0), st.binary(max_size=4)), max_size=3))
def test_broken_requests_are_judged_as_protobuf_does(seed, changes):
    for signal in Signal:
        body = bytearray(Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(signal))
        for place, piece in changes:
            start = place % (len(body) + 1)
            body[start : start + len(piece)] = piece
        agree(bytes(body), extension)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", 0),
        (b"\x0a", counting.MALFORMED),
        (b"\x02\x00", counting.MALFORMED),
        (b"\x00\x01", counting.MALFORMED),
        (GROUP + b"\x0a\x00" + GROUP, 0),
        (GROUP[:-1], counting.MALFORMED),
        (b"\x1c", counting.MALFORMED),
        (b"\x8a\x00\x00", 0),
        (delimited(1, delimited(2, delimited(2, b"") + GROUP + delimited(2, GROUP))), 2),
        (delimited(1, delimited(2, delimited(2, b"\xff"))), counting.MALFORMED),
        (b"\x0f", counting.MALFORMED),
    ],
)
def test_edges_of_the_wire_form(count, body, expected):
    assert count(body, KEYS[Signal.TRACES], LIMIT) == expected
    agree(body, extension)


@pytest.mark.parametrize("count", COUNTS)
def test_only_the_last_alternative_counts(count):
    gauge, total = delimited(5, delimited(1, b"") * 3), delimited(7, delimited(1, b"") * 2)
    for metrics in ([gauge + total], [gauge + gauge], [total + gauge + total, gauge], [gauge, b"", total]):
        body = delimited(1, delimited(2, b"".join(delimited(2, each) for each in metrics)))
        assert count(body, KEYS[Signal.METRICS], LIMIT) == projections.count(Signal.METRICS, body)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_count_stops_at_the_limit(count, schema):
    body = b"\x0a\0" * 1000
    entry = schema[4]
    assert count(body, schema, 1000 * entry) == 0
    assert count(body, schema, 1000 * entry - 1) == counting.BEYOND_LIMIT
    assert count(body + b"\xff", schema, 1000 * entry - 1) == counting.BEYOND_LIMIT


@pytest.mark.parametrize("count", COUNTS)
def test_a_full_schema_counts_what_stands_inside_of_items(count):
    message = request_class(Signal.TRACES)()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    for number in range(10):
        span.attributes.add(key=str(number)).value.array_value.values.add().int_value = number
    schema = counting.schema(type(message))
    messages = 3 + 10 * 4
    assert count(message.SerializeToString(), schema, messages) == 0
    assert count(message.SerializeToString(), schema, messages - 1) == counting.BEYOND_LIMIT


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("nesting", [90, 98, 99, 100, 101, 5000])
def test_nesting_is_limited_as_protobuf_limits_it(count, nesting):
    kind = request_class(Signal.TRACES)
    value = b""
    for _ in range(nesting // 2):
        value = delimited(5, delimited(1, value))
    body = delimited(1, delimited(1, delimited(1, delimited(2, value))))
    try:
        projections.parse(kind.FromString, body)
    except MalformedError:
        return
    assert count(body, counting.schema(kind), LIMIT) == 0


def test_leaves_are_not_looked_into():
    schema = counting.schema(pb.Shape, leaves={pb.Anything.DESCRIPTOR.full_name})
    body = delimited(1, delimited(2, delimited(2, b"\xff")))
    for count in COUNTS:
        assert count(body, schema, LIMIT) == 1
        assert count(body, KEYS[Signal.TRACES], LIMIT) == counting.MALFORMED


@pytest.mark.skipif(extension is None, reason="the extension module is not there")
def test_the_extension_module_refuses_what_is_no_schema():
    for arguments in ((b"", b"", 1), (b"", b"x" * 95, 1)):
        with pytest.raises(ValueError, match="schema"):
            extension.count(*arguments)
    with pytest.raises(OverflowError):
        extension.count(b"", KEYS[Signal.TRACES], -1)
