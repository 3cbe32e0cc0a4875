"""Convert Jaeger's protobuf (jaeger-idl, proto/api_v2) to OTLP: the `PostSpansRequest` of its gRPC collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.codecs.jaeger import jaeger_pb2 as pb
from otelwp_agent.codecs.jaeger.receiving import (
    ATTRIBUTE,
    NO_ID,
    PARENT,
    SAMPLED,
    WARNINGS,
    Traces,
    event,
    joined,
    name_field,
    references,
    resource_of,
    scope_of,
    span_tag,
    special_fields,
    texts,
    times,
)
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, refuse_too_many

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelwp_agent.codecs.jaeger.receiving import Scopes, Specials
    from otelwp_agent.codecs.key_value import Value

STRING, BOOL, INT64, FLOAT64, BINARY = range(5)
"""`ValueType`."""

MAX_ENTRIES = 8192
"""Maximum number of cached tags, about 3 MB; when it is reached, all are removed."""

MAX_SIZE = 128
"""Maximum size in bytes of a cached tag."""

_SPANS = frozenset({pb.Batch.DESCRIPTOR.fields_by_name["spans"].full_name})
_FOLLOWS_FROM = 1
_SECOND = 10**9
_MAX_TIME = (1 << 64) - 1
_memory: dict[bytes, bytes] = {}


def decode(data: bytes, max_items: int = DEFAULT_MAX_ITEMS) -> Traces:
    """Decode a request; raise `MalformedError`, or `TooLargeError` for more than `max_items` spans."""
    traces = Traces()
    refuse_too_many(data, pb.PostSpansRequest, max_items, items=_SPANS)
    try:
        batch = pb.PostSpansRequest.FromString(data).batch
        shared: Scopes | None = None
        for span in batch.spans:
            if span.HasField("process"):
                scopes = _process(pb.Process.FromString(span.process), traces)
            else:
                scopes = shared = _process(batch.process, traces) if shared is None else shared
            _add(traces, scopes, span)
    except DecodeError as error:
        message = "the message is not a serialized jaeger.api_v2.PostSpansRequest"
        raise MalformedError(message) from error
    return traces


def _process(process: pb.Process, traces: Traces) -> Scopes:
    service = _text(process.service_name, traces)
    return traces.process(service, resource_of(service, _tags(process.tags, traces)))


def _add(traces: Traces, scopes: Scopes, span: pb.Span) -> None:
    trace_id, span_id = _id(span.trace_id, 16), _id(span.span_id, 8)
    if not any(trace_id) or span_id == NO_ID:
        traces.repaired("span_dropped")
        return
    fields, specials = _span_tags(span.tags, traces)
    parent = links = b""
    if span.references:
        found = [(_id(ref.trace_id, 16), _id(ref.span_id, 8), ref.ref_type != _FOLLOWS_FROM) for ref in span.references]
        parent, links = references(found, trace_id)
    begin = min(max(0, _nanoseconds(span.start_time)), _MAX_TIME)
    length = _nanoseconds(span.duration)
    if length < 0:
        traces.repaired("negative_duration")
    end = min(begin + max(0, length), _MAX_TIME)
    rest = (
        name_field(_text(span.operation_name, traces)),
        times(0x39, begin, 0x41, end),
        fields,
        _warnings(span, traces),
        *[event(min(max(0, _nanoseconds(log.timestamp)), _MAX_TIME), _tags(log.fields, traces)) for log in span.logs],
        links,
        special_fields(specials) if specials else b"",
        SAMPLED if span.flags & 1 else b"",
    )
    records = scopes.setdefault(scope_of(specials), [])
    ids = b"\x0a\x10%b\x12\x08%b" % (trace_id, span_id)
    traces.add(records, ids, parent, b"".join((ids, PARENT + parent if parent else b"", *rest)))


def _warnings(span: pb.Span, traces: Traces) -> bytes:
    if not span.warnings:
        return b""
    return ATTRIBUTE + texts(WARNINGS, [_text(warning, traces) for warning in span.warnings])


def _span_tags(tags: Iterable[bytes], traces: Traces) -> tuple[bytes, Specials]:
    specials: Specials = {}
    parts = []
    for tag in tags:
        found = _memory.get(tag)
        if found is None:
            before = traces.repairs.get("invalid_utf8")
            key, value = _tag(tag, traces)
            found = span_tag(key, value, specials)
            # A second tag with such a key is an attribute, though the first is a field.
            if len(tag) <= MAX_SIZE and key not in specials and before == traces.repairs.get("invalid_utf8"):
                if len(_memory) >= MAX_ENTRIES:
                    _memory.clear()
                _memory[tag] = found
        parts.append(found)
    return joined(parts, specials), specials


def _tags(tags: Iterable[bytes], traces: Traces) -> list[tuple[str, Value]]:
    return [_tag(tag, traces) for tag in tags]


def _tag(tag: bytes, traces: Traces) -> tuple[str, Value]:
    pair = pb.KeyValue.FromString(tag)
    value: Value
    match pair.v_type:
        case 1:
            value = pair.v_bool
        case 2:
            value = pair.v_int64
        case 3:
            value = pair.v_float64
        case 4:
            value = pair.v_binary
        case _:
            value = _text(pair.v_str, traces)
    return _text(pair.key, traces), value


def _text(value: bytes, traces: Traces) -> str:
    """Return a text; decode it as Latin-1 if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        traces.repaired("invalid_utf8")
        return value.decode("latin-1")


def _id(raw: bytes, size: int) -> bytes:
    """Return an id of `size` bytes; Jaeger omits the upper half of a short trace id."""
    return raw if len(raw) == size else raw[-size:].rjust(size, b"\0")


def _nanoseconds(moment: pb.Moment) -> int:
    return moment.seconds * _SECOND + moment.nanos
