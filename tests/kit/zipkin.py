"""Zipkin's spans for tests: decoding in one go, and what OTLP requests can be carried by the format."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.zipkin import from_json, from_proto, from_v1
from tests.kit.attribute_values import value_of

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "zipkin"
NOW = 1_795_186_135_000_000_000
TRACE = "4f39435d84288f3b63f43335480cf786"
SPAN = "d20dab9aa6a9eaf4"
START = 1_795_187_792_439_300
"""Microseconds."""


def decoded(body, form=from_json, **options):
    """Return the decoder of a body (bytes, or what JSON holds) in the end."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    steps = form.decoding(body, NOW, **options)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def request_of(body, form=from_json, **options):
    """Return what a body becomes, fully parsed."""
    decoder = decoded(body, form, **options)
    request = ExportTraceServiceRequest.FromString(decoder.traces.body())
    assert (
        sum(len(scope.spans) for each in request.resource_spans for scope in each.scope_spans) == decoder.traces.spans
    )
    return request


FORMS = {"json": from_json, "proto": from_proto, "v1": from_v1}


def spans_of(body, form=from_json, **options):
    """Return the spans that a body becomes, fully parsed."""
    request = request_of(body, form, **options)
    return [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]


def span(**fields):
    """Return a regular span with these fields; those that are `...` are left out."""
    made = {
        "traceId": TRACE,
        "id": SPAN,
        "name": "page",
        "timestamp": START,
        "duration": 160_188,
        "localEndpoint": {"serviceName": "shop"},
    } | fields
    return {key: value for key, value in made.items() if value is not ...}


def plain(value):
    """Return an AnyValue as a Python value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: plain(each.value) for each in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def attributes_of(item):
    """Return the attributes of a span, a resource, a scope or an event."""
    found = {each.key: plain(each.value) for each in item.attributes}
    assert len(found) == len(item.attributes)
    return found


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
_KEYS = st.sampled_from(["a", "b.c", "http.route", "J", "ключ", 'quo"te', "key\\", 'k:":"']) | TEXTS.map("x.{}".format)
_TAGS = st.dictionaries(_KEYS, TEXTS | st.sampled_from(["JOIN", "", "J" * 200]), max_size=4)
_TYPED = st.recursive(
    st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
_TIMES = st.integers(10**14, 10**16).map(lambda microseconds: microseconds * 1000)


def put(attributes, raw):
    """Add attributes."""
    for key, each in raw.items():
        attributes.add(key=key).value.CopyFrom(value_of(each))


@st.composite
def carried(draw):
    """Return an OTLP request of which Zipkin's format loses nothing."""
    request = ExportTraceServiceRequest()
    number = 0
    for name in draw(st.lists(st.sampled_from(["shop", "блог", 'a "b"']), unique=True, min_size=1, max_size=2)):
        resource = request.resource_spans.add()
        put(resource.resource.attributes, {"service.name": name, **draw(st.sampled_from([{}, {"host.name": "web"}]))})
        for scope_name, version in draw(
            st.lists(st.sampled_from([("", ""), ("lib", ""), ("lib", "1"), ("ext", "2")]), unique=True, min_size=1)
        ):
            scope = resource.scope_spans.add()
            if scope_name:
                scope.scope.name, scope.scope.version = scope_name, version
            for _ in range(draw(st.integers(1, 3))):
                number += 1
                _draw_span(draw, scope.spans.add(), number)
    return request


def _draw_span(draw, made, number):
    made.trace_id = draw(st.sampled_from([b"\1" * 16, bytes(8) + b"\2" * 8]))
    made.span_id = number.to_bytes(8, "big")
    made.parent_span_id = draw(st.sampled_from([b"", b"p" * 8]))
    made.name = draw(TEXTS)
    made.kind = draw(st.sampled_from([1, 2, 3, 4, 5]))
    made.start_time_unix_nano = draw(_TIMES)
    made.end_time_unix_nano = made.start_time_unix_nano + draw(st.integers(1, 10**9)) * 1000
    put(made.attributes, draw(_TAGS))
    made.trace_state = draw(st.sampled_from(["", "", "ot=th:8"]))
    made.dropped_attributes_count = draw(st.sampled_from([0, 0, 1, (1 << 32) - 1]))
    made.dropped_events_count = draw(st.sampled_from([0, 0, 2]))
    made.dropped_links_count = draw(st.sampled_from([0, 0, 3]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        event = made.events.add(time_unix_nano=draw(_TIMES), name=draw(TEXTS))
        put(event.attributes, draw(st.dictionaries(TEXTS, _TYPED, max_size=2)))
        event.dropped_attributes_count = draw(st.sampled_from([0, 0, 4]))
    status = draw(st.sampled_from([None, None, (1, ""), (2, "true story"), (2, "")]))
    if status is not None:
        made.status.code, made.status.message = status
