"""Convert Jaeger's Thrift (jaeger-idl, thrift/jaeger.thrift) in the binary protocol to OTLP.

A body is one `Batch`, as sent to Jaeger's HTTP endpoint, or a message of the services for batches (`submitBatches`,
`emitBatch`). Times are in microseconds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from otelwp_agent.codecs.jaeger.receiving import (
    NO_ID,
    PARENT,
    SAMPLED,
    Traces,
    event,
    joined,
    name_field,
    references,
    resource_of,
    scope_of,
    span_tag,
    special_fields,
    times,
)
from otelwp_agent.codecs.jaeger.thrift_binary import Reader
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, PARTS, too_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.codecs.jaeger.receiving import Reference, Scopes, Specials
    from otelwp_agent.codecs.key_value import Value

STRING, DOUBLE, BOOL, LONG, BINARY = range(5)
"""`TagType`."""

TAG_KEY, TAG_TYPE = 1, 2
TAG_VALUES = {STRING: 3, DOUBLE: 4, BOOL: 5, LONG: 6, BINARY: 7}
"""Number of the field with a tag's value, by the type of the tag."""

_TYPES: dict[int, type] = {STRING: bytes, DOUBLE: float, BOOL: bool, LONG: int, BINARY: bytes}
_DEFAULTS: dict[int, Value] = {STRING: "", DOUBLE: 0.0, BOOL: False, LONG: 0, BINARY: b""}
MAX_ENTRIES = 8192
"""Maximum number of cached tags, about 3 MB; when it is reached, all are removed."""

MAX_SIZE = 192
"""Maximum size in bytes of a cached tag."""

_FOLLOWS_FROM = 1
_MICROSECOND = 1000
_MAX_TIME = (1 << 64) - 1
_memory: dict[bytes, bytes] = {}

_trace_id = struct.Struct(">qq").pack
_span_id = struct.Struct(">q").pack


def decode(data: bytes, max_items: int = DEFAULT_MAX_ITEMS) -> Traces:
    """Decode a body; raise `MalformedError`, or `TooLargeError` for more than `max_items` spans."""
    traces = Traces()
    left = max_items
    for batch in _batches(Reader(data, PARTS * max_items).message()):
        spans = batch.get(2)
        if type(batch.get(1)) is not dict or type(spans) is not list:
            message = (
                "the Thrift body is not a Jaeger batch: it must be a struct of a process (1) and a list of spans (2)"
            )
            raise MalformedError(message)
        left -= len(spans)
        if left < 0:
            raise too_many(max_items)
        scopes = _process(batch[1], traces)
        for span in spans:
            if type(span) is not dict:
                raise MalformedError("the Thrift body is not a Jaeger batch: its spans are not structs")
            _add(traces, scopes, span)
    return traces


def _batches(message: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """Yield the batches of a message: the message itself, or those in its arguments."""
    if 2 in message or not message:  # noqa: PLR2004 - a batch's spans
        yield message
    else:
        arguments = message.get(1)
        for batch in arguments if type(arguments) is list else [arguments]:
            yield batch if type(batch) is dict else {}


def _process(process: dict[int, Any], traces: Traces) -> Scopes:
    service = _text(process.get(1), traces)
    return traces.process(service, resource_of(service, _tags(process.get(2), traces)))


def _add(traces: Traces, scopes: Scopes, span: dict[int, Any]) -> None:
    low, high, number, parent = (_integer(span, field) for field in (1, 2, 3, 4))
    trace_id, span_id = _trace_id(high, low), _span_id(number)
    fields, specials = _span_tags(span.get(10), traces)
    found = [_reference(each) for each in _structs(span.get(6))]
    parent_id, links = b"", b""
    if parent:
        parent_id = _span_id(parent)
        own = (trace_id, parent_id, True)
        found = [own, *(each for each in found if each != own)]
    if found:
        parent_id, links = references(found, trace_id)
    start, length = _integer(span, 8), _integer(span, 9)
    if length < 0:
        traces.repaired("negative_duration")
    begin = min(max(0, start) * _MICROSECOND, _MAX_TIME)
    end = min(begin + max(0, length) * _MICROSECOND, _MAX_TIME)
    logs = [
        event(max(0, _integer(log, 1)) * _MICROSECOND & _MAX_TIME, _tags(log.get(2), traces))
        for log in _structs(span.get(11))
    ]
    rest = (
        name_field(_text(span.get(5), traces)),
        times(0x39, begin, 0x41, end),
        fields,
        *logs,
        links,
        special_fields(specials) if specials else b"",
        SAMPLED if _integer(span, 7) & 1 else b"",
    )
    if trace_id == bytes(16) or span_id == NO_ID:
        traces.repaired("span_dropped")
        return
    records = scopes.setdefault(scope_of(specials), [])
    ids = b"\x0a\x10%b\x12\x08%b" % (trace_id, span_id)
    traces.add(records, ids, parent_id, b"".join((ids, PARENT + parent_id if parent_id else b"", *rest)))


def _reference(reference: dict[int, Any]) -> Reference:
    kind, low, high, span = (_integer(reference, field) for field in (1, 2, 3, 4))
    return _trace_id(high, low), _span_id(span), kind != _FOLLOWS_FROM


def _span_tags(tags: object, traces: Traces) -> tuple[bytes, Specials]:
    """Return a span's tags as its fields, and the tags that become other fields; short tags are cached."""
    specials: Specials = {}
    parts = []
    for tag in tags if type(tags) is list else ():
        found = _memory.get(tag) if type(tag) is bytes else None
        if found is None:
            before = traces.repairs.get("invalid_utf8")
            pairs = _tags([tag], traces)
            found = span_tag(*pairs[0], specials) if pairs else b""
            if (
                type(tag) is bytes
                and len(tag) <= MAX_SIZE
                # A second tag with such a key is an attribute, though the first is a field.
                and not (pairs and pairs[0][0] in specials)
                and before == traces.repairs.get("invalid_utf8")
            ):
                if len(_memory) >= MAX_ENTRIES:
                    _memory.clear()
                _memory[tag] = found
        parts.append(found)
    return joined(parts, specials), specials


def _tags(tags: object, traces: Traces) -> list[tuple[str, Value]]:
    """Return tags, each a struct or its bytes, as keys and values."""
    found = []
    for tag in tags if type(tags) is list else ():
        fields = Reader(tag).message() if type(tag) is bytes else tag
        if type(fields) is dict:
            found.append((_text(fields.get(TAG_KEY), traces), _value(fields, traces)))
    return found


def _value(tag: dict[int, Any], traces: Traces) -> Value:
    """Return a tag's value; if it is missing, the empty value of its type."""
    kind = tag.get(TAG_TYPE, STRING)
    if kind not in TAG_VALUES:
        kind = STRING
    value: Value | None = tag.get(TAG_VALUES[kind])
    if value is None or type(value) is not _TYPES[kind]:
        return _DEFAULTS[kind]
    return _text(value, traces) if kind == STRING else value


def _text(value: object, traces: Traces) -> str:
    """Return a text; decode it as Latin-1 if it is not UTF-8."""
    if type(value) is not bytes:
        return ""
    try:
        return value.decode()
    except UnicodeDecodeError:
        traces.repaired("invalid_utf8")
        return value.decode("latin-1")


def _integer(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    return value if type(value) is int else 0


def _structs(values: object) -> list[dict[int, Any]]:
    return [value for value in values if type(value) is dict] if type(values) is list else []
