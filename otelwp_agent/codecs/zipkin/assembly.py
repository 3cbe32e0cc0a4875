"""Build an OTLP request from the spans of one body: group them, remove duplicates and break cycles of parents."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from otelwp_agent.codecs.key_value import attribute
from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from otelwp_agent.codecs.key_value import Value

    Resource = tuple[str, tuple[tuple[str, Value], ...]]
    """Name of the service, and other attributes of the resource."""
    Scope = tuple[str, str]
    """Name and version."""

SERVER, CLIENT = b"0\2", b"0\3"
"""Kinds as a field of a span (trace.proto, Span.kind)."""

_TRACE_SIZE = 16


class Span:
    """The ids of a span, and its other fields, serialized."""

    __slots__ = ("ids", "kind", "parent", "rest")

    def __init__(self, ids: bytes, parent: bytes, kind: bytes, rest: bytes) -> None:
        """Create a span from its parts.

        `ids` is the trace id and the span id, `parent` a span id or ""; `kind` and `rest` are serialized fields.
        """
        self.ids = ids
        self.parent = parent
        self.kind = kind
        self.rest = rest

    def fields(self) -> bytes:
        """Return the serialized span, with its fields in the order of their numbers."""
        parent = b"\x22\x08" + self.parent if self.parent else b""
        ids = self.ids
        return b"\x0a\x10%b\x12\x08%b%b%b" % (ids[:_TRACE_SIZE], ids[_TRACE_SIZE:], parent, self.rest)


class Assembly:
    """Collects spans and builds a request; `repairs` counts repaired problems by kind."""

    __slots__ = ("_groups", "_spans", "_uncertain", "repairs", "service", "spans")

    def __init__(self) -> None:
        """Start without spans."""
        self.repairs: dict[str, int] = {}
        self.service = ""
        """Name of the first service."""
        self.spans = 0
        """Number of spans."""
        self._groups: dict[Resource, dict[Scope, list[Span]]] = {}
        self._spans: dict[bytes, Span] = {}
        self._uncertain: list[Span] = []

    def repaired(self, kind: str, times: int = 1) -> None:
        """Count a repaired problem."""
        self.repairs[kind] = self.repairs.get(kind, 0) + times

    def add(self, resource: Resource, scope: Scope, span: Span) -> None:
        """Add a span.

        An exact repetition of another span is dropped. The server's and the client's half of a call may share their
        ids: both are kept. Any other span with the same ids gets a new span id.
        """
        known = self._spans.get(span.ids)
        if known is None:
            self._spans[span.ids] = span
            # Every cycle has a span that is its own parent or precedes its parent: only those spans need to be checked.
            above = span.ids[:_TRACE_SIZE] + span.parent
            if span.parent and (above == span.ids or above not in self._spans):
                self._uncertain.append(span)
        elif {known.kind, span.kind} != {CLIENT, SERVER}:
            if (known.parent, known.rest) == (span.parent, span.rest):
                self.repaired("repeated_span")
                return
            self.repaired("duplicate_span_id")
            while span.ids in self._spans:
                span.ids = span.ids[:_TRACE_SIZE] + blake2b(span.ids + span.rest, digest_size=8).digest()
            self._spans[span.ids] = span
        self.service = self.service or resource[0]
        self.spans += 1
        self._groups.setdefault(resource, {}).setdefault(scope, []).append(span)

    def body(self) -> bytes:
        """Return the serialized `ExportTraceServiceRequest`."""
        self._cut_cycles()
        return b"".join([prefixed(b"\x0a", _resource_spans(*group)) for group in self._groups.items()])

    def _cut_cycles(self) -> None:
        """Make one span in every cycle of parents a root."""
        done: set[bytes] = set()
        for start in self._uncertain:
            path: set[bytes] = set()
            span: Span | None = start
            while span is not None and span.parent and span.ids not in done:
                path.add(span.ids)
                above = span.ids[:_TRACE_SIZE] + span.parent
                if above in path:
                    span.parent = b""
                    self.repaired("cyclic_reference")
                    break
                span = self._spans.get(above)
            done |= path
        self._uncertain = []


def _resource_spans(resource: Resource, scopes: dict[Scope, list[Span]]) -> bytes:
    """Return the fields of a `ResourceSpans`."""
    service, others = resource
    pairs = dict(others)
    if service:
        pairs = {"service.name": service, **{key: value for key, value in others if key != "service.name"}}
    attributes = b"".join([b"\x0a" + attribute(key, value) for key, value in pairs.items()])
    parts = [prefixed(b"\x0a", attributes)]
    for (name, version), spans in scopes.items():
        head = (prefixed(b"\x0a", name.encode()) if name else b"") + (
            prefixed(b"\x12", version.encode()) if version else b""
        )
        fields = [prefixed(b"\x0a", head)] if head else []
        fields += [prefixed(b"\x12", span.fields()) for span in spans]
        parts.append(prefixed(b"\x12", b"".join(fields)))
    return b"".join(parts)
