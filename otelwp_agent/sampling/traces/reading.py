"""Traces read out of a request, in Python: what everything means, and what is done where `_native` cannot help.

`read` takes a request apart span by span, through projections. The extension module does the same in one pass over the
bytes, for requests that are laid out as senders lay them out; `traces.read` chooses.
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
"""What becomes of a trace's spans: they stay, with these bytes behind each; others take their places; or they go."""
M = TypeVar("M", bound=Message)
Owner = TypeVar("Owner")
Part = tuple[Head, bytes, int, Owner]
"""Spans of one trace from one scope of one request: what stands around them, the spans, framed, how many there are, and
whose they are."""

ERROR, WHOLE, ROOTED, DUPLICATES, INVALID = 1, 2, 4, 8, 16
"""What a piece can be: a span of it has an error; its root and every parent that its spans name are there; its root is;
two spans have one id; the trace id is none (not 16 bytes, or zeros), which says nothing of the others but `ERROR` and
`ROOTED`."""
STATUS_ERROR = 2
"""STATUS_CODE_ERROR of trace.proto."""

_LENGTH, _NO_ID, _NO_SPAN = 16, bytes(16), bytes(8)
_NAME, _ATTRIBUTE = b"\x2a", b"\x4a"
"""The tags of a span's `name` (5) and `attributes` (9)."""
_KEY, _LONG = 0x0A, 0x80
"""The tag of a KeyValue's `key` (1), and the length from which one takes two bytes."""


class Piece(NamedTuple):
    """What a request holds of one trace."""

    trace_id: bytes
    """b"" of spans whose trace id is none: they are one piece, and belong to no trace."""
    spans: int
    size: int
    """Bytes of its spans."""
    flags: int
    """`ERROR`, `WHOLE`, `ROOTED`, `DUPLICATES`, `INVALID`."""
    states: tuple[bytes, ...]
    """The different trace states of its spans."""
    duration: float
    """Seconds from the start of its root to the end of that; 0 without one."""
    resource: bytes
    """The resource of its root, else of its first span; serialized."""
    said: bytes
    """What was asked for of its root: a Span without any other fields. It may hold attributes that nobody asked for."""


def is_root(parent: bytes) -> bool:
    """Whether a span with this parent is a root; some senders write zeros for none."""
    return not parent or parent == _NO_SPAN


class Request:
    """A request whose traces have been found. They are known by their places among the pieces that `read` returned."""

    __slots__ = ("_body", "_owners", "_spans")

    def __init__(self, body: bytes, owners: Sequence[int]) -> None:
        """Hold a request, and for each of its spans the place of its piece."""
        self._body = body
        self._owners = owners
        self._spans: list[list[bytes]] | None = None

    def select(self, chosen: list[Choice]) -> bytes:
        """Return a request of what is chosen for each piece; b"" if that is nothing."""
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
        """Return the spans of each of these pieces, by scope; `heads` are those of the scopes."""
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
        if self._spans is None:  # of all of them at once: to look for each anew takes minutes if there are many
            self._spans = [[] for _ in {*self._owners}]
            items = [item for _, scope in _scopes(self._body) for item in scope.items]
            for item, owner in zip(items, self._owners, strict=True):
                self._spans[owner].append(item)
        return self._spans[place]

    def heads(self) -> list[Head]:
        """Return what stands around the spans of each scope."""
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
        """Return a byte for each span: that of its piece in `codes`."""
        return bytes([codes[owner] for owner in self._owners])


def read(body: bytes, marks: tuple[bytes, ...] | None, name: bool) -> tuple[Request, list[Piece]]:  # noqa: FBT001
    """Find the traces of a request, in the order of their first spans; raise `MalformedError` if it does not parse.

    `marks` tell which attributes of root spans are asked for, by how they begin when they are serialized, and `name`
    whether their names are. Without marks only ids, sizes, errors, trace states and roots are read.
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
    return Request(body, owners), [trace.piece(trace_id, marks, name=name) for trace_id, trace in found.items()]


class _Trace:
    """What is told of a trace by the spans that were read. They are not kept: a few bytes of a request can be one."""

    __slots__ = ("error", "ids", "parents", "place", "resource", "root", "size", "spans", "states")

    def __init__(self, place: int, resource: bytes) -> None:
        self.place = place
        self.resource = resource
        self.root: tuple[bytes, int] | None = None
        """Its bytes, and how many nanoseconds it took."""
        self.spans = self.size = 0
        self.error = False
        self.states: dict[bytes, None] = {}
        self.ids: set[bytes] = set()
        self.parents: set[bytes] = set()

    def add(self, span: pb.TraceSpan, item: bytes, resource: bytes) -> None:
        """Go on with a span, which also comes as its bytes."""
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
        """Return what there is to say."""
        flags = ERROR if self.error else 0
        duration, said = 0.0, b""
        if self.root is not None:
            root, nanoseconds = self.root
            flags |= ROOTED
            duration = nanoseconds * 1e-9
            said = b"" if marks is None else _said(root, marks, name=name)
        if not trace_id:
            flags |= INVALID
        elif marks is not None:
            if len(self.ids) < self.spans:
                flags |= DUPLICATES
            if self.root is not None and self.parents <= self.ids:
                flags |= WHOLE
        return Piece(trace_id, self.spans, self.size, flags, (*self.states,), duration, self.resource, said)


def _said(root: bytes, marks: tuple[bytes, ...], *, name: bool) -> bytes:
    span = parse(pb.Said.FromString, root)
    fields = [prefixed(_ATTRIBUTE, each) for each in span.attributes if each.startswith(marks) or _is_unusual(each)]
    return b"".join([prefixed(_NAME, span.name), *fields] if name and span.name else fields)


def _is_unusual(attribute: bytes) -> bool:
    """Whether an attribute's key does not come first, or has a length of two bytes: then it may be any."""
    return len(attribute) < 2 or attribute[0] != _KEY or attribute[1] >= _LONG  # noqa: PLR2004 - tag and length


def _scopes(body: bytes) -> Iterator[tuple[bytes, pb.OpaqueScope]]:
    """Go through the scopes of a request, each with its resource, serialized."""
    for resource in parse(pb.Resources.FromString, body).resources:
        data = resource.resource  # one object: many scopes with a large resource would take any amount of memory
        for scope in resource.scopes:
            yield data, scope


def _replace(messages: RepeatedCompositeFieldContainer[M], left: Sequence[M]) -> None:
    if len(left) < len(messages):
        del messages[:]
        messages.extend(left)
