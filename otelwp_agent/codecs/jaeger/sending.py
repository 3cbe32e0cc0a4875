"""OTLP → Jaeger, but for the form it is written in: which tags, references and logs a span has.

The rules are OpenTelemetry's (specification 1.50, "OpenTelemetry to Jaeger Transformation"): the resource is the
process, `service.name` its name; scope, kind, status and trace state become tags, events logs with their name in
`event`, the parent a CHILD_OF reference that stands first, links FOLLOWS_FROM references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from otelwp_agent.codecs.jaeger import jaeger_pb2 as pb
from otelwp_agent.codecs.key_value import attribute
from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as projection
from otelwp_agent.model.attributes import as_string

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.codecs.key_value import Value

NO_SERVICE = b"OTLPResourceNoServiceName"
"""The name of a process whose resource has none, as the Collector's translator has it; Jaeger needs one."""

MAX_ENTRIES = 8192
"""Tags that are remembered in each form; when full, everything is forgotten."""

MAX_SIZE = 127
"""The largest attribute that is remembered, in bytes."""

_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_CODES = {1: "OK", 2: "ERROR"}
_CHILD_OF = attribute("opentracing.ref_type", "child_of")[1:]
_NAMES = (b"event", b"message")
"""The fields of a log that its reader takes for its name."""


class Process(NamedTuple):
    """A resource: its service's name, its other attributes, and its spans with the scopes' tags."""

    service: bytes
    attributes: list[bytes]
    scopes: list[tuple[list[bytes], Sequence[pb.OtlpSpan]]]


def processes(body: bytes) -> list[Process]:
    """Return what a trace request holds, equal resources in one; raise `MalformedError`.

    Attributes are serialized KeyValues, and so are a scope's tags.
    """
    found: dict[bytes, Process] = {}
    try:
        for resource in pb.Traces.FromString(body).resources:
            process = found.get(resource.resource)
            if process is None:
                process = found[resource.resource] = _process(resource.resource)
            for scope in resource.scopes:
                process.scopes.append((_scope_tags(scope.scope), scope.spans))
    except DecodeError as error:
        message = "the body is not a serialized OTLP trace request"
        raise MalformedError(message) from error
    return [process for process in found.values() if process.scopes]


def _process(resource: bytes) -> Process:
    attributes = list(pb.Resource.FromString(resource).attributes)
    service = b""
    rest = []
    for each in attributes:
        key, value = pair(each)
        if key == b"service.name" and isinstance(value, str):
            service = service or value.encode()
        else:
            rest.append(each)
    return Process(service or NO_SERVICE, rest, [])


def pair(key_value: bytes) -> tuple[bytes, Value]:
    """Return a serialized KeyValue's key and value; arrays and maps are JSON text, nothing is an empty text."""
    parsed = projection.KeyValue.FromString(key_value)
    any_value = projection.AnyValue.FromString(parsed.value)
    match any_value.WhichOneof("value"):
        case "bool_value":
            return parsed.key, any_value.bool_value
        case "int_value":
            return parsed.key, any_value.int_value
        case "double_value":
            return parsed.key, any_value.double_value
        case "bytes_value":
            return parsed.key, any_value.bytes_value
        case _:
            return parsed.key, as_string(any_value)


class Tags:
    """Attributes as tags in one form, which `write(key, value)` gives; short ones are remembered."""

    __slots__ = ("_memory", "_write")

    def __init__(self, write: Callable[[bytes, Value], bytes]) -> None:
        """Write tags so."""
        self._write = write
        self._memory: dict[bytes, bytes] = {}

    def of(self, attributes: Sequence[bytes]) -> list[bytes]:
        """Return attributes as tags."""
        known = self._memory.get
        return [known(each) or self._new(each) for each in attributes]

    def _new(self, key_value: bytes) -> bytes:
        tag = self._write(*pair(key_value))
        if len(key_value) <= MAX_SIZE:
            if len(self._memory) >= MAX_ENTRIES:
                self._memory.clear()
            self._memory[key_value] = tag
        return tag


def _made(key: str, value: Value) -> bytes:
    """Return a KeyValue without the length before it."""
    body = attribute(key, value)
    return body[2 if body[0] & 0x80 else 1 :]


_KIND_TAGS = {number: _made("span.kind", kind) for number, kind in _KINDS.items()}
_CODE_TAGS = {
    1: [_made("otel.status_code", "OK")],
    2: [_made("otel.status_code", "ERROR"), _made("error", value=True)],
}


def _scope_tags(scope: pb.Scope) -> list[bytes]:
    """Return a scope's name and version, under the names that they have and those that they had before."""
    named = (("name", scope.name), ("version", scope.version))
    return [_text_tag(f"otel.{kind}.{key}", text) for key, text in named if text for kind in ("scope", "library")]


def _text_tag(key: str, text: bytes) -> bytes:
    return projection.KeyValue(
        key=key.encode(), value=projection.AnyValue(string_value=text).SerializeToString()
    ).SerializeToString()


def field_tags(span: pb.OtlpSpan) -> list[bytes]:
    """Return the tags that a span's other fields make, as KeyValues."""
    tags = []
    kind = _KIND_TAGS.get(span.kind)
    if kind is not None:
        tags.append(kind)
    if span.HasField("status"):
        status = span.status
        tags += _CODE_TAGS.get(status.code, ())
        if status.message:
            tags.append(_text_tag("otel.status_description", status.message))
    if span.trace_state:
        tags.append(_text_tag("w3c.tracestate", span.trace_state))
    return tags


def event_fields(event: pb.Event) -> list[bytes]:
    """Return an event's attributes, its name first. An empty name stands there if another would be taken for it."""
    attributes = list(event.attributes)
    if event.name or any(pair(each)[0] in _NAMES for each in attributes):
        return [_text_tag("event", event.name), *attributes]
    return attributes


def is_child_of(link: pb.Link) -> bool:
    """Whether a link came from a CHILD_OF reference."""
    return _CHILD_OF in link.attributes
