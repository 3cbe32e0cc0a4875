"""Read from a request which traces it holds, and which of them it holds whole, without reading every span.

`read_runs` reads all spans of a request as one (`MergedTraces`): protobuf merges what occurs again, so that the ids of
all spans come out as one block of bytes, where equal trace ids beside each other are found by one regular expression.
It gives up where spans do not look alike, or where traces lie mixed; `read_pieces` then reads span by span.
"""

from __future__ import annotations

import re
from struct import unpack
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR = 2
"""STATUS_CODE_ERROR of trace.proto."""

_RUNS = re.compile(rb"\x0a\x10(.{16})(?:\x0a\x10\1)*", re.DOTALL)
"""Equal trace ids, each after its tag and length."""
_STATUSES = re.compile(rb"z(?:\x00|[\x02-\x06]\x18([\x80-\xff]*[\x00-\x7f]))", re.DOTALL)
_HAS_ERROR = b"\x18\x02"
"""A status code of 2, as a field; other fields may look like it, but no error lacks it."""
_HAS_PARENT = b'"\x08'
"""A parent of 8 bytes, as a field; the same."""
_ID, _SPAN = 18, 10
"""Bytes of a trace id and a span id with their tags and lengths."""
_ZERO = bytes(8)


class Runs:
    """A request whose traces lie one after the other: `traces` are (trace id, first span, behind the last)."""

    __slots__ = ("complete", "errors", "roots", "states", "statuses", "traces")

    def __init__(
        self, traces: list[tuple[bytes, int, int]], roots: int, states: Sequence[bytes], *, complete: bool
    ) -> None:
        self.traces = traces
        self.roots = roots
        """Spans without a parent."""
        self.states = states
        """Trace states of all spans; empty if none has one."""
        self.complete = complete
        """Whether every parent that a span names is in the request."""
        self.errors = 0
        """Spans with an error."""
        self.statuses: bytes | None = None
        """A byte for each span, 1 for an error, if every span has a status."""

    def failed(self, items: Sequence[bytes]) -> list[int]:
        """Return the indexes of spans with an error, among `items`, which are all spans in their order."""
        if not self.errors:
            return []
        if self.statuses is not None:
            return [index for index, failed in enumerate(self.statuses) if failed]
        candidates = [index for index, item in enumerate(items) if _HAS_ERROR in item]
        if len(candidates) == self.errors:
            return candidates
        return [index for index in candidates if parse(pb.TraceSpan.FromString, items[index]).status.code == ERROR]


def read_runs(body: bytes) -> Runs | None:
    """Read a request; `None` if it must be read span by span."""
    merged = parse(pb.MergedTraces.FromString, body).resources.scopes.items
    spans = len(merged.trace_ids)
    if not spans or len(merged.span_ids) != spans:
        return None
    states: Sequence[bytes] = ()
    if merged.trace_states:
        states = merged.trace_states[:]
        if len(states) != spans:
            return None
        merged.ClearField("trace_states")
    merged.DiscardUnknownFields()
    data = merged.SerializeToString()
    ids_end = _ID * spans
    spans_end = ids_end + _SPAN * spans
    span_ids = data[ids_end:spans_end]
    named = len(merged.parent_span_ids)
    parents = data[spans_end : spans_end + _SPAN * named]
    # Lengths that are right put the next tag in its place.
    if (
        span_ids[::_SPAN] != b"\x12" * spans
        or span_ids[1::_SPAN] != b"\x08" * spans
        or parents[::_SPAN] != b'"' * named
        or parents[1::_SPAN] != b"\x08" * named
    ):
        return None
    traces = [
        (found[1], found.start() // _ID, found.end() // _ID) for found in _RUNS.finditer(data, 0, ids_end)
    ]
    if traces[-1][2] != spans or len({each[0] for each in traces}) != len(traces):
        return None
    known = {*unpack("2x8s" * spans, span_ids)}
    wanted = {*unpack("2x8s" * named, parents)}
    if len(known) != spans or _ZERO in known or _ZERO in wanted:
        return None
    runs = Runs(traces, spans - named, states, complete=wanted <= known)
    statuses = data[spans_end + _SPAN * named :]
    runs.errors = statuses.count(_HAS_ERROR)
    if runs.errors and len(merged.statuses) == spans:
        runs.statuses = bytes([code == b"\x02" for code in _STATUSES.findall(statuses)])
    return runs


def is_root(parent: bytes) -> bool:
    """Whether a span with this parent is a root; some senders write zeros for none."""
    return not parent or parent == _ZERO


def find_root(items: Sequence[bytes], start: int, end: int) -> pb.RootSpan | None:
    """Return the first span without a parent among `items[start:end]`; it mostly stands first or last."""
    for index in (start, end - 1):
        item = items[index]
        span = parse(pb.RootSpan.FromString, item)
        if is_root(span.parent_span_id):
            return span
    if end - start <= 2:  # noqa: PLR2004 - first and last
        return None
    inner = items[start + 1 : end - 1]
    for item in inner:
        if _HAS_PARENT not in item:
            span = parse(pb.RootSpan.FromString, item)
            if is_root(span.parent_span_id):
                return span
    for item in inner:
        span = parse(pb.RootSpan.FromString, item)
        if is_root(span.parent_span_id):
            return span
    return None


class Piece:
    """What a request holds of one trace: which spans, and what decides whether that is all of it."""

    __slots__ = ("error", "indexes", "parents", "root", "span_ids", "states", "trace_id")

    def __init__(self, trace_id: bytes) -> None:
        self.trace_id = trace_id
        self.indexes: list[int] = []
        self.span_ids: set[bytes] = set()
        self.parents: set[bytes] = set()
        self.states: set[bytes] = set()
        self.root = -1
        """Index of the first span without a parent; -1 if there is none."""
        self.error = False

    @property
    def complete(self) -> bool:
        """Whether the root is there, and every parent that a span names."""
        return self.root >= 0 and self.parents <= self.span_ids

    @property
    def duplicates(self) -> int:
        """Spans whose id another one has as well."""
        return len(self.indexes) - len(self.span_ids)


def read_pieces(body: bytes) -> list[Piece]:
    """Read a request span by span; return what it holds of each trace, in the order of their first spans."""
    pieces: dict[bytes, Piece] = {}
    index = 0
    for resource in parse(pb.TraceRows.FromString, body).resources:
        for scope in resource.scopes:
            for span in scope.items:
                trace_id = span.trace_id
                piece = pieces.get(trace_id)
                if piece is None:
                    piece = pieces[trace_id] = Piece(trace_id)
                piece.indexes.append(index)
                piece.span_ids.add(span.span_id)
                parent = span.parent_span_id
                if not is_root(parent):
                    piece.parents.add(parent)
                elif piece.root < 0:
                    piece.root = index
                state = span.trace_state
                if state:
                    piece.states.add(state)
                if span.status.code == ERROR:
                    piece.error = True
                index += 1
    return list(pieces.values())


class Heads:
    """What stands around items: the rest of their resource's message and of their scope's, serialized."""

    __slots__ = ("resource", "scope")

    def __init__(self, resource: bytes, scope: bytes) -> None:
        self.resource = resource
        self.scope = scope


class SpanView:
    """A request taken apart: all its spans in order, serialized, and what stands around them."""

    __slots__ = ("_request", "_scopes", "items", "resources", "scopes")

    def __init__(self, body: bytes) -> None:
        self._request = parse(pb.Resources.FromString, body)
        self.items: list[bytes] = []
        self.scopes: list[tuple[int, int, int]] = []
        """Of each scope: its first span, behind its last, and the index of its resource."""
        self.resources: list[bytes] = []
        """The resources, serialized."""
        self._scopes: list[pb.OpaqueScope] = []
        items = self.items
        for index, resource in enumerate(self._request.resources):
            self.resources.append(resource.resource)
            for scope in resource.scopes:
                start = len(items)
                items += scope.items[:]
                self.scopes.append((start, len(items), index))
                self._scopes.append(scope)

    def resource_of(self, index: int) -> bytes:
        """Return the resource of a span."""
        scopes = self.scopes
        if len(scopes) == 1:
            return self.resources[0]
        return next(self.resources[resource] for _, end, resource in scopes if index < end)

    def assemble(self, chosen: Sequence[bytes | None]) -> bytes:
        """Return the request with what was `chosen` for each span, `None` to leave it out. To be called once."""
        kept_any = empty_any = False
        for (start, end, _), scope in zip(self.scopes, self._scopes, strict=True):
            scope.ClearField("items")
            kept = [item for item in chosen[start:end] if item is not None]
            if kept:
                scope.items.extend(kept)
                kept_any = True
            else:
                empty_any = True
        if not kept_any:
            return b""
        resources = self._request.resources
        if empty_any or len(resources) > 1:
            for index in range(len(resources) - 1, -1, -1):
                scopes = resources[index].scopes
                for inner in range(len(scopes) - 1, -1, -1):
                    if not scopes[inner].items:
                        del scopes[inner]
                if not scopes:
                    del resources[index]
        return self._request.SerializeToString()


def read_heads(body: bytes) -> list[Heads]:
    """Return what stands around the items of each scope of a request, in order."""
    heads = []
    for resource in parse(pb.Resources.FromString, body).resources:
        scopes = []
        for scope in resource.scopes:
            scope.ClearField("items")
            scopes.append(scope.SerializeToString())
        resource.ClearField("scopes")
        head = resource.SerializeToString()
        heads += [Heads(head, scope) for scope in scopes]
    return heads


def frame(items: Sequence[bytes]) -> bytes:
    """Return items as the fields of a scope that they are."""
    return pb.OpaqueScope(items=items).SerializeToString()


def unframe(data: bytes) -> list[bytes]:
    """Return the items in what `frame` returned."""
    return parse(pb.OpaqueScope.FromString, data).items[:]


def enclose(heads: Heads, framed: bytes) -> bytes:
    """Return a request of framed items and what stands around them."""
    return prefixed(b"\x0a", heads.resource + prefixed(b"\x12", heads.scope + framed))
