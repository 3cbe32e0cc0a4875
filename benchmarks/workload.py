"""Requests for benchmarks: OTLP trace exports with about 270 bytes and six attributes per span."""

from __future__ import annotations

import random

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

POOL_SPANS = 8192
"""Number of different spans: as many as in a merged batch, which would otherwise compress better than real data."""

POOL_BODIES = 64
"""Smallest number of different bodies."""

START = 1_760_000_000_000_000_000
"""Start of the first span in nanoseconds since 1970, fixed so that bodies are the same in every run."""


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
    """Return the attributes of a database span."""
    return [
        text("db.system.name", "mysql"),
        text("db.operation.name", "SELECT"),
        text("db.query.summary", "SELECT wp_posts"),
        text("server.address", "db.internal"),
        KeyValue(key="server.port", value=AnyValue(int_value=3306)),
        KeyValue(key="db.response.returned_rows", value=AnyValue(int_value=chance.randrange(200))),
    ]


def text(key: str, value: str) -> KeyValue:
    """Return an attribute with a text value."""
    return KeyValue(key=key, value=AnyValue(string_value=value))
