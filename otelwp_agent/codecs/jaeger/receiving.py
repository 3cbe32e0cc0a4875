"""Convert Jaeger spans in any format to OTLP: the rules for tags, references and logs, and the assembly.

The rules are those of OpenTelemetry's compatibility documents (specification 1.50, "OpenTelemetry to Jaeger
Transformation" in reverse, "OpenTracing Compatibility") and of the Collector's Jaeger translator:

* `span.kind`, `error`, `otel.status_code`, `otel.status_description`, `otel.scope.name`, `otel.scope.version` and
  `w3c.tracestate` become fields of the span; without a tag for the status, an HTTP status determines it.
* The parent is the first CHILD_OF reference in the same trace, or else the first FOLLOWS_FROM in it. Every reference
  except a CHILD_OF parent becomes a link with `opentracing.ref_type`.
* A log becomes an event. Its name is its field `event`, or else `message`.
* A process becomes a resource; its `hostname` becomes `host.name`.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

from otelwp_agent.codecs.key_value import attribute, size_of
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelwp_agent.codecs.key_value import Value

    Specials = dict[str, Value]
    """The tags that become fields, by key."""
    Reference = tuple[bytes, bytes, bool]
    """Trace id, span id, and whether it is a CHILD_OF reference."""
    Scope = tuple[Value, Value]
    """Name and version."""
    Records = list[list[bytes]]
    """Spans: all fields, and the parent's id."""
    Scopes = dict[Scope, Records]
    """The spans of a process by scope."""

WORDPRESS_REQUEST = "wordpress.request"
"""The only name of root spans from the first WordPress plugin. They are server spans, though no tag has the kind."""

WARNINGS = "@jaeger@warnings"
"""Attribute with a span's warnings, as in Jaeger 2 (internal/jptrace)."""

SPECIAL_KEYS = frozenset(
    {
        "span.kind",
        "error",
        "otel.status_code",
        "otel.status_description",
        "otel.scope.name",
        "otel.scope.version",
        "otel.library.name",
        "otel.library.version",
        "w3c.tracestate",
        "http.status_code",
        "http.response.status_code",
        "http.status_message",
    }
)
"""Tags of a span with a special meaning."""

ATTRIBUTE, RESOURCE_ATTRIBUTE, EVENT_ATTRIBUTE, LINK_ATTRIBUTE = b"\x4a", b"\x0a", b"\x1a", b"\x22"
"""Field tags of `attributes` in trace.proto's Span (9), resource.proto's Resource (1), Event (3) and Link (4)."""

NO_ID = bytes(8)
NO_SCOPE: Scope = ("", "")

TRACE_SIZE = 20
"""Number of bytes before a span's own id: the trace id and two field tags."""

PARENT_SIZE = 10
"""Size in bytes of the field with the parent's id, which follows the ids."""

PARENT = b'"\x08'
"""Field tag and length before a parent's id."""

KINDS = {"internal": b"0\1", "server": b"0\2", "client": b"0\3", "producer": b"0\4", "consumer": b"0\5"}
SERVER = KINDS["server"]
"""The server kind as a field of a span (6)."""
_HTTP_SUCCESS = range(100, 400)
_CODES = {"OK": 1, "ERROR": 2, "UNSET": 0}
times = struct.Struct("<BQBQ").pack
_time = struct.Struct("<BQ").pack
SAMPLED = b"\x85\1\1\0\0\0"
"""`Span.flags` (16) with the W3C sampled bit."""


class Traces:
    """The spans of one body, collected for an OTLP request; `repairs` counts the repairs by kind."""

    __slots__ = ("_resources", "forward", "repairs", "seen", "service")

    def __init__(self) -> None:
        """Start without spans."""
        self.repairs: dict[str, int] = {}
        self.service = ""
        """The name of the first service."""
        self.seen: dict[bytes, list[bytes]] = {}
        """The spans by their ids."""
        self.forward: list[bytes] = []
        """The ids of spans whose parents had not been added before them."""
        self._resources: dict[bytes, Scopes] = {}

    @property
    def spans(self) -> int:
        """Number of spans."""
        return len(self.seen)

    def repaired(self, kind: str, times: int = 1) -> None:
        """Count `times` repairs of one kind."""
        self.repairs[kind] = self.repairs.get(kind, 0) + times

    def process(self, service: str, resource: bytes) -> Scopes:
        """Return the spans by scope of a process: its `service` name and its serialized `resource`."""
        self.service = self.service or service
        return self._resources.setdefault(resource, {})

    def add(self, records: Records, ids: bytes, parent: bytes, span: bytes) -> None:
        """Add a span to the spans of its process and scope: its `ids`, its parent's span id or "", all of its fields.

        An identical span is dropped; a different span with the same ids gets another span id.
        """
        seen = self.seen
        if ids in seen:
            if seen[ids][0] == span:
                self.repaired("repeated_span")
                return
            self.repaired("duplicate_span_id")
            rest = span[len(ids) :]
            while ids in seen:
                ids = ids[:TRACE_SIZE] + blake2b(ids + rest, digest_size=8).digest()
            span = ids + rest
        record = [span, parent]
        if parent and ids[:TRACE_SIZE] + parent not in seen:
            self.forward.append(ids)
        seen[ids] = record
        records.append(record)

    def body(self) -> bytes:
        """Return everything as a serialized `ExportTraceServiceRequest`."""
        if self.forward:
            self._cut_cycles()
        resources = []
        for resource, scopes in self._resources.items():
            if scopes:
                parts = [prefixed(b"\x0a", resource)]
                parts += [_scope_spans(scope, records) for scope, records in scopes.items() if records]
                resources.append(prefixed(b"\x0a", b"".join(parts)))
        return b"".join(resources)

    def _cut_cycles(self) -> None:
        """Break every cycle of parents: one of its spans becomes a root, and its parent becomes a link.

        Every cycle has a span whose parent was added after it (or is the span itself), so only those need to be
        checked.
        """
        seen = self.seen
        done: set[bytes] = set()
        for start in self.forward:
            path: set[bytes] = set()
            ids = start
            while ids in seen and ids not in done:
                record = seen[ids]
                span, parent = record
                path.add(ids)
                if not parent:
                    break
                up = ids[:TRACE_SIZE] + parent
                if up in path:
                    rest = span[len(ids) + PARENT_SIZE :]
                    record[:] = ids + rest + link(ids[2:18], parent, child_of=True), b""
                    self.repaired("cyclic_reference")
                    break
                ids = up
            done |= path


def resource_of(service: str, tags: Iterable[tuple[str, Value]]) -> bytes:
    """Return a process as a serialized resource."""
    pairs = dict(tags)
    if "hostname" in pairs and "host.name" not in pairs:
        pairs["host.name"] = pairs.pop("hostname")
    if service:
        pairs.pop("service.name", None)
        pairs = {"service.name": service, **pairs}
    return b"".join([RESOURCE_ATTRIBUTE + attribute(key, value) for key, value in pairs.items()])


def texts(key: str, values: Sequence[str]) -> bytes:
    """Return a length-prefixed `KeyValue` with a list of strings."""
    items = b"".join([prefixed(b"\x0a", prefixed(b"\x0a", value.encode())) for value in values])
    body = prefixed(b"\x0a", key.encode()) + prefixed(b"\x12", prefixed(b"\x2a", items))
    return size_of(body) + body


def span_tag(key: str, value: Value, specials: Specials) -> bytes:
    """Return a tag as a field of a span: an attribute, or the kind; or "", after adding it to `specials`."""
    if key not in SPECIAL_KEYS or key in specials:
        return ATTRIBUTE + attribute(key, value)
    if key.startswith("http."):
        if type(value) is not int or value not in _HTTP_SUCCESS:
            specials[key] = value
        return ATTRIBUTE + attribute(key, value)
    text = value if isinstance(value, str) else ""
    if key == "span.kind":
        return KINDS.get(text.lower()) or ATTRIBUTE + attribute(key, value)
    known: Value = text
    if key == "error":
        known = value is True or text.lower() == "true"
    elif key == "otel.status_code":
        known = text.upper() if text.upper() in _CODES else ""
    if known:
        specials[key] = known
        return b""
    return ATTRIBUTE + attribute(key, value)


def joined(parts: Sequence[bytes], specials: Specials) -> bytes:
    """Join the results of `span_tag`; keep the kind in `specials`, to decide if an HTTP status is an error."""
    if specials:
        specials["span.kind"] = kind_of(parts)
    return b"".join(parts)


def kind_of(parts: Sequence[bytes]) -> bytes:
    """Return the kind among the results of `span_tag`, or "": no other field is as short."""
    return next((part for part in parts if len(part) == len(SERVER)), b"")


def trace_head(trace_id: bytes) -> bytes:
    """Return the fields of a span before its own id: the trace id, and the field tag of the span id."""
    return b"\x0a\x10%b\x12\x08" % trace_id


def scope_of(specials: Specials) -> Scope:
    """Return the name and version of the instrumentation scope."""
    return (
        specials.get("otel.scope.name") or specials.get("otel.library.name", ""),
        specials.get("otel.scope.version") or specials.get("otel.library.version", ""),
    )


def special_fields(specials: Specials, kind: bytes = b"") -> bytes:
    """Return the fields made from special tags; `kind` is the kind of the span if no tag contains it."""
    state = specials.get("w3c.tracestate")
    return (prefixed(b"\x1a", str(state).encode()) if state else b"") + _status(specials, kind)


def name_field(name: str) -> bytes:
    """Return a name as a field of a span; short names are cached in `names`."""
    field = prefixed(b"\x2a", name.encode())
    if name and len(field) <= _NAME_SIZE:
        if len(names) >= _MAX_NAMES:
            names.clear()
        names[name] = field
    return field


names: dict[str, bytes] = {}
_MAX_NAMES = 1024
_NAME_SIZE = 130
"""Maximum number of cached names, and maximum size of each as a field."""


def references(found: Sequence[Reference], trace_id: bytes) -> tuple[bytes, bytes]:
    """Return the parent's id (or "") and the links for the references of a span."""
    parent, parent_index, follows = b"", -1, b""
    for index, (trace, span, child_of) in enumerate(found):
        if trace == trace_id and span != NO_ID:
            if child_of:
                parent, parent_index = span, index
                break
            follows = follows or span
    links = [link(*each[:2], child_of=each[2]) for index, each in enumerate(found) if index != parent_index]
    return parent or follows, b"".join(links)


def link(trace_id: bytes, span_id: bytes, *, child_of: bool) -> bytes:
    """Return a link as a field of a span."""
    kind = _CHILD_OF if child_of else _FOLLOWS_FROM
    return b"\x6a%b\x0a\x10%b\x12\x08%b%b" % (VARINTS[28 + len(kind)], trace_id, span_id, kind)


_CHILD_OF = LINK_ATTRIBUTE + attribute("opentracing.ref_type", "child_of")
_FOLLOWS_FROM = LINK_ATTRIBUTE + attribute("opentracing.ref_type", "follows_from")


def event(at: int, tags: Sequence[tuple[str, Value]]) -> bytes:
    """Return a log as an event, a field of a span; `at` is in nanoseconds."""
    name = ""
    named = -1
    for wanted in ("event", "message"):
        for index, (key, value) in enumerate(tags):
            if key == wanted and isinstance(value, str):
                name, named = value, index
                break
        if named >= 0:
            break
    parts = [_time(0x09, at)]
    if name:
        parts.append(prefixed(b"\x12", name.encode()))
    parts += [EVENT_ATTRIBUTE + attribute(key, value) for index, (key, value) in enumerate(tags) if index != named]
    return prefixed(b"\x5a", b"".join(parts))


def _status(specials: Specials, kind: bytes) -> bytes:
    """Return the status, from the first of these that is present: `error`, `otel.status_code`, the HTTP status."""
    message = specials.get("otel.status_description", "")
    if "error" in specials:
        code = 2
        message = message or specials.get("http.status_message", "")
    elif "otel.status_code" in specials:
        code = _CODES[specials["otel.status_code"]]  # type: ignore[index]  # `span_tag` keeps only valid codes
    else:
        code = 2 if _is_http_error(specials, specials.get("span.kind") or kind) else 0
        if code:
            message = message or specials.get("http.status_message", "")
    if not code and not message:
        return b""
    body = prefixed(b"\x12", str(message).encode()) if message else b""
    return prefixed(b"\x7a", body + (b"\x18%c" % code if code else b""))


def _is_http_error(specials: Specials, kind: Value) -> bool:
    """Return whether the HTTP status is an error for this kind of span: from 400 (client), from 500 (server)."""
    value = specials.get("http.status_code", specials.get("http.response.status_code"))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if type(value) is not int:
        return False
    return value >= (500 if kind == SERVER else 400) or 0 < value < 100  # noqa: PLR2004 - RFC 9110, 15


_SPAN_HEADS = [b"\x12" + size for size in VARINTS]
"""Field tag and length before a span, by its size."""


def _scope_spans(scope: Scope, records: Records) -> bytes:
    """Return a `ScopeSpans` as a field."""
    out: list[bytes] = []
    if scope != NO_SCOPE:
        name, version = (str(each).encode() for each in scope)
        parts = (prefixed(b"\x0a", name) if name else b"", prefixed(b"\x12", version) if version else b"")
        out.append(prefixed(b"\x0a", b"".join(parts)))
    for span, _ in records:
        size = len(span)
        out += (_SPAN_HEADS[size] if size < SMALL else b"\x12" + varint(size), span)
    return prefixed(b"\x12", b"".join(out))
