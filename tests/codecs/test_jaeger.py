"""Jaeger's Thrift and protobuf, both ways, against each other and against what real senders wrote."""

from __future__ import annotations

import contextlib
import json
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.jaeger import from_proto, from_thrift, sending, to_proto, to_thrift
from otelwp_agent.codecs.jaeger import jaeger_pb2 as pb
from otelwp_agent.codecs.jaeger.thrift_binary import MAX_DEPTH, Reader
from otelwp_agent.errors import MalformedError
from tests.kit.jaeger import CAPTURES, attributes_of, document, spans_of
from tests.kit.otlp_json import CAPTURES as OTLP_CAPTURES

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
KEYS = st.text("abcdefgh.", min_size=1, max_size=8)
VALUES = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=8)
    | st.just("x" * 200)
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=5)
TRACE_IDS = st.binary(min_size=16, max_size=16).filter(any)
SPAN_IDS = st.binary(min_size=8, max_size=8).filter(any)


def fill(target, attributes):
    for key, value in attributes.items():
        any_value = target.add(key=key).value
        name = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes"}[type(value)]
        setattr(any_value, f"{name}_value", value)


@st.composite
def requests(draw, resolution):
    """Draw OTLP that the formats can carry, its times multiples of `resolution` nanoseconds."""
    moments = st.integers(0, 2**63 // resolution // 2).map(lambda number: number * resolution)
    request = ExportTraceServiceRequest()
    used = set()
    for service in draw(st.lists(TEXTS.filter(bool), max_size=3, unique=True)):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        fill(resource.resource.attributes, draw(ATTRIBUTES))
        for name, version in draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=2, unique=True)):
            scope = resource.scope_spans.add()
            if name or version:
                scope.scope.name, scope.scope.version = name, version
            for _ in range(draw(st.integers(1, 3))):
                ids = draw(st.tuples(TRACE_IDS, SPAN_IDS).filter(lambda each: each not in used))
                used.add(ids)
                _draw_span(draw, scope.spans.add(trace_id=ids[0], span_id=ids[1]), moments)
    return request


def _draw_span(draw, span, moments):
    span.name = draw(TEXTS)
    span.parent_span_id = draw(st.just(b"") | SPAN_IDS.filter(lambda parent: parent != span.span_id))
    span.kind = draw(st.integers(0, 5))
    span.trace_state = draw(st.sampled_from(["", "a=b,ot=th:8"]))
    span.start_time_unix_nano = draw(moments)
    span.end_time_unix_nano = span.start_time_unix_nano + draw(moments)
    span.flags = draw(st.integers(0, 1))
    fill(span.attributes, draw(ATTRIBUTES))
    if draw(st.booleans()):
        span.status.code = draw(st.integers(1, 2))
        span.status.message = draw(TEXTS)
    for name in draw(st.lists(TEXTS, max_size=2)):
        event = span.events.add(name=name, time_unix_nano=draw(moments))
        fill(event.attributes, draw(ATTRIBUTES | st.just({"event": "x", "message": "y"})))
    for kind in draw(st.lists(st.sampled_from(["child_of", "follows_from"]), max_size=2)):
        link = span.links.add(trace_id=draw(TRACE_IDS.filter(lambda each: each != span.trace_id)))
        link.span_id = draw(SPAN_IDS)
        link.attributes.add(key="opentracing.ref_type").value.string_value = kind


@given(requests(1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_protobuf_keeps_what_it_can_carry(request):
    traces = from_proto.decode(to_proto.encode(request.SerializeToString()))
    assert traces.repairs == {}
    assert ExportTraceServiceRequest.FromString(traces.body()) == request


@given(requests(1000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_thrift_keeps_what_it_can_carry(request):
    found = ExportTraceServiceRequest()
    for body in to_thrift.encode(request.SerializeToString()):
        traces = from_thrift.decode(body)
        assert traces.repairs == {}
        found.MergeFromString(traces.body())
    assert found == request


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.thrift")), ids=lambda path: path.stem)
def test_captures_become_what_a_person_would_draw(capture):
    expected = json.loads(capture.with_name(capture.name + ".expected").read_text("utf-8"))
    traces = from_thrift.decode(capture.read_bytes())
    assert document(traces) == expected["otlp"]
    assert traces.repairs == expected["mended"]
    again = to_thrift.encode(traces.body())
    assert document(from_thrift.decode(again[0])) == expected["otlp"]


def test_a_real_trace_through_both_formats():
    body = (OTLP_CAPTURES / "auto-wordpress-login.pb").read_bytes()
    before = [span for r in ExportTraceServiceRequest.FromString(body).resource_spans
              for s in r.scope_spans for span in s.spans]  # fmt: skip
    proto = spans_of(from_proto.decode(to_proto.encode(body)))
    thrift = [span for each in to_thrift.encode(body) for span in spans_of(from_thrift.decode(each))]
    for found in (proto, thrift):
        assert [span["spanId"] for span in found] == [span.span_id.hex() for span in before]
        assert [span["name"] for span in found] == [span.name for span in before]
    assert [int(span["startTimeUnixNano"]) for span in proto] == [span.start_time_unix_nano for span in before]
    assert [int(span["startTimeUnixNano"]) for span in thrift] == [
        span.start_time_unix_nano // 1000 * 1000 for span in before
    ]


def one_span(**fields):
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=b"t" * 16, span_id=b"s" * 8, name="page", **fields
    )  # fmt: skip
    return request, span


def both(request):
    """Return the only span after a way through each format."""
    body = request.SerializeToString()
    yield spans_of(from_proto.decode(to_proto.encode(body)))[0]
    yield spans_of(from_thrift.decode(to_thrift.encode(body)[0]))[0]


def test_what_has_no_form_of_its_own():
    """Arrays and maps are JSON, nothing is an empty text; a plain link is a FOLLOWS_FROM; times do not go back."""
    request, span = one_span(start_time_unix_nano=5000, end_time_unix_nano=1000, flags=0x301)
    span.attributes.add(key="list").value.array_value.values.add().int_value = 1
    span.attributes.add(key="map").value.kvlist_value.values.add(key="a").value.bool_value = True
    span.attributes.add(key="none")
    span.links.add(trace_id=b"u" * 16, span_id=b"v" * 8)
    for found in both(request):
        assert attributes_of(found) == {"list": "[1]", "map": '{"a":true}', "none": ""}
        assert attributes_of(found["links"][0]) == {"opentracing.ref_type": "follows_from"}
        assert (found["startTimeUnixNano"], found["endTimeUnixNano"], found["flags"]) == ("5000", "5000", 1)


def test_a_second_status_is_an_attribute_in_its_own_span_alone():
    twice, span = one_span(kind=3)
    for value in (404, 500):
        span.attributes.add(key="http.status_code").value.int_value = value
    once, span = one_span(kind=3)
    span.attributes.add(key="http.status_code").value.int_value = 500
    for _ in range(2):
        list(both(twice))
        assert [found["status"] for found in both(once)] == [{"code": 2}, {"code": 2}]


def test_a_resource_without_a_service_is_named_as_the_collector_names_it():
    request, _ = one_span()
    (process,) = sending.processes(request.SerializeToString())
    assert process.service == sending.NO_SERVICE
    assert "OTLPResourceNoServiceName" in str(
        document(from_thrift.decode(to_thrift.encode(request.SerializeToString())[0]))
    )


def test_equal_resources_are_one_process():
    request, _ = one_span()
    second, span = one_span()
    span.span_id = b"2" * 8
    body = request.SerializeToString() + second.SerializeToString()
    assert len(to_thrift.encode(body)) == 1
    assert from_thrift.decode(to_thrift.encode(body)[0]).spans == 2


def test_warnings_are_jaegers_own_in_protobuf():
    request, span = one_span()
    span.attributes.add(key="@jaeger@warnings").value.array_value.values.add().string_value = "clock skew"
    message = pb.PostSpansRequest.FromString(to_proto.encode(request.SerializeToString()))
    assert list(message.batch.spans[0].warnings) == [b"clock skew"]
    assert list(message.batch.spans[0].tags) == []
    (found, _) = both(request)
    assert attributes_of(found) == {"@jaeger@warnings": {"values": [{"stringValue": "clock skew"}]}}


def test_post_spans_as_jaegers_clients_write_it():
    """Short trace ids, a process of the span's own, a batch's process, text that is not UTF-8, ids of zeros."""
    batch = pb.Batch(process=pb.Process(service_name=b"shop"))
    batch.spans.add(trace_id=b"\1" * 8, span_id=b"\2" * 8, operation_name=b"Caf\xe9")
    own = pb.Process(service_name=b"blog").SerializeToString()
    batch.spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, process=own)
    batch.spans.add(trace_id=bytes(16), span_id=b"\2" * 8)
    batch.spans[0].duration.seconds = -1
    traces = from_proto.decode(pb.PostSpansRequest(batch=batch).SerializeToString())
    first, second = document(traces)["resourceSpans"]
    assert attributes_of(first["resource"]) == {"service.name": "shop"}
    assert attributes_of(second["resource"]) == {"service.name": "blog"}
    found = first["scopeSpans"][0]["spans"][0]
    assert (found["traceId"], found["name"]) == ("0" * 16 + "01" * 8, "Café")
    assert traces.repairs == {"invalid_utf8": 1, "negative_duration": 1, "span_dropped": 1}


@pytest.mark.parametrize("codec", [to_proto.encode, to_thrift.encode])
def test_nothing_becomes_nothing(codec):
    assert not codec(b"")
    with pytest.raises(MalformedError):
        codec(b"\xff\xff")


# -- Thrift that is wrong


THRIFT = (CAPTURES / "901-decalog-front.thrift").read_bytes()


def test_a_message_around_the_batch_is_left_out():
    name = b"submitBatches"
    arguments = b"\x0f\0\1\x0c" + struct.pack(">i", 2) + THRIFT + THRIFT + b"\0"
    strict = b"\x80\1\0\1" + struct.pack(">i", len(name)) + name + bytes(4) + arguments
    old = struct.pack(">i", len(name)) + name + b"\1" + bytes(4) + arguments
    single = b"\x80\1\0\4" + struct.pack(">i", 9) + b"emitBatch" + bytes(4) + b"\x0c\0\1" + THRIFT + b"\0"
    for body in (strict, old, single):
        assert from_thrift.decode(body).spans == 13


def test_every_cut_is_refused():
    for end in range(0, len(THRIFT), 11):
        with pytest.raises(MalformedError, match="Thrift body"):
            from_thrift.decode(THRIFT[:end])


def test_broken_bytes_are_taken_or_refused():
    for seed in range(200):
        draw = random.Random(seed)
        body = bytearray(THRIFT)
        for _ in range(draw.randint(1, 5)):
            body[draw.randrange(len(body))] = draw.choice([0, 1, 12, 15, 127, 128, 255, draw.randrange(256)])
        with contextlib.suppress(MalformedError):
            spans_of(from_thrift.decode(bytes(body)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x0f\0\1\x0c\x7f\xff\xff\xff", "claims more"),
        (b"\x0b\0\1\x7f\xff\xff\xff", "claims more"),
        (b"\x0b\0\1\xff\xff\xff\xff", "claims more"),
        (b"\x0d\0\1\x0b\x0b\x7f\xff\xff\xff", "claims more"),
        (b"\x0c\0\1" * 50, "nested too deeply"),
        (b"\x0f\0\1" + b"\x0f\0\0\0\1" * 50, "nested too deeply"),
        (b"\x0f\0\1\x0c\0\0\x40\0" + bytes(0x4001), "too many structs"),
        (b"\x0f\0\1\2\0\1\0\0" + bytes(1 << 16), "too many elements"),
        (b"\x0e\0\1\3\0\1\0\0" + bytes(1 << 16), "too many elements"),
        (b"\x0d\0\1\2\2\0\1\0\0" + bytes(1 << 17), "too many elements"),
        (b"\x05\0\1", "unknown type 5"),
        (b"", "cut short"),
        (b"\0", "cut short"),
    ],
)
def test_claims_are_not_believed(body, message):
    with pytest.raises(MalformedError, match=message):
        Reader(body).message()


def test_types_that_jaeger_does_not_send_are_skipped():
    fields = b"\x0d\0\x09\x08\x03\0\0\0\1\0\0\0\1\5" + b"\x0e\0\x0a\x06\0\0\0\1\0\7" + b"\x02\0\x0b\1"
    assert Reader(fields + b"\0").message() == {9: [5], 10: [7], 11: True}
    assert MAX_DEPTH >= 8


@pytest.mark.parametrize(
    "body", [b"\x0c\0\1\0\0", b"\x0f\0\2\x08\0\0\0\0\0", b"\x0c\0\1\0\x0f\0\2\x08\0\0\0\1\0\0\0\1\0"]
)
def test_structs_that_are_no_batch_are_refused(body):
    with pytest.raises(MalformedError, match="not a Jaeger batch"):
        from_thrift.decode(body)


def test_fields_of_another_type_are_as_if_they_were_not_there():
    span = (
        b"\x0a\0\1" + bytes(7) + b"\1"  # trace id, low
        b"\x0a\0\2" + bytes(8) + b"\x0a\0\3" + bytes(7) + b"\2"  # high, span id
        b"\x08\0\5\0\0\0\1"  # the name, as a number
        b"\x0a\0\x09"
        + b"\xff" * 8  # a duration of -1
        + b"\x0f\0\x0a\x0c\0\0\0\1\x0b\0\1\0\0\0\1k\x08\0\2\0\0\0\x63\0\0"  # a tag of type 99, without a value
    )
    body = b"\x0c\0\1\x0b\0\1\0\0\0\1\xe9\0" + b"\x0f\0\2\x0c\0\0\0\1" + span + b"\0"
    traces = from_thrift.decode(body)
    (found,) = spans_of(traces)
    assert attributes_of(found) == {"k": ""}
    assert traces.service == "é"
    assert traces.repairs == {"invalid_utf8": 1, "negative_duration": 1}
