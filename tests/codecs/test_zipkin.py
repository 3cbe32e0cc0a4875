"""Zipkin's formats as a whole: captured requests, and OTLP → Zipkin → OTLP."""

import json
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.otlp_json import encode as to_otlp_json
from otelwp_agent.codecs.zipkin import from_json, from_proto, from_v1
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.records import is_id, record
from otelwp_agent.codecs.zipkin.to_json import JsonEncoder
from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import Maker, requests
from tests.kit.zipkin import CAPTURES, attributes_of, carried, decoded, plain, request_of

ENCODERS = [(JsonEncoder("none"), from_json), (ProtoEncoder("none"), from_proto)]
"""Shared by all tests here, so that what they remember is tested as well."""


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
def test_captured_requests_become_what_a_person_would_draw(capture):
    decoder = decoded(capture.read_bytes())
    expected = json.loads(capture.with_name(capture.name + ".expected").read_text("utf-8"))
    assert json.loads(to_otlp_json(Signal.TRACES, decoder.traces.body())) == expected["otlp"]
    assert decoder.traces.repairs == expected["mended"]


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize(("encoder", "form"), ENCODERS, ids=["json", "proto"])
def test_captured_requests_survive_the_way_to_zipkin_and_back(capture, encoder, form):
    body = decoded(capture.read_bytes()).traces.body()
    again = decoded(encoder.encode(body).body, form)
    assert again.traces.repairs == {}
    assert again.traces.body() == body


def comparable(request):
    """Return a request as something that compares: spans by id, with where they stand, order of attributes aside."""
    found = {}
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                key = span.trace_id, span.span_id
                assert key not in found
                found[key] = (
                    attributes_of(resource.resource),
                    (scope.scope.name, scope.scope.version),
                    (span.parent_span_id, span.name, span.kind, span.start_time_unix_nano, span.end_time_unix_nano),
                    attributes_of(span),
                    (span.trace_state, span.status.code, span.status.message),
                    (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
                    [
                        (
                            each.time_unix_nano,
                            each.name,
                            {pair.key: repr(plain(pair.value)) for pair in each.attributes},
                            each.dropped_attributes_count,
                        )
                        for each in span.events
                    ],
                )
    return found


@pytest.mark.parametrize(("encoder", "form"), ENCODERS, ids=["json", "proto"])
@settings(deadline=None, max_examples=60)
@given(request=carried())
def test_what_the_format_can_carry_comes_back(encoder, form, request):
    for body in (request.SerializeToString(), shuffled(request)):
        encoded = encoder.encode(body)
        assert encoded.left_out == 0
        again = request_of(encoded.body, form)
        assert comparable(again) == comparable(request)


def shuffled(request):
    """Return a request whose spans' fields stand in another order, as some senders write them."""
    out = ExportTraceServiceRequest()
    out.CopyFrom(request)
    body = b""
    for resource in out.resource_spans:
        scopes = b""
        for scope in resource.scope_spans:
            spans = [span.SerializeToString() for span in scope.spans]
            del scope.spans[:]
            inner = scope.SerializeToString() + b"".join([field(2, reordered(each)) for each in spans])
            scopes += field(2, inner)
        del resource.scope_spans[:]
        body += field(1, resource.SerializeToString() + scopes)
    return body


def field(number, content):
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def reordered(span):
    """Return a serialized span with the name (5) behind everything else."""
    parsed = pb.OtlpSpan.FromString(span)
    name = parsed.name
    head = span.index(b"\x2a" + bytes([len(name)]) + name) if name else len(span)
    size = 2 + len(name) if name else 0
    return span[:head] + span[head + size :] + span[head : head + size]


def records_of(body):
    """Return every span of a request the slow way: the reference that the quick ways are compared with."""
    out = []
    for resource in pb.Traces.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            context = JsonEncoder("none")._context((resource.resource, scope.scope))
            for raw in scope.spans:
                span, rare = pb.OtlpSpan.FromString(raw), pb.Rare.FromString(raw)
                if is_id(span.trace_id, 16) and is_id(span.span_id, 8):
                    out.append(record(span, rare, context.service, context.base))
    return out


def of_message(span):
    """Return a protobuf span as JSON has it, with what `ListOfSpans` cannot tell from nothing left out."""
    return {key: value for key, value in from_proto._span(span).items() if value not in ("", 0, {})}


def without_nothing(made):
    kept = {key: value for key, value in made.items() if value not in ("", 0, {})}
    for key in ("localEndpoint", "remoteEndpoint"):
        if key in kept:
            kept[key] = {"serviceName": "", "port": 0, **kept[key]}
    return kept


@settings(deadline=None, max_examples=150)
@given(body=requests(Signal.TRACES, repeats=False))
def test_every_way_of_writing_a_span_writes_the_same(body):
    expected = records_of(body)
    for encoder, _ in ENCODERS:
        for _ in range(3):  # new, seen, remembered
            encoded = encoder.encode(body)
            assert encoded.spans == len(expected)
            if isinstance(encoder, JsonEncoder):
                assert orjson.loads(encoded.body) == expected
            else:
                spans = pb.ListOfSpans.FromString(encoded.body).spans
                assert [of_message(span) for span in spans] == [without_nothing(each) for each in expected]


@settings(deadline=None, max_examples=50)
@given(request=carried())
def test_regular_spans_are_written_as_the_slow_way_writes_them(request):
    body = request.SerializeToString()
    encoder = ENCODERS[0][0]
    for _ in range(3):
        assert orjson.loads(encoder.encode(body).body) == records_of(body)


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 1 << 32), cut=st.integers(0, 400))
def test_broken_requests_are_malformed_or_encoded(seed, cut):
    draw = random.Random(seed)
    body = bytearray(Maker(draw, repeats=True).request(Signal.TRACES))
    for _ in range(draw.randint(0, 3)):
        if body:
            body[draw.randrange(len(body))] = draw.randrange(256)
    for encoder, form in ENCODERS:
        try:
            encoded = encoder.encode(bytes(body[: max(0, len(body) - cut)]))
        except MalformedError:
            continue
        assert decoded(encoded.body, form).traces.spans <= encoded.spans


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "traceId", "id", "parentId", "name", "kind", "timestamp", "duration", "localEndpoint", "remoteEndpoint", "tags",
    "annotations", "binaryAnnotations", "shared", "debug",
]  # fmt: skip
SPANS = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON_VALUES
    | st.sampled_from(["4f39435d84288f3b63f43335480cf786", "d20dab9aa6a9eaf4", "CLIENT", {"serviceName": "a"}])
    | st.lists(
        st.fixed_dictionaries({
            "timestamp": JSON_VALUES,
            "value": st.sampled_from(["cs", "cr", "sr", "ss", '"a": {"b": [1]}', 'x|{"a":1}|2', '"', "|{|1"]),
            "key": st.sampled_from(["sa", "ca", "error", "x"]) | JSON_VALUES,
            "endpoint": JSON_VALUES | st.just({"serviceName": "a", "ipv4": "1.2.3.4", "port": 1}),
        }),
        max_size=4,
    )
    | st.dictionaries(
        st.sampled_from(["serviceName", "ipv4", "ipv6", "port", "error", "otel.status_code", "otel.scope.name"]),
        JSON_VALUES,
        max_size=4,
    ),
).map(lambda span: {"traceId": "ab" * 16, "id": "cd" * 8, **span})  # fmt: skip


@pytest.mark.parametrize("form", [from_json, from_v1], ids=["v2", "v1"])
@settings(deadline=None, max_examples=100)
@given(document=st.lists(SPANS | JSON_VALUES, max_size=4), parse=st.booleans())
def test_any_json_is_malformed_or_becomes_otlp(form, document, parse):
    body = json.dumps(document, allow_nan=False, default=str).encode() if _finite(document) else b"[]"
    try:
        request_of(body, form, parse_string_tags=parse)
    except MalformedError as raised:
        error = raised
    else:
        return
    assert ": " in str(error)  # the place, and what belongs there


def _finite(value):
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True
