"""Convert OTLP to the common parts of Jaeger's formats: the tags, references and logs of a span.

The rules are OpenTelemetry's (specification 1.50, "OpenTelemetry to Jaeger Transformation"): the resource becomes the
process, with `service.name` as its name; scope, kind, status and trace state become tags; events become logs with their
name in `event`; the parent becomes the first reference, CHILD_OF; links become FOLLOWS_FROM references.
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
"""Name of a process whose resource has none, as in the Collector's translator; Jaeger requires a name."""

MAX_ENTRIES = 8192
"""Maximum number of cached tags in each format; when it is reached, all are removed."""

MAX_SIZE = 127
"""Maximum size in bytes of a cached attribute."""

_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_CODES = {1: "OK", 2: "ERROR"}
_CHILD_OF = attribute("opentracing.ref_type", "child_of")[1:]
_NAMES = (b"event", b"message")
"""Fields of a log that readers use as its name."""


class Process(NamedTuple):
    """A resource: its service's name, its other attributes, and its spans with their scopes' tags."""

    service: bytes
    attributes: list[bytes]
    scopes: list[tuple[list[bytes], Sequence[pb.OtlpSpan]]]


def processes(body: bytes) -> list[Process]:
    """Return the contents of a trace request, with equal resources merged; raise `MalformedError`.

    Attributes and a scope's tags are serialized KeyValues.
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
    """Return a serialized KeyValue's key and value; arrays and maps become JSON text, an empty value becomes ""."""
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
    """Converts attributes to tags of one format with `write(key, value)`, and caches short ones."""

    __slots__ = ("_memory", "_write")

    def __init__(self, write: Callable[[bytes, Value], bytes]) -> None:
        """Use `write` to serialize a tag."""
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
    """Return a KeyValue without its length prefix."""
    body = attribute(key, value)
    return body[2 if body[0] & 0x80 else 1 :]


_KIND_TAGS = {number: _made("span.kind", kind) for number, kind in _KINDS.items()}
_CODE_TAGS = {
    1: [_made("otel.status_code", "OK")],
    2: [_made("otel.status_code", "ERROR"), _made("error", value=True)],
}


def _scope_tags(scope: pb.Scope) -> list[bytes]:
    """Return a scope's name and version as tags, with their current and their former keys."""
    named = (("name", scope.name), ("version", scope.version))
    return [_text_tag(f"otel.{kind}.{key}", text) for key, text in named if text for kind in ("scope", "library")]


def _text_tag(key: str, text: bytes) -> bytes:
    return projection.KeyValue(
        key=key.encode(), value=projection.AnyValue(string_value=text).SerializeToString()
    ).SerializeToString()


def field_tags(span: pb.OtlpSpan) -> list[bytes]:
    """Return the tags for a span's other fields, as KeyValues."""
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
    """Return an event's attributes, its name first. An empty name is written if another field could be taken for it."""
    attributes = list(event.attributes)
    if event.name or any(pair(each)[0] in _NAMES for each in attributes):
        return [_text_tag("event", event.name), *attributes]
    return attributes


def is_child_of(link: pb.Link) -> bool:
    """Return whether a link was made from a CHILD_OF reference."""
    return _CHILD_OF in link.attributes
