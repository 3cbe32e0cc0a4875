"""Test requests with enough variety to detect a component that has no effect, or too many effects.

Every signal has several resources and scopes, attributes of every type at every level, events, links, exemplars,
statuses, trace states, fields that OTLP does not have (`unknown`), and several senders' shares in one batch.

`words` are the strings in a component's example settings. Each is used as the key of attributes of every type at every
level, as the `service.name` of a resource and as a query parameter of a URL, so that the actions and filters of the
example match some items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import count
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

TYPES = ("string", "bool", "int", "double", "bytes", "array", "kvlist", "empty")
"""The types of attribute values in OTLP 1.9."""

LEVELS = ("resource", "scope", "item", "event", "link", "point")
"""The messages with attributes; each contains an unknown field."""

_RESOURCES, _SCOPES, _ITEMS = 6, 2, 2
"""Least number of resources in a request, scopes in each resource, items in each scope."""

_START = 1_790_000_000_000_000_000
"""Time of the first item, in nanoseconds since 1970."""

_TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
_TEXTS = ("200", "GET /cart/42", "owner@example.com", "text")


def unknown(level: str) -> bytes:
    """Return a serialized field that OTLP does not have (number 2047); its value contains the name of the level."""
    text = f"unknown-{level}".encode()
    return b"\xfa\x7f" + bytes([len(text)]) + text


def make_corpus(signal: Signal, words: Sequence[str] = ()) -> list[Batch]:
    """Return batches of one signal: one item of one sender, and many items of three senders."""
    small, large = request(signal, words, resources=1, scopes=1, items=1), request(signal, words)
    items = count(signal, large)
    return [batch_of(signal, small, [1]), batch_of(signal, large, [1, items // 3, items - 1 - items // 3])]


def batch_of(signal: Signal, body: bytes, sizes: Iterable[int] = ()) -> Batch:
    """Return a batch of `body` with one receipt for each of `sizes` (items); by default, one receipt for all items."""
    shares = [(Receipt(size), size) for size in [*sizes] or [count(signal, body)]]
    return Batch(signal, body, sum(size for _, size in shares), Origin("otlp", "http"), shares)


def request(
    signal: Signal, words: Sequence[str] = (), *, resources: int = 0, scopes: int = _SCOPES, items: int = _ITEMS
) -> bytes:
    """Return a serialized request with `scopes` scopes in each resource and `items` items in each scope.

    It has one resource for each word, with the word as `service.name`, and `_RESOURCES` others; if `resources` is
    given, only the first `resources` of these.
    """
    names = [*words, *(f"service-{number}" for number in range(_RESOURCES))]
    build = {Signal.TRACES: _traces, Signal.METRICS: _metrics, Signal.LOGS: _logs}[signal]
    message = build(names[:resources] if resources else names, words, scopes, items)
    message.MergeFromString(unknown("request"))
    return message.SerializeToString()


def any_value(type_: str, seed: int = 0) -> AnyValue:
    """Return an attribute value of a type in `TYPES`."""
    pair = KeyValue(key="inner", value=AnyValue(string_value="value"))
    values = {
        "string": AnyValue(string_value=_TEXTS[seed % len(_TEXTS)]),
        "bool": AnyValue(bool_value=seed % 2 == 0),
        "int": AnyValue(int_value=200 + seed),
        "double": AnyValue(double_value=seed + 0.5),
        "bytes": AnyValue(bytes_value=b"\x00\xff" + bytes([seed % 256])),
        "array": AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a"), AnyValue(int_value=seed)])),
        "kvlist": AnyValue(kvlist_value=KeyValueList(values=[pair])),
        "empty": AnyValue(),
    }
    return values[type_]


def attributes(words: Sequence[str], seed: int) -> list[KeyValue]:
    """Return attributes of every type, and two thirds of the words as keys; `seed` determines types and values."""
    found = [KeyValue(key=f"type.{type_}", value=any_value(type_, seed)) for type_ in TYPES]
    found += [
        KeyValue(key=word, value=any_value(TYPES[(seed + index) % len(TYPES)], seed))
        for index, word in enumerate(words)
        if (seed + index) % 3
    ]
    return found


def web_attributes(words: Sequence[str], seed: int) -> list[KeyValue]:
    """Return attributes that instrumentation records for a web request; each word is a parameter of the query."""
    query = "&".join(f"{word}=secret{seed}" for word in ("token", *words))
    texts = {
        "http.request.method": ("GET", "POST")[seed % 2],
        "url.full": f"https://shop.example/cart/{seed}?{query}",
        "url.query": query,
        "user.email": "owner@example.com",
        "db.query.text": "SELECT * FROM orders WHERE email = 'owner@example.com'",
    }
    return [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in texts.items()]


def trace_id(index: int) -> bytes:
    """Return the trace id number `index`; the bits that samplers read are evenly distributed."""
    return _TRACE_ID[:8] + (index * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")


def _traces(names: Sequence[str], words: Sequence[str], scopes: int, items: int) -> Message:
    message = ExportTraceServiceRequest()
    for number, name in enumerate(names):
        group = message.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        _fill_resource(group.resource, name, words, number)
        for index in range(scopes):
            inner = group.scope_spans.add()
            _fill_scope(inner.scope, words, number + index)
            for item in range(items):
                _fill_span(inner.spans.add(), words, (number * scopes + index) * items + item)
    return message


def _logs(names: Sequence[str], words: Sequence[str], scopes: int, items: int) -> Message:
    message = ExportLogsServiceRequest()
    for number, name in enumerate(names):
        group = message.resource_logs.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        _fill_resource(group.resource, name, words, number)
        for index in range(scopes):
            inner = group.scope_logs.add()
            _fill_scope(inner.scope, words, number + index)
            for item in range(items):
                _fill_log(inner.log_records.add(), words, (number * scopes + index) * items + item)
    return message


def _metrics(names: Sequence[str], words: Sequence[str], scopes: int, items: int) -> Message:
    message = ExportMetricsServiceRequest()
    for number, name in enumerate(names):
        group = message.resource_metrics.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        _fill_resource(group.resource, name, words, number)
        for index in range(scopes):
            inner = group.scope_metrics.add()
            _fill_scope(inner.scope, words, number + index)
            for item in range(items):
                _fill_metric(inner.metrics.add(), words, (number * scopes + index) * items + item)
    return message


def _fill_resource(resource: Resource, name: str, words: Sequence[str], seed: int) -> None:
    resource.attributes.add(key="service.name").value.string_value = name
    resource.attributes.extend(attributes(words, seed))
    resource.MergeFromString(unknown("resource"))


def _fill_scope(scope: InstrumentationScope, words: Sequence[str], seed: int) -> None:
    scope.name, scope.version = "io.example.library", f"1.{seed}"
    scope.attributes.extend(attributes(words, seed))
    scope.MergeFromString(unknown("scope"))


def _fill_span(span: Span, words: Sequence[str], seed: int) -> None:
    """Fill a span: with an even `seed` it is a root, with an odd one the child of the span before it."""
    trace, parent = divmod(seed, 2)
    span.trace_id, span.span_id = trace_id(trace), (seed + 1).to_bytes(8, "big")
    if parent:
        span.parent_span_id = seed.to_bytes(8, "big")
    span.name = f"GET /cart/{seed}"
    span.kind = 1 + seed % 5  # type: ignore[assignment] # every value is used
    span.trace_state = "vendor=value" if seed % 3 == 0 else ""
    span.start_time_unix_nano = _START + seed * 1_000_000
    span.end_time_unix_nano = span.start_time_unix_nano + 5_000_000
    span.status.code = seed % 3  # type: ignore[assignment] # every value is used
    span.flags = 0x101
    span.attributes.extend([*attributes(words, seed), *web_attributes(words, seed)])
    event = span.events.add(name="exception", time_unix_nano=span.start_time_unix_nano, dropped_attributes_count=1)
    event.attributes.extend(attributes(words, seed + 1))
    event.MergeFromString(unknown("event"))
    link = span.links.add(trace_id=trace_id(trace + 1), span_id=span.span_id, trace_state="vendor=other", flags=0x301)
    link.attributes.extend(attributes(words, seed + 2))
    link.MergeFromString(unknown("link"))
    span.MergeFromString(unknown("item"))


def _fill_log(record: LogRecord, words: Sequence[str], seed: int) -> None:
    record.time_unix_nano = record.observed_time_unix_nano = _START + seed * 1_000_000
    record.severity_number = 1 + seed % 24  # type: ignore[assignment] # every value is used
    record.severity_text = "INFO"
    record.body.CopyFrom(any_value(TYPES[seed % len(TYPES)], seed))
    record.trace_id, record.span_id = trace_id(seed), (seed + 1).to_bytes(8, "big")
    record.event_name = "checkout"
    record.attributes.extend([*attributes(words, seed), *web_attributes(words, seed)])
    record.MergeFromString(unknown("item"))


def _fill_metric(metric: Metric, words: Sequence[str], seed: int) -> None:
    """Fill a metric with one data point; `seed` determines the kind of metric."""
    kinds = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    kind = kinds[seed % len(kinds)]
    metric.name, metric.unit, metric.description = f"shop.{kind}.{seed}", "1", "A metric of the corpus."
    point = getattr(metric, kind).data_points.add(time_unix_nano=_START + seed * 1_000_000)
    if kind in ("gauge", "sum"):
        point.as_int = seed
        point.exemplars.add(as_int=seed, trace_id=trace_id(seed), filtered_attributes=attributes(words, seed))
    else:
        point.count, point.sum = seed, seed + 0.5
    point.attributes.extend([*attributes(words, seed), *web_attributes(words, seed)])
    point.MergeFromString(unknown("point"))
    metric.MergeFromString(unknown("item"))
