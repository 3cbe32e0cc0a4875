"""The requests that a benchmark sends: OTLP trace exports of about 270 bytes a span, six attributes each."""

from __future__ import annotations

import random

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

POOL_SPANS = 8192
"""Different spans sent in turn: as many as a merged batch holds, or it would compress better than it does in life."""

POOL_BODIES = 64
"""Different bodies sent in turn, at least."""

START = 1_760_000_000_000_000_000
"""Nanoseconds since 1970 at which the first span begins: fixed, so that bodies are the same in every run."""


def bodies(spans: int) -> list[bytes]:
    """Return serialized export requests of `spans` spans each, the same in every run."""
    chance = random.Random(spans)
    return [_request(spans, chance) for _ in range(max(POOL_SPANS // spans, POOL_BODIES))]


def _request(spans: int, chance: random.Random) -> bytes:
    resource = ResourceSpans()
    resource.resource.attributes.extend(
        [text("service.name", "shop"), text("service.version", "6.8.1"), text("host.name", "web-03.example")]
    )
    scope = resource.scope_spans.add()
    scope.scope.name = "wordpress"
    trace_id = chance.randbytes(16)
    root = chance.randbytes(8)
    scope.spans.extend([_span(index, trace_id, root, chance) for index in range(spans)])
    return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()


def _span(index: int, trace_id: bytes, root: bytes, chance: random.Random) -> Span:
    start = START + index * 1_000_000
    return Span(
        trace_id=trace_id,
        span_id=chance.randbytes(8),
        parent_span_id=root,
        name="wpdb.query SELECT",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + chance.randrange(100_000, 5_000_000),
        attributes=query(chance),
    )


def query(chance: random.Random) -> list[KeyValue]:
    """Return the attributes of a span of a query."""
    return [
        text("db.system.name", "mysql"),
        text("db.operation.name", "SELECT"),
        text("db.query.summary", "SELECT wp_posts"),
        text("server.address", "db.internal"),
        KeyValue(key="server.port", value=AnyValue(int_value=3306)),
        KeyValue(key="db.response.returned_rows", value=AnyValue(int_value=chance.randrange(200))),
    ]


def text(key: str, value: str) -> KeyValue:
    """Return an attribute that is a text."""
    return KeyValue(key=key, value=AnyValue(string_value=value))
