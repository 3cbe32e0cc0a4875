"""Find the traces of a request, in Python: the reference of `_native`, and its replacement where it cannot be used.

`read` parses a request span by span with projections. The extension module does the same in one pass over the bytes for
requests with the usual layout; `traces.read` chooses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from google.protobuf.message import Message

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.wire import prefixed
from otelwp_agent.sampling.traces.framing import Head, frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

Choice = bytes | list[bytes] | None
"""The choice of `select` for the spans of a trace: append these bytes to each; replace them by these; or drop them."""
M = TypeVar("M", bound=Message)
Owner = TypeVar("Owner")
Part = tuple[Head, bytes, int, Owner]
"""Spans of one trace from one scope of one request: their head, the framed spans, their number, and their owner."""

ERROR, WHOLE, ROOTED, DUPLICATES, INVALID = 1, 2, 4, 8, 16
"""Flags of a piece: a span has an error; the piece contains its root and every parent that its spans name; it contains
its root; two spans have the same id; the trace id is invalid (not 16 bytes, or zeros). For an invalid id only `ERROR`
and `ROOTED` are set besides."""
STATUS_ERROR = 2
"""STATUS_CODE_ERROR of trace.proto."""

_LENGTH, _NO_ID, _NO_SPAN = 16, bytes(16), bytes(8)
_NAME, _ATTRIBUTE = b"\x2a", b"\x4a"
"""Tags of a span's `name` (5) and `attributes` (9)."""
_KEY, _LONG = 0x0A, 0x80
"""Tag of a KeyValue's `key` (1), and the length from which a length takes two bytes."""


class Piece(NamedTuple):
    """The part of one trace in a request."""

    trace_id: bytes
    """b"" for spans with an invalid trace id: they form one piece and belong to no trace."""
    spans: int
    size: int
    """Bytes of its spans."""
    flags: int
    """`ERROR`, `WHOLE`, `ROOTED`, `DUPLICATES`, `INVALID`."""
    states: tuple[bytes, ...]
    """The different trace states of its spans."""
    duration: float
    """Seconds from the start to the end of its root; 0 without a root."""
    resource: bytes
    """The resource of its root, else of its first span; serialized."""
    fields: bytes
    """The requested fields of its root, as a serialized Span. It may contain attributes that were not requested."""


def is_root(parent: bytes) -> bool:
    """Return whether a span with this parent id is a root; some senders write zeros for no parent."""
    return not parent or parent == _NO_SPAN


class TraceRequest:
    """A request whose traces have been found.

    Traces are identified by their positions in the pieces that `read` returned.
    """

    __slots__ = ("_body", "_owners", "_spans")

    def __init__(self, body: bytes, owners: Sequence[int]) -> None:
        """Store a request, and for each of its spans the position of its piece."""
        self._body = body
        self._owners = owners
        self._spans: list[list[bytes]] | None = None

    def select(self, chosen: list[Choice]) -> bytes:
        """Return a request with the choice for each piece; b"" if nothing is kept."""
        request = pb.Resources.FromString(self._body)
        others = [iter(choice if isinstance(choice, list) else ()) for choice in chosen]
        owners = iter(self._owners)
        for resource in request.resources:
            for scope in resource.scopes:
                items = []
                for item, owner in zip(scope.items[:], owners, strict=False):
                    choice = chosen[owner]
                    if choice is not None:
                        items.append(next(others[owner]) if isinstance(choice, list) else item + choice)
                scope.ClearField("items")
                scope.items.extend(items)
            _replace(resource.scopes, [scope for scope in resource.scopes if scope.items])
        _replace(request.resources, [resource for resource in request.resources if resource.scopes])
        return request.SerializeToString()

    def parts(self, places: list[int], heads: list[Head], owner: Owner) -> list[list[Part[Owner]]]:
        """Return the spans of the pieces at `places`, by scope; `heads` are the result of `heads()`."""
        parts: dict[int, list[Part[Owner]]] = {place: [] for place in places}
        owners = iter(self._owners)
        for head, (_, scope) in zip(heads, _scopes(self._body), strict=True):
            found: dict[int, list[bytes]] = {}
            for item, place in zip(scope.items[:], owners, strict=False):
                if place in parts:
                    found.setdefault(place, []).append(item)
            for place, spans in found.items():
                parts[place].append((head, frame(spans), len(spans), owner))
        return [parts[place] for place in places]

    def spans(self, place: int) -> list[bytes]:
        """Return the spans of a trace."""
        if self._spans is None:  # all at once: a search for each trace takes minutes if there are many
            self._spans = [[] for _ in {*self._owners}]
            items = [item for _, scope in _scopes(self._body) for item in scope.items]
            for item, owner in zip(items, self._owners, strict=True):
                self._spans[owner].append(item)
        return self._spans[place]

    def heads(self) -> list[Head]:
        """Return the head of the spans of each scope."""
        heads = []
        for resource in pb.Resources.FromString(self._body).resources:
            rests = []
            for scope in resource.scopes:
                scope.ClearField("items")
                rests.append(scope.SerializeToString())
            resource.ClearField("scopes")
            head = resource.SerializeToString()
            heads += [(head, rest) for rest in rests]
        return heads

    def spread(self, codes: bytes) -> bytes:
        """Return one byte for each span: the byte in `codes` of its piece."""
        return bytes([codes[owner] for owner in self._owners])


def read(body: bytes, marks: tuple[bytes, ...] | None, name: bool) -> tuple[TraceRequest, list[Piece]]:  # noqa: FBT001
    """Find the traces of a request, in the order of their first spans; raise `MalformedError` if it is not valid.

    `marks` are the serialized beginnings of the attributes that are requested of root spans, and `name` requests their
    names. Without marks only ids, sizes, errors, trace states and roots are read.
    """
    found: dict[bytes, _Trace] = {}
    owners: list[int] = []
    for resource, scope in _scopes(body):
        for item in scope.items:
            span = parse(pb.TraceSpan.FromString, item)
            trace_id = span.trace_id
            if len(trace_id) != _LENGTH or trace_id == _NO_ID:
                trace_id = b""
            trace = found.get(trace_id)
            if trace is None:
                trace = found[trace_id] = _Trace(len(found), resource)
            trace.add(span, item, resource)
            owners.append(trace.place)
    return TraceRequest(body, owners), [trace.piece(trace_id, marks, name=name) for trace_id, trace in found.items()]


class _Trace:
    """Sums over the spans of a trace. The spans are not stored, because a few bytes of a request can be one span."""

    __slots__ = ("error", "ids", "parents", "place", "resource", "root", "size", "spans", "states")

    def __init__(self, place: int, resource: bytes) -> None:
        self.place = place
        self.resource = resource
        self.root: tuple[bytes, int] | None = None
        """Its bytes, and its duration in nanoseconds."""
        self.spans = self.size = 0
        self.error = False
        self.states: dict[bytes, None] = {}
        self.ids: set[bytes] = set()
        self.parents: set[bytes] = set()

    def add(self, span: pb.TraceSpan, item: bytes, resource: bytes) -> None:
        """Add a parsed span; `item` is its bytes."""
        self.spans += 1
        self.size += len(item)
        self.error = self.error or span.status.code == STATUS_ERROR
        self.ids.add(span.span_id or _NO_SPAN)
        if span.trace_state:
            self.states[span.trace_state] = None
        parent = span.parent_span_id
        if not is_root(parent):
            self.parents.add(parent)
        elif self.root is None:
            self.root = item, span.end_time_unix_nano - span.start_time_unix_nano
            self.resource = resource

    def piece(self, trace_id: bytes, marks: tuple[bytes, ...] | None, *, name: bool) -> Piece:
        """Return the piece of this trace."""
        flags = ERROR if self.error else 0
        duration, fields = 0.0, b""
        if self.root is not None:
            root, nanoseconds = self.root
            flags |= ROOTED
            duration = nanoseconds * 1e-9
            fields = b"" if marks is None else _requested_fields(root, marks, name=name)
        if not trace_id:
            flags |= INVALID
        elif marks is not None:
            if len(self.ids) < self.spans:
                flags |= DUPLICATES
            if self.root is not None and self.parents <= self.ids:
                flags |= WHOLE
        return Piece(trace_id, self.spans, self.size, flags, (*self.states,), duration, self.resource, fields)


def _requested_fields(root: bytes, marks: tuple[bytes, ...], *, name: bool) -> bytes:
    span = parse(pb.Said.FromString, root)
    fields = [prefixed(_ATTRIBUTE, each) for each in span.attributes if each.startswith(marks) or _is_unusual(each)]
    return b"".join([prefixed(_NAME, span.name), *fields] if name and span.name else fields)


def _is_unusual(attribute: bytes) -> bool:
    """Return whether an attribute may have any key: its key is not the first field, or its length takes two bytes."""
    return len(attribute) < 2 or attribute[0] != _KEY or attribute[1] >= _LONG  # noqa: PLR2004 - tag and length


def _scopes(body: bytes) -> Iterator[tuple[bytes, pb.OpaqueScope]]:
    """Iterate over the scopes of a request, each with its serialized resource."""
    for resource in parse(pb.Resources.FromString, body).resources:
        data = resource.resource  # one object: many scopes with a large resource would take any amount of memory
        for scope in resource.scopes:
            yield data, scope


def _replace(messages: RepeatedCompositeFieldContainer[M], left: Sequence[M]) -> None:
    if len(left) < len(messages):
        del messages[:]
        messages.extend(left)
