"""Convert any span to a dict in the form of Zipkin's JSON.

Used for spans whose keys need it, and for those with rare fields: events, a trace state, dropped items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf.message import DecodeError

from otelwp_agent.codecs.recurring import Recurring
from otelwp_agent.codecs.zipkin import endpoints
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.fragments import (
    ABSENT_START,
    DEBUG,
    DROPPED_ATTRIBUTES,
    DROPPED_EVENTS,
    DROPPED_LINKS,
    ERROR,
    SHARED,
    STATUS_CODE,
    TRACE_STATE,
    tags_of,
)
from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2
from otelwp_agent.model.attributes import as_string, decode

if TYPE_CHECKING:
    Record = dict[str, Any]

KINDS = ("", "", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
"""Zipkin's kinds by OTLP's number."""

MICROSECOND = 1000
"""Nanoseconds in Zipkin's unit."""

_CODES = {1: "OK", 2: "ERROR"}


def record(span: pb.OtlpSpan, rare: pb.Rare | None, service: str, base: dict[str, str]) -> Record:
    """Return a span with valid ids as a dict; `base` contains the tags of its resource and scope.

    For equal keys the last tag is kept; a span's own tags come after those of its scope.
    """
    kind = span.kind if span.kind < len(KINDS) else 0
    tags = {**base, **tags_of(span.attributes)}
    out: Record = {"traceId": span.trace_id.hex()}
    if is_id(span.parent_span_id, 8):
        out["parentId"] = span.parent_span_id.hex()
    out["id"] = span.span_id.hex()
    if KINDS[kind]:
        out["kind"] = KINDS[kind]
    out["name"] = span.name.decode(errors="replace")
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if tags.pop(ABSENT_START, "") != "true" and start >= MICROSECOND:
        out["timestamp"] = start // MICROSECOND
    if end:
        out["duration"] = max(1, (end - start) // MICROSECOND)
    _add_endpoints(out, tags, service, kind)
    for key, field in ((DEBUG, "debug"), (SHARED, "shared")):
        if tags.get(key) == "true":
            out[field] = True
            del tags[key]
    tags.pop(ERROR, None)
    tags.update(status_tags(span.status))
    if rare is not None:
        tags.update(rare_tags(rare))
        notes = annotated(rare)
        if notes:
            out["annotations"] = [{"timestamp": at, "value": value} for at, value in notes]
    if tags:
        out["tags"] = tags
    return out


def is_id(raw: bytes, size: int) -> bool:
    """Return whether `raw` is a valid id: `size` bytes that are not all 0."""
    return len(raw) == size and any(raw)


def status_tags(status: bytes) -> list[tuple[str, str]]:
    """Return a serialized status as tags; none if it is unset."""
    try:
        parsed = pb.Status.FromString(status)
    except DecodeError as error:
        message = "a status is not a serialized Status"
        raise MalformedError(message) from error
    code = _CODES.get(parsed.code)
    if code is None:
        return []
    if code == "OK":
        return [(STATUS_CODE, code)]
    return [(STATUS_CODE, code), (ERROR, parsed.message.decode(errors="replace"))]


def _add_endpoints(out: Record, tags: dict[str, str], service: str, kind: int) -> None:
    host, port = (tags.get(key, "") for key in endpoints.LOCAL)
    out["localEndpoint"] = {"serviceName": service, **endpoints.address(host, port)}
    keys = endpoints.peer_keys(tags, kind)
    remote = endpoints.remote({key: tags[key] for key in keys}) if keys else None
    if remote:
        out["remoteEndpoint"] = remote


def rare_tags(rare: pb.Rare) -> list[tuple[str, str]]:
    """Return the trace state and the counts of dropped items as tags."""
    tags = [(TRACE_STATE, rare.trace_state.decode(errors="replace"))] if rare.trace_state else []
    for key, count in (
        (DROPPED_ATTRIBUTES, rare.dropped_attributes_count),
        (DROPPED_EVENTS, rare.dropped_events_count),
        (DROPPED_LINKS, rare.dropped_links_count),
    ):
        if count:
            tags.append((key, str(count)))
    return tags


def annotated(rare: pb.Rare) -> list[tuple[int, str]]:
    """Return events as times in microseconds and texts."""
    return [(event.time_unix_nano // MICROSECOND, _annotation(event)) for event in rare.events]


def _annotation(event: pb.Event) -> str:
    """Return an event as text: its name, or `"name": {attributes}` if it has attributes (or a name in that form)."""
    name = event.name.decode(errors="replace")
    if not event.attributes and not event.dropped_attributes_count and not name.startswith('"'):
        return name
    members = dict(map(_members.__getitem__, event.attributes[:]))
    if event.dropped_attributes_count:
        members[DROPPED_ATTRIBUTES] = f'"{DROPPED_ATTRIBUTES}":{event.dropped_attributes_count}'
    return f"{orjson.dumps(name).decode()}: {{{','.join(members.values())}}}"


def _member(attribute: bytes) -> tuple[str, str]:
    """Return the key of an event's attribute, and the attribute as a member of a JSON object."""
    try:
        pair = projection_pb2.KeyValue.FromString(attribute)
    except DecodeError as error:
        message = "an attribute of an event is not a serialized KeyValue"
        raise MalformedError(message) from error
    key = pair.key.decode(errors="replace")
    return key, f"{orjson.dumps(key).decode()}:{_json_value(pair.value).decode()}"


_members: dict[bytes, tuple[str, str]] = Recurring(_member)


def _json_value(value: bytes) -> bytes:
    """Return a serialized AnyValue as JSON; values without a JSON type become text."""
    parsed = decode(value)
    match parsed.WhichOneof("value"):
        case None:
            return b"null"
        case "bool_value" | "int_value" | "array_value" | "kvlist_value":
            return as_string(parsed).encode()
        case "double_value" if parsed.double_value - parsed.double_value == 0:
            return orjson.dumps(parsed.double_value)
        case _:
            return orjson.dumps(as_string(parsed))
