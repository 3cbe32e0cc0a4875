"""Read spans of OTLP requests: divide a request by trace, summarize a trace, and return its spans as JSON data.

The functions have no state, so that any thread may call them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from otelwp_agent.errors import MalformedError
from otelwp_agent.sampling.consistent import TraceState, adjusted_count
from otelwp_agent.traces.usage import CORE, OwnerUsage, usage_of_rows, usage_of_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    from otelwp_agent.traces.usage import Measure

LONGEST_NAME = 200
"""Most characters of a name in a summary."""
LONGEST_VALUE = 2000
"""Most characters of the value of an attribute."""
MOST_OWNERS = 50
"""Most plugins and themes in a summary."""
LARGEST_WEIGHT = 1e6
"""Largest number of traces that one trace stands for: a hostile sender could claim any number."""
USAGE = "wordpress.plugin.usage"

_QUERIES = frozenset({"db.query.text", "db.statement"})
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_SUMMARIZED = ("http.route", "http.request.method", "http.response.status_code", "url.path", "wordpress.request.type")


@dataclass(slots=True)
class TracePart:
    """The spans of one trace in one request, from one resource; and what a list of traces shows of them."""

    trace_id: bytes
    body: bytes = b""
    """A serialized `ResourceSpans`."""
    spans: int = 0
    errors: int = 0
    start: int = 0
    """Start of the first span, in nanoseconds since 1970."""
    end: int = 0
    """End of the last span."""
    service: str = ""
    site: str = ""
    root: str = ""
    """Name of the span without a parent, "" if it is not among the spans."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attributes of the root span: route, method, status."""
    owners: set[str] = field(default_factory=set)
    weight: float = 1.0
    """Number of traces that it stands for, according to the sampling threshold in its trace state."""
    measure: Measure = "spans"
    usage: dict[str, OwnerUsage] = field(default_factory=dict)


def divide(body: bytes) -> list[TracePart]:
    """Return the parts of an export request, one for each trace and resource; raise `MalformedError`."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise MalformedError(f"not an export request with traces: {error}") from error
    return [part for group in request.resource_spans for part in _parts(group)]


def _parts(group: ResourceSpans) -> Iterable[TracePart]:
    resource = attributes_of(group.resource.attributes)
    service, site = _clip(resource.get("service.name", "")), _clip(resource.get("wordpress.site.host", ""))
    parts: dict[bytes, TracePart] = {}
    spans: dict[bytes, list[Span]] = {}
    for scope in group.scope_spans:
        for span in scope.spans:
            part = parts.get(span.trace_id)
            if part is None:
                part = parts[span.trace_id] = TracePart(span.trace_id, service=service, site=site)
                spans[span.trace_id] = []
            _add(part, span)
            spans[span.trace_id].append(span)
    for trace_id, part in parts.items():
        if not part.usage:
            part.usage = usage_of_spans(_timed(spans[trace_id]))
    if len(parts) == 1:
        next(iter(parts.values())).body = group.SerializeToString()
    else:
        for part in parts.values():
            part.body = _only(group, part.trace_id)
    return parts.values()


def _only(group: ResourceSpans, trace_id: bytes) -> bytes:
    """Return the resource with the spans of one trace."""
    copy = ResourceSpans(resource=group.resource, schema_url=group.schema_url)
    for scope in group.scope_spans:
        spans = [span for span in scope.spans if span.trace_id == trace_id]
        if spans:
            copy.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url, spans=spans)
    return copy.SerializeToString()


def _add(part: TracePart, span: Span) -> None:
    part.spans += 1
    part.errors += span.status.code == Status.STATUS_CODE_ERROR
    part.start = min(part.start or span.start_time_unix_nano, span.start_time_unix_nano)
    part.end = max(part.end, span.end_time_unix_nano)
    attributes = span.attributes
    if not span.parent_span_id:
        found = attributes_of(attributes)
        part.root = _clip(span.name)
        part.attributes = {key: _clip(found[key]) for key in _SUMMARIZED if key in found}
        part.weight = _weight(span.trace_state)
        _read_usage(part, span)
    if len(part.owners) < MOST_OWNERS and (owner := _owner(attributes)) != CORE:
        part.owners.add(owner)


def _read_usage(part: TracePart, root: Span) -> None:
    """Set the usage of a trace from the attribute of its root span, if it has one."""
    rows: list[str] = []
    profiled = False
    for each in root.attributes:
        if each.key == USAGE:
            rows = [value.string_value for value in each.value.array_value.values]
        profiled = profiled or each.key == "wordpress.profile_rate"
    if usage := usage_of_rows(rows, profiled=profiled):
        part.usage, part.measure = usage, "profiled" if profiled else "lower_bound"
        part.owners |= usage.keys() - {CORE, "other"}


def _weight(trace_state: str) -> float:
    """Return the number of traces that a trace with this trace state stands for, from 1 to `LARGEST_WEIGHT`."""
    threshold = TraceState.parse(trace_state).threshold if trace_state else None
    return 1.0 if threshold is None else min(LARGEST_WEIGHT, max(1.0, adjusted_count(threshold)))


def _timed(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Return what the own times and the usage of spans need."""
    timed: list[dict[str, Any]] = [
        {
            "id": span.span_id,
            "parent": span.parent_span_id,
            "start": span.start_time_unix_nano // 1000,
            "duration": max(0, span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
            "owner": _owner(span.attributes),
            "error": span.status.code == Status.STATUS_CODE_ERROR,
            "query": any(each.key in _QUERIES for each in span.attributes),
        }
        for span in spans
    ]
    timed.sort(key=lambda span: (span["start"], -span["duration"]))
    _add_self_times(timed)
    return timed


def _owner(attributes: Iterable[KeyValue]) -> str:
    """Return the plugin or theme that a span belongs to, else `CORE`."""
    for each in attributes:
        if each.key in ("wordpress.plugin", "wordpress.theme") and each.value.string_value:
            return _clip(each.value.string_value)
    return CORE


def spans_of(bodies: Iterable[bytes], most: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return at most `most` spans of serialized `ResourceSpans`, by start, and the attributes of the first resource.

    Times are in microseconds: `start` since 1970, `duration`, and `self`, which excludes the time of the children.
    """
    spans: list[dict[str, Any]] = []
    resource: dict[str, str] = {}
    for body in bodies:
        group = ResourceSpans.FromString(body)
        found = attributes_of(group.resource.attributes)
        resource = resource or found
        spans += [
            _span(span, found.get("service.name", ""), scope.scope.name)
            for scope in group.scope_spans
            for span in scope.spans
        ]
    spans.sort(key=lambda span: (span["start"], -span["duration"]))
    _add_self_times(spans)
    return spans[:most], resource


def self_times(spans: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sums of the spans' own microseconds by owner, the largest first."""
    sums: dict[str, int] = {}
    for span in spans:
        sums[span["owner"]] = sums.get(span["owner"], 0) + span["self"]
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _add_self_times(spans: list[dict[str, Any]]) -> None:
    """Set `self` of each span: its time that none of its children covers. Children may overlap each other."""
    covered: dict[str | bytes, int] = {}
    until: dict[str | bytes, int] = {}
    by_id = {span["id"]: span for span in spans}
    for span in spans:  # in the order of their starts
        parent = by_id.get(span["parent"])
        if parent is None or parent is span:
            continue
        start = max(span["start"], until.get(span["parent"], parent["start"]))
        end = min(span["start"] + span["duration"], parent["start"] + parent["duration"])
        if end > start:
            covered[span["parent"]] = covered.get(span["parent"], 0) + end - start
            until[span["parent"]] = end
    for span in spans:
        span["self"] = max(0, span["duration"] - covered.get(span["id"], 0))


def _span(span: Span, service: str, scope: str) -> dict[str, Any]:
    start = span.start_time_unix_nano // 1000
    return {
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": _clip(span.name),
        "kind": _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "unspecified",
        "start": start,
        "duration": max(0, span.end_time_unix_nano // 1000 - start),
        "error": span.status.code == Status.STATUS_CODE_ERROR,
        "message": span.status.message[:LONGEST_VALUE],
        "owner": _owner(span.attributes),
        "service": service,
        "scope": scope,
        "attributes": attributes_of(span.attributes),
        "events": [
            {
                "name": _clip(event.name),
                "at": event.time_unix_nano // 1000,
                "attributes": attributes_of(event.attributes),
            }
            for event in span.events
        ],
    }


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes as texts; long values are cut."""
    return {each.key[:LONGEST_NAME]: _text(each.value) for each in attributes}


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        found = f"[{', '.join(_text(each) for each in value.array_value.values)}]"
    elif kind == "kvlist_value":
        found = f"{{{', '.join(f'{each.key}: {_text(each.value)}' for each in value.kvlist_value.values)}}}"
    elif kind == "bool_value":
        found = "true" if value.bool_value else "false"
    elif kind == "bytes_value":
        found = value.bytes_value[:LONGEST_VALUE].hex()
    else:
        found = str(getattr(value, kind))
    return found[:LONGEST_VALUE]


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
