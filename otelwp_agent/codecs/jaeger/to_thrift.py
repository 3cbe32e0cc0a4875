"""Convert OTLP to Jaeger's Thrift (jaeger-idl, thrift/jaeger.thrift) in the binary protocol.

Each resource becomes one `Batch`. Thrift times are in microseconds. It has only the value types of its tags, and no
warnings besides tags.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from otelwp_agent.codecs.jaeger.receiving import NO_ID
from otelwp_agent.codecs.jaeger.sending import Tags, event_fields, field_tags, is_child_of, processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.codecs.jaeger import jaeger_pb2 as pb
    from otelwp_agent.codecs.key_value import Value

_MICROSECOND = 1000
_MAX_I64 = (1 << 63) - 1

_size = struct.Struct(">i").pack
_list = struct.Struct(">bhbi").pack
_tag_head = struct.Struct(">bhi").pack
_tag_type = struct.Struct(">bhibh").pack
_long = struct.Struct(">q").pack
_double = struct.Struct(">d").pack
_ids = struct.Struct(">bh8sbh8sbh8sbh8sbhi").pack
_times = struct.Struct(">bhibhqbhq").pack
_reference = struct.Struct(">bhibh8sbh8sbh8sb").pack
_log = struct.Struct(">bhqbhbi").pack
_STOP = b"\0"


def encode(body: bytes) -> list[bytes]:
    """Convert a trace request to batches, one for each resource; raise `MalformedError`."""
    return [
        b"".join(
            (
                b"\x0c\x00\x01",
                _text(1, process.service),
                _tags(2, _known.of(process.attributes)),
                _STOP,
                _spans(process.scopes),
                _STOP,
            )
        )
        for process in processes(body)
    ]


def _spans(scopes: Sequence[tuple[list[bytes], Sequence[pb.OtlpSpan]]]) -> bytes:
    spans = [_span(span, tags) for scope, found in scopes for tags in [_known.of(scope)] for span in found]
    return _list(15, 2, 12, len(spans)) + b"".join(spans)


def _span(span: pb.OtlpSpan, scope_tags: list[bytes]) -> bytes:
    trace_id, parent = span.trace_id.rjust(16, b"\0"), span.parent_span_id
    own, attributes = field_tags(span), span.attributes
    tags = [*scope_tags, *_known.of(own), *_known.of(attributes)]
    start = span.start_time_unix_nano // _MICROSECOND
    end = span.end_time_unix_nano // _MICROSECOND
    name = span.name
    return b"".join(
        (
            _ids(
                *(10, 1, trace_id[8:16]),
                *(10, 2, trace_id[:8]),
                *(10, 3, span.span_id),
                *(10, 4, parent or NO_ID),
                *(11, 5, len(name)),
            ),
            name,
            _references(span, trace_id) if span.links else b"",
            _times(*(8, 7, span.flags & 1), *(10, 8, start), *(10, 9, max(0, end - start))),
            _tags(10, tags) if tags else b"",
            _logs(span.events) if span.events else b"",
            _STOP,
        )
    )


def _references(span: pb.OtlpSpan, trace_id: bytes) -> bytes:
    """Return the references. The parent is first, because readers that ignore the parent field expect it there."""
    references = []
    if span.parent_span_id:
        references.append(_reference(8, 1, 0, 10, 2, trace_id[8:], 10, 3, trace_id[:8], 10, 4, span.parent_span_id, 0))
    for link in span.links:
        other = link.trace_id.rjust(16, b"\0")
        kind = 0 if is_child_of(link) else 1
        references.append(_reference(8, 1, kind, 10, 2, other[8:], 10, 3, other[:8], 10, 4, link.span_id, 0))
    return _list(15, 6, 12, len(references)) + b"".join(references)


def _logs(events: Sequence[pb.Event]) -> bytes:
    logs: list[bytes] = []
    for event in events:
        fields = _known.of(event_fields(event))
        head = _log(10, 1, event.time_unix_nano // _MICROSECOND, 15, 2, 12, len(fields))
        logs += (head, *fields, _STOP)
    return _list(15, 11, 12, len(events)) + b"".join(logs)


def _tags(field: int, tags: Sequence[bytes]) -> bytes:
    return _list(15, field, 12, len(tags)) + b"".join(tags)


def _text(field: int, text: bytes) -> bytes:
    return _tag_head(11, field, len(text)) + text


def _tag(key: bytes, value: Value) -> bytes:
    """Return a tag as a struct: key 1, type 2, and the value in the field of its type."""
    head = _text(1, key)
    if isinstance(value, str):
        text = value.encode()
        return b"".join((head, _tag_type(8, 2, 0, 11, 3), _size(len(text)), text, _STOP))
    if isinstance(value, bool):
        return b"".join((head, _tag_type(8, 2, 2, 2, 5), b"\1" if value else b"\0", _STOP))
    if isinstance(value, int):
        return b"".join((head, _tag_type(8, 2, 3, 10, 6), _long(value), _STOP))
    if isinstance(value, float):
        return b"".join((head, _tag_type(8, 2, 1, 4, 4), _double(value), _STOP))
    return b"".join((head, _tag_type(8, 2, 4, 11, 7), _size(len(value)), value, _STOP))


_known = Tags(_tag)
