"""Convert OTLP to Jaeger's protobuf (jaeger-idl, proto/api_v2): one `PostSpansRequest` for the whole request.

It has one process for all spans; if there are several resources, each span contains its own process.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from otelwp_agent.codecs.jaeger.receiving import WARNINGS
from otelwp_agent.codecs.jaeger.sending import Process, Tags, event_fields, field_tags, is_child_of, processes
from otelwp_agent.model.wire import prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.codecs.jaeger import jaeger_pb2 as pb
    from otelwp_agent.codecs.key_value import Value

_SECOND = 10**9
_double = struct.Struct("<Bd").pack
_WARNINGS = WARNINGS.encode()
_TAG, _FIELD, _PROCESS_TAG = b"\x42", b"\x12", b"\x12"
"""Tags of `Span.tags` (8), `Log.fields` (2) and `Process.tags` (2)."""


def encode(body: bytes) -> bytes:
    """Convert a trace request to a serialized `PostSpansRequest`, "" if there is no span; raise `MalformedError`."""
    found = processes(body)
    spans = []
    for process in found:
        own = prefixed(b"\x52", _process(process)) if len(found) > 1 else b""
        for scope, scope_spans in process.scopes:
            tags = _known.of(scope)
            spans += [prefixed(b"\x0a", _span(span, tags) + own) for span in scope_spans]
    if not spans:
        return b""
    return prefixed(b"\x0a", b"".join(spans) + prefixed(b"\x12", _process(found[0])))


def _process(process: Process) -> bytes:
    return prefixed(b"\x0a", process.service) + _join(_PROCESS_TAG, _known.of(process.attributes))


def _span(span: pb.OtlpSpan, scope_tags: list[bytes]) -> bytes:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    attributes: Sequence[bytes] = span.attributes
    warnings = b""
    if any(_WARNINGS in each for each in attributes):
        attributes, warnings = _without_warnings(attributes)
    tags = [*scope_tags, *_known.of(field_tags(span)), *_known.of(attributes)]
    return b"".join(
        (
            prefixed(b"\x0a", span.trace_id),
            prefixed(b"\x12", span.span_id),
            prefixed(b"\x1a", span.name),
            _references(span),
            b"\x28\1" if span.flags & 1 else b"",
            prefixed(b"\x32", _moment(start)),
            prefixed(b"\x3a", _moment(max(0, end - start))),
            _join(_TAG, tags),
            *[_log(event) for event in span.events],
            warnings,
        )
    )


def _references(span: pb.OtlpSpan) -> bytes:
    """Return the references, the parent's first."""
    references = []
    if span.parent_span_id:
        references.append(prefixed(b"\x22", prefixed(b"\x0a", span.trace_id) + prefixed(b"\x12", span.parent_span_id)))
    for link in span.links:
        kind = b"" if is_child_of(link) else b"\x18\1"
        ids = prefixed(b"\x0a", link.trace_id) + prefixed(b"\x12", link.span_id)
        references.append(prefixed(b"\x22", ids + kind))
    return b"".join(references)


def _log(event: pb.Event) -> bytes:
    at = prefixed(b"\x0a", _moment(event.time_unix_nano))
    return prefixed(b"\x4a", at + _join(_FIELD, _known.of(event_fields(event))))


def _moment(nanoseconds: int) -> bytes:
    """Return a Timestamp or Duration."""
    seconds, nanos = divmod(nanoseconds, _SECOND)
    return (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(nanos) if nanos else b"")


def _without_warnings(attributes: Sequence[bytes]) -> tuple[list[bytes], bytes]:
    """Split a span's attributes into those without warnings, and the warnings as a field of the span."""
    rest, warnings = [], []
    for each in attributes:
        texts = _warning_texts(each)
        if texts is None:
            rest.append(each)
        else:
            warnings += texts
    return rest, _join(b"\x62", [prefixed(b"", text) for text in warnings])


def _warning_texts(key_value: bytes) -> list[bytes] | None:
    from otelwp_agent.model import projection_pb2 as projection  # noqa: PLC0415 - few spans have warnings

    parsed = projection.KeyValue.FromString(key_value)
    if parsed.key != _WARNINGS:
        return None
    value = projection.AnyValue.FromString(parsed.value)
    texts = [each.string_value for each in value.array_value.values if each.WhichOneof("value") == "string_value"]
    return texts if texts and len(texts) == len(value.array_value.values) else None


def _join(tag: bytes, parts: Sequence[bytes]) -> bytes:
    """Return length-prefixed parts as fields."""
    return tag + tag.join(parts) if parts else b""


def _tag(key: bytes, value: Value) -> bytes:
    """Return a length-prefixed KeyValue: key 1, v_type 2, and the value in the field of its type."""
    if isinstance(value, str):
        rest = prefixed(b"\x1a", value.encode())
    elif isinstance(value, bool):
        rest = b"\x10\1" + (b"\x20\1" if value else b"")
    elif isinstance(value, int):
        rest = b"\x10\2\x28" + varint(value)
    elif isinstance(value, float):
        rest = b"\x10\3" + _double(0x31, value)
    else:
        rest = b"\x10\4" + prefixed(b"\x3a", value)
    return prefixed(b"", prefixed(b"\x0a", key) + rest)


_known = Tags(_tag)
