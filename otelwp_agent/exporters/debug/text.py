"""Render telemetry as text for people, in three levels of detail.

* `basic`: one line of counts, read with a projection.
* `normal`: a line for each span, data point or log record, below its resource and scope.
* `detailed`: all data, as a tree. It is made from the protobuf descriptors, so that it has every field of the installed
  opentelemetry-proto; fields that are not set are not shown.

Times are ISO 8601 in UTC with nanoseconds, durations are milliseconds, ids are hex. Strings are quoted where they could
be mistaken for another type; characters that are not printable are escaped.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.message import Message

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model import projections
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import FieldDescriptor

Verbosity = Literal["basic", "normal", "detailed"]

LONGEST = 120
"""Largest number of characters of a value that `normal` shows."""

_STEP = "  "
_SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS = ("unset", "ok", "error")
_TEMPORALITY = ("", "delta", "cumulative")
_NO_RECORDED_VALUE = 1
"""Bit of a data point's flags: opentelemetry-proto, metrics.proto, DataPointFlags."""
_HEADINGS = {
    "resource_spans": "resource",
    "resource_metrics": "resource",
    "resource_logs": "resource",
    "scope_spans": "scope",
    "scope_metrics": "scope",
    "scope_logs": "scope",
    "entity_refs": "entity",
}
"""Headings for repeated fields whose heading is not their name in the singular."""


def render(signal: Signal, body: bytes, verbosity: Verbosity) -> str:
    """Return a serialized request as text that ends with a newline; raise `MalformedError` if it cannot be parsed."""
    if verbosity == "basic":
        counts = ", ".join(f"{count} {_counted(name, count)}" for name, count in outline(signal, body).items())
        return f"{signal.value}: {counts}\n"
    request: Any = projections.parse(request_class(signal).FromString, body)
    lines = _tree(request, "") if verbosity == "detailed" else _LINES[signal](request)
    return "".join(f"{line}\n" for line in lines)


def outline(signal: Signal, body: bytes) -> dict[str, int]:
    """Return the numbers of resources, metrics (if any) and items in a serialized request, by name."""
    counts = {f"resource_{signal.value.replace('traces', 'spans')}": 0}
    (resources,) = counts
    if signal is Signal.METRICS:
        points = projections.parse(pb.Points.FromString, body)
        counts[resources] = len(points.resources)
        counts["metrics"] = sum(len(scope.items) for resource in points.resources for scope in resource.scopes)
        counts["data_points"] = projections.count(signal, body)
    else:
        opaque = projections.parse(pb.Opaque.FromString, body)
        counts[resources] = len(opaque.resources)
        counts[signal.items] = projections.count(signal, body)
    return counts


def _counted(name: str, count: int) -> str:
    text = name.replace("_", " ")
    return text.removesuffix("s") if count == 1 else text


# -- values


def iso(nanoseconds: int) -> str:
    """Return a time in nanoseconds since 1970 as ISO 8601, or `(not set)` for 0."""
    if not nanoseconds:
        return "(not set)"
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def _duration(span: Any) -> str:  # noqa: ANN401 - generated messages have no types
    """Return the duration of a span, or "" if its start or end is not set."""
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return f"{(end - start) / 1e6:.3f} ms" if start and end else ""


def _quote(text: str) -> str:
    """Return a string as JSON, with characters that are not printable escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in quoted)


def _word(text: str) -> str:
    """Return a name, without quotes if it is unambiguous."""
    return text if text and text.isprintable() and '"' not in text and text == text.strip() else _quote(text)


def _bare(text: str) -> str:
    """Return a string as a value of `key=value`: without quotes if it is unambiguous, and cut if it is long."""
    if len(text) > LONGEST:
        return _quote(text[:LONGEST]) + "…"
    word = text.isprintable() and text[:1].isalpha() | (text[:1] == "/") and not any(c in text for c in ' "=,{}[]')
    return text if word and text not in ("true", "false") else _quote(text)


def _any(value: Any, string: Any = _quote) -> str:  # noqa: ANN401, PLR0911 - no types; a line for each kind
    """Return an AnyValue as text; `string` formats strings."""
    kind = value.WhichOneof("value")
    if kind is None:
        return "(empty)"
    inner = getattr(value, kind)
    if kind == "string_value":
        return str(string(inner))
    if kind == "bool_value":
        return "true" if inner else "false"
    if kind == "bytes_value":
        cut = string is _bare and len(inner) > LONGEST
        return f"0x{inner[:LONGEST].hex()}… ({len(inner)} bytes)" if cut else f"0x{inner.hex()}"
    if kind == "array_value":
        return "[" + ", ".join(_any(item) for item in inner.values) + "]"
    if kind == "kvlist_value":
        return "{" + ", ".join(f"{_word(item.key)}: {_any(item.value)}" for item in inner.values) + "}"
    return repr(inner)


def _pairs(attributes: Iterable[Any]) -> str:
    """Return attributes as `key=value key=value` after two spaces, or "" if there are none."""
    text = " ".join(f"{_word(item.key)}={_any(item.value, _bare)}" for item in attributes)
    return f"  {text}" if text else ""


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


# -- normal: a line for each item


def _below(request: Any, resources: str, scopes: str, items: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield (line, None) for each resource and scope, and (indent, item) for each item."""
    for resource in getattr(request, resources):
        yield f"resource{_pairs(resource.resource.attributes)}", None
        for scope in getattr(resource, scopes):
            name = f"{scope.scope.name} {scope.scope.version}".strip()
            yield f"{_STEP}scope{f' {_word(name)}' if name else ''}{_pairs(scope.scope.attributes)}", None
            for item in getattr(scope, items):
                yield 2 * _STEP, item


def _spans(request: Any) -> Iterator[str]:  # noqa: ANN401
    for text, span in _below(request, "resource_spans", "scope_spans", "spans"):
        if span is None:
            yield text
            continue
        ids = f"trace={span.trace_id.hex() or '-'} span={span.span_id.hex() or '-'}"
        ids += f" parent={span.parent_span_id.hex()}" if span.parent_span_id else ""
        took = _duration(span) or "(no duration)"
        status = f"  {_status(span.status)}" if span.status.code else ""
        kind = _named(_SPAN_KINDS, span.kind)
        more = "".join(
            f"  {len(found)} {_counted(name, len(found))}"
            for name, found in (("events", span.events), ("links", span.links))
            if found
        )
        yield f"{text}{_word(span.name)}  {kind}  {took}{status}  {ids}{more}{_pairs(span.attributes)}"


def _status(status: Any) -> str:  # noqa: ANN401
    text = _named(_STATUS, status.code)
    return f"{text} {_quote(status.message)}" if status.message else text


def _points(request: Any) -> Iterator[str]:  # noqa: ANN401
    for text, metric in _below(request, "resource_metrics", "scope_metrics", "metrics"):
        if metric is None:
            yield text
            continue
        kind = metric.WhichOneof("data") or "no data"
        data = getattr(metric, kind, None)
        temporality = _named(_TEMPORALITY, getattr(data, "aggregation_temporality", 0))
        traits = [kind.replace("_", " "), temporality, metric.unit]
        head = f"{text}{_word(metric.name)} ({', '.join(trait for trait in traits if trait)})"
        points = data.data_points if data is not None else ()
        if not points:
            yield head
        for point in points:
            yield f"{head}  {_point(point)}  {iso(point.time_unix_nano)}{_pairs(point.attributes)}"


def _point(point: Any) -> str:  # noqa: ANN401
    """Return the value of a data point of any kind as text."""
    if point.flags & _NO_RECORDED_VALUE:
        return "(no recorded value)"
    if hasattr(point, "as_int"):
        kind = point.WhichOneof("value")
        return repr(getattr(point, kind)) if kind else "(no value)"
    parts = [f"count={point.count}"]
    if hasattr(point, "quantile_values"):
        parts.append(f"sum={point.sum}")
        parts += [f"p{100 * each.quantile:g}={each.value}" for each in point.quantile_values]
    else:
        parts += [f"{name}={getattr(point, name)}" for name in ("sum", "min", "max") if point.HasField(name)]
    return " ".join(parts)


def _records(request: Any) -> Iterator[str]:  # noqa: ANN401
    for text, record in _below(request, "resource_logs", "scope_logs", "log_records"):
        if record is None:
            yield text
            continue
        level = record.severity_text or (f"severity {record.severity_number}" if record.severity_number else "-")
        ids = f"  trace={record.trace_id.hex()}" if record.trace_id else ""
        ids += f" span={record.span_id.hex()}" if record.span_id else ""
        name = f"  {_word(record.event_name)}" if record.event_name else ""
        at = iso(record.time_unix_nano or record.observed_time_unix_nano)
        yield f"{text}{at}  {_word(level)}{name}  {_any(record.body)}{ids}{_pairs(record.attributes)}"


_LINES = {Signal.TRACES: _spans, Signal.METRICS: _points, Signal.LOGS: _records}


# -- detailed: the whole tree


def _tree(message: Any, indent: str, *, headed: bool = False) -> Iterator[str]:  # noqa: ANN401
    """Yield the fields of a message: first those of one line, aligned, then those of several lines.

    `headed` leaves out the name, which is already in the heading above.
    """
    lines: list[tuple[str, str]] = []
    blocks: list[tuple[FieldDescriptor, Any]] = []
    for field, value in message.ListFields():
        text = _line(field, value)
        if field.name == "name" and headed:
            continue
        if text is None:
            blocks.append((field, value))
        else:
            lines.append((field.name.removesuffix("_unix_nano").replace("_", " "), text))
            if field.name == "end_time_unix_nano":
                lines.append(("duration", _duration(message) or "(no start)"))
    width = max((len(name) for name, _ in lines), default=0) + 1
    for name, text in lines:
        yield f"{indent}{name + ':':<{width}} {text}"
    for field, value in blocks:
        yield from _block(field, value, indent)
    if message.DESCRIPTOR.name in ("HistogramDataPoint", "ExponentialHistogramDataPoint"):
        yield from _buckets(message, indent)


def _line(field: FieldDescriptor, value: Any) -> str | None:  # noqa: ANN401, PLR0911 - one line for each kind of field
    """Return the value of a field as text if it fits on one line, else `None`."""
    if field.message_type is not None:
        name = field.message_type.name
        if name == "AnyValue":
            return _any(value)
        return _status(value) if name == "Status" else None
    if _is_repeated(value):
        return ", ".join(_quote(item) if isinstance(item, str) else repr(item) for item in value)
    if field.name.endswith("time_unix_nano"):
        return iso(value)
    if field.name == "flags":
        return f"0x{value:x}"
    if field.enum_type is not None:
        return _enum(field, value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quote(value) if isinstance(value, str) else repr(value)


def _is_repeated(value: object) -> bool:
    return not isinstance(value, (int, float, str, bytes, Message))


def _enum(field: FieldDescriptor, value: int) -> str:
    """Return the name of an enum value without the common prefix: `server` for `SPAN_KIND_SERVER`."""
    enum: Any = field.enum_type
    named = enum.values_by_number.get(value)
    if named is None:
        return str(value)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(named.name.removeprefix(prefix).removeprefix("STATUS_CODE_").lower())


def _block(field: FieldDescriptor, value: Any, indent: str) -> Iterator[str]:  # noqa: ANN401
    """Yield the lines of a field that takes several."""
    deeper = indent + _STEP
    kind: Any = field.message_type
    if not _is_repeated(value):
        if field.name in ("resource", "scope"):
            yield from _tree(value, indent)
            return
        if kind.name != "Buckets":
            yield f"{indent}{field.name.replace('_', ' ')}"
            yield from _tree(value, deeper)
        return
    if kind.name == "KeyValue":
        yield f"{indent}{field.name.replace('_', ' ')}:"
        for item in value:
            yield f"{deeper}{_word(item.key)}: {_any(item.value)}"
        return
    heading = _HEADINGS.get(field.name, field.name.removesuffix("s").replace("_", " "))
    for number, item in enumerate(value):
        name = getattr(item, "name", "")
        yield f"{indent}{heading} #{number}{f'  {_word(name)}' if name else ''}"
        yield from _tree(item, deeper, headed=True)


def _buckets(point: Any, indent: str) -> Iterator[str]:  # noqa: ANN401
    """Yield the non-empty buckets of a histogram with their bounds, lowest first."""
    if hasattr(point, "explicit_bounds"):
        bounds = ["-inf", *map(repr, point.explicit_bounds), "+inf"]
        rows = [
            (f"({low}, {high}]", count)
            for low, high, count in zip(bounds, bounds[1:], point.bucket_counts, strict=False)
        ]
    else:
        rows = [(f"[-{high}, -{low})", count) for low, high, count in reversed(_exponential(point, point.negative))]
        zero = point.zero_threshold
        rows.append((f"[-{zero}, {zero}]" if zero else "[0, 0]", point.zero_count))
        rows += [(f"({low}, {high}]", count) for low, high, count in _exponential(point, point.positive)]
    full = [(bounds, count) for bounds, count in rows if count]
    if full:
        yield f"{indent}buckets:"
    width = max((len(text) for text, _ in full), default=0) + 1
    for text, count in full:
        yield f"{indent}{_STEP}{text + ':':<{width}} {count}"


def _exponential(point: Any, buckets: Any) -> list[tuple[str, str, int]]:  # noqa: ANN401
    """Return (lower bound, upper bound, count) of each positive or negative bucket of an exponential histogram.

    Bucket i is (base^i, base^(i+1)], base = 2^(2^-scale).
    """
    rows: list[tuple[str, str, int]] = []
    for number, count in enumerate(buckets.bucket_counts):
        index = buckets.offset + number
        rows.append((_power(index, point.scale), _power(index + 1, point.scale), count))
    return rows


def _power(index: int, scale: int) -> str:
    try:
        return f"{2.0 ** (index * 2.0**-scale):.6g}"
    except OverflowError:
        return f"2^({index}·2^{-scale})"
