"""Read from a request which traces it holds, and which of them it holds whole, without reading every span.

All spans of a request are read as one (`MergedTraces`): protobuf merges what occurs again, so that the ids of all spans
come out as blocks of bytes. Who has no parent, and who has an error, is then looked for in the spans' own bytes. Where
spans do not look alike, they are read one by one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from operator import mul, sub
from struct import Struct
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ERROR = 2
"""STATUS_CODE_ERROR of trace.proto."""

_RUNS = re.compile(rb"\x0a\x10(.{16})(?:\x0a\x10\1)*", re.DOTALL)
"""Equal trace ids beside each other, each after its tag and length."""
_CHANGE = re.compile(rb"[^\x00]")
_STATUSES = re.compile(rb"z(?:\x00|[\x02-\x06]\x18([\x80-\xff]*[\x00-\x7f]))", re.DOTALL)
_HAS_ERROR = b"\x18\x02"
"""A status code of 2, as a field; other fields may look like it, but no error lacks it."""
_TAIL = 8
"""Bytes of that and of a span's flags."""
_HAS_PARENT = b'"\x08'
"""A parent of 8 bytes, as a field; the same."""
_ID, _SPAN = 18, 10
"""Bytes of a trace id and a span id with their tags and lengths."""
_PARENT = slice(_ID + _SPAN, _ID + _SPAN + 2)
"""Where a parent's tag and length mostly stand: after those, because fields are mostly written in their order."""
_ZERO, _NO_TRACE = bytes(8), bytes(16)
_NO_UNIT = b"\x0a\x10" + _NO_TRACE
_PREFIXES = [b"\x12" + size for size in VARINTS]
"""What stands before an item in its scope, by its length."""
_MANY = 4096
"""Spans of a request up to which the formats of `_ids` are kept."""


def is_root(parent: bytes) -> bool:
    """Whether a span with this parent is a root; some senders write zeros for none."""
    return not parent or parent == _ZERO


class Piece:
    """What a request holds of one trace."""

    root = -1
    """Index of its first span without a parent; -1 if there is none."""
    links: Links | None = None
    """Where its parents are to be looked for; `None` if they are all there."""
    error = False
    states: Collection[bytes] = ()
    """Trace states of its spans."""
    duplicates = False
    """Whether two of its spans have one id."""

    def __init__(self, trace_id: bytes, indexes: Sequence[int]) -> None:
        self.trace_id = trace_id
        self.indexes = indexes
        """Its spans among those of the request, ascending."""

    @property
    def complete(self) -> bool:
        """Whether its root is there, and every parent that its spans name."""
        return self.root >= 0 and (self.links is None or self.links.complete(self))


class Links:
    """The ids of all spans of a request, and those of all parents, in order; spans in `roots` have none."""

    __slots__ = ("_known", "_roots", "_wanted")

    def __init__(self, known: Sequence[int], wanted: Sequence[int], roots: Sequence[int]) -> None:
        self._known = known
        self._wanted = wanted
        self._roots = roots

    def complete(self, piece: Piece) -> bool:
        """Whether every parent that the spans of a trace name is among them."""
        known, wanted, roots = self._known, self._wanted, self._roots
        if len(known) - len(wanted) != len(roots):
            return False  # a trace has several roots: whose parent is whose cannot be told
        parents = {wanted[index - bisect_left(roots, index)] for index in piece.indexes if index != piece.root}
        return parents <= {known[index] for index in piece.indexes}


def read_pieces(body: bytes, items: Sequence[bytes]) -> list[Piece]:
    """Return what a request holds of each trace, in the order of their first spans; `items` are its spans."""
    pieces = _read_merged(body, items)
    return _read_rows(body) if pieces is None else pieces


def _read_merged(body: bytes, items: Sequence[bytes]) -> list[Piece] | None:  # noqa: C901 - what can be wrong
    """Read all spans as one; `None` if they do not look alike."""
    merged = parse(pb.MergedTraces.FromString, body).resources.scopes.items
    spans, named = len(merged.trace_ids), len(merged.parent_span_ids)
    if not spans or len(items) != spans or len(merged.span_ids) != spans or named > spans:
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
    parents_start = ids_end + _SPAN * spans
    parents_end = parents_start + _SPAN * named
    span_ids, parents = data[ids_end:parents_start], data[parents_start:parents_end]
    # Lengths that are right put the next tag in its place.
    if (
        span_ids[::_SPAN] != b"\x12" * spans
        or span_ids[1::_SPAN] != b"\x08" * spans
        or parents[::_SPAN] != b'"' * named
        or parents[1::_SPAN] != b"\x08" * named
    ):
        return None
    pieces = _group(data[:ids_end], spans)
    if pieces is None or not _find_roots(pieces, items, spans - named):
        return None
    known, wanted = _ids(span_ids, spans), _parents(parents, named)
    distinct, required = {*known}, {*wanted}
    if len(distinct) != spans or 0 in distinct or 0 in required:
        return None
    if not required <= distinct:
        links = Links(known, wanted, sorted([piece.root for piece in pieces if piece.root >= 0]))
        for piece in pieces:
            piece.links = links
    if states:
        for piece in pieces:
            piece.states = {states[index] for index in piece.indexes}
    errors = data.count(_HAS_ERROR, parents_end)
    if errors:
        _note_errors(pieces, items[:], errors, data[parents_end:] if len(merged.statuses) == spans else b"")
    return pieces


def read_ids(body: bytes, count: int) -> list[Piece] | None:
    """Return the pieces of a request of `count` spans, by their ids alone; `None` if that needs a closer look."""
    merged = parse(pb.MergedIds.FromString, body).resources.scopes.items
    spans = len(merged.trace_ids)
    if not spans or spans != count:
        return None
    states: Sequence[bytes] = ()
    if merged.trace_states:
        states = merged.trace_states[:]
        if len(states) != spans or states.count(states[0]) != spans:
            return None
        states = states[:1]
        merged.ClearField("trace_states")
    merged.DiscardUnknownFields()
    block = merged.SerializeToString()
    pieces = _group(block, spans) if len(block) == _ID * spans else None
    if pieces and states:
        for piece in pieces:
            piece.states = states
    return pieces


@lru_cache(_MANY)
def _format(count: int) -> Struct:
    return Struct("<" + "2xQ" * count)


def _ids(block: bytes, count: int) -> tuple[int, ...]:
    """Return the span ids in a block of them, as numbers."""
    ids: tuple[int, ...] = (_format(count) if count <= _MANY else Struct("<" + "2xQ" * count)).unpack(block)
    return ids


def _parents(block: bytes, count: int) -> tuple[int, ...]:
    """Return the same of parents, which often are one and the same."""
    unit = block[:_SPAN]
    return _ids(unit, 1) * count if count and block == unit * count else _ids(block, count)


def _group(block: bytes, spans: int) -> list[Piece] | None:
    """Return the traces in a block of trace ids; `None` if one is no id."""
    unit = block[:_ID]
    if block == unit * spans and unit[:2] == b"\x0a\x10":
        return [Piece(unit[2:], range(spans))] if any(unit[2:]) else None
    # Another trace begins where the last byte of the id changes; two that have the same beside each other are rare.
    last = block[_ID - 1 :: _ID]
    changes = int.from_bytes(last[1:], "big") ^ int.from_bytes(last[:-1], "big")
    starts = [0, *[found.end() for found in _CHANGE.finditer(changes.to_bytes(spans - 1, "big"))]]
    ends = [*starts[1:], spans]
    units = [block[_ID * start : _ID * start + _ID] for start in starts]
    if len({*units}) == len(units) and b"".join(map(mul, units, map(sub, ends, starts))) == block:
        ids = b"".join(units)
        if ids[::_ID] != b"\x0a" * len(units) or ids[1::_ID] != b"\x10" * len(units) or _NO_UNIT in units:
            return None
        return [Piece(unit[2:], range(start, end)) for unit, start, end in zip(units, starts, ends, strict=True)]
    if block[::_ID] != b"\x0a" * spans or block[1::_ID] != b"\x10" * spans:
        return None
    mixed: dict[bytes, list[int]] = {}
    for run in _RUNS.finditer(block):
        mixed.setdefault(run[1], []).extend(range(run.start() // _ID, run.end() // _ID))
    return None if _NO_TRACE in mixed else [Piece(trace_id, indexes) for trace_id, indexes in mixed.items()]


def _find_roots(pieces: Sequence[Piece], items: Sequence[bytes], roots: int) -> bool:
    """Note the root of each trace, all having `roots` together; false if some cannot be told from other spans."""
    if not roots:
        return True
    left = roots
    for piece in pieces:
        # A root mostly comes last or first. Whose parent stands where nearly all senders put it is none.
        indexes = piece.indexes
        last = items[indexes[-1]]
        if last[_PARENT] != _HAS_PARENT and _is_root(last):
            piece.root = indexes[-1]
            left -= 1
        if piece.root < 0 or len(indexes) > 1:
            first = items[indexes[0]]
            if first[_PARENT] != _HAS_PARENT and _is_root(first):
                left -= piece.root < 0
                piece.root = indexes[0]
    if not left:
        return True
    found = 0
    for piece in pieces:
        candidates = [index for index in piece.indexes if _HAS_PARENT not in items[index]]
        found += len(candidates)
        piece.root = candidates[0] if candidates else -1
    return found == roots


def _is_root(item: bytes) -> bool:
    """Whether a span names no parent."""
    return _HAS_PARENT not in item or not parse(pb.RootSpan.FromString, item).parent_span_id


def _note_errors(pieces: Sequence[Piece], items: Sequence[bytes], errors: int, statuses: bytes) -> None:
    """Note which traces have errors, `errors` in all; `statuses` are those of all spans, if every span has one."""
    if statuses:
        failed = [index for index, code in enumerate(_STATUSES.findall(statuses)) if code == b"\x02"]
    else:
        # Statuses are mostly written last, or before the flags.
        failed = _failed(items, [i for i, item in enumerate(items) if _HAS_ERROR in item[-_TAIL:]])
        if len(failed) != errors:
            failed = _failed(items, [i for i, item in enumerate(items) if _HAS_ERROR in item])
    for piece in pieces:
        indexes = piece.indexes
        if isinstance(indexes, range):
            piece.error = bisect_left(failed, indexes.start) < bisect_left(failed, indexes.stop)
        else:
            piece.error = not {*failed}.isdisjoint(indexes)


def _failed(items: Sequence[bytes], indexes: Sequence[int]) -> list[int]:
    """Return which of these spans have errors."""
    return [index for index in indexes if parse(pb.TraceSpan.FromString, items[index]).status.code == ERROR]


_NOWHERE = Links((0,), (), ())
"""The links of a trace that is known not to be complete."""


def _read_rows(body: bytes) -> list[Piece]:
    """Read span by span."""
    found: dict[bytes, list[tuple[int, pb.TraceSpan]]] = {}
    index = 0
    for resource in parse(pb.TraceRows.FromString, body).resources:
        for scope in resource.scopes:
            for span in scope.items:
                found.setdefault(span.trace_id, []).append((index, span))
                index += 1
    pieces = []
    for trace_id, spans in found.items():
        piece = Piece(trace_id, [index for index, _ in spans])
        ids = {span.span_id for _, span in spans}
        roots = [index for index, span in spans if is_root(span.parent_span_id)]
        piece.root = roots[0] if roots else -1
        if not all(span.parent_span_id in ids or is_root(span.parent_span_id) for _, span in spans):
            piece.links = _NOWHERE
        piece.error = any(span.status.code == ERROR for _, span in spans)
        piece.states = {span.trace_state for _, span in spans if span.trace_state}
        piece.duplicates = len(ids) != len(spans)
        pieces.append(piece)
    return pieces


class Heads:
    """What stands around items: the rest of their resource's message and of their scope's, serialized."""

    __slots__ = ("of", "resource", "scope")

    def __init__(self, resource: bytes, scope: bytes, of: bytes = b"") -> None:
        self.resource = resource
        self.scope = scope
        self.of = of
        """The resource itself, serialized."""


class SpanView:
    """A request taken apart: all its spans in order, serialized, and what stands around them."""

    __slots__ = ("_request", "_scopes", "items", "resources", "scopes")

    def __init__(self, body: bytes) -> None:
        self._request = parse(pb.Resources.FromString, body)
        self.scopes: list[tuple[int, int, int]] = []
        """Of each scope: its first span, behind its last, and the index of its resource."""
        self.resources: list[bytes] = []
        """The resources, serialized."""
        self._scopes: list[pb.OpaqueScope] = []
        self.items: Sequence[bytes]
        """All spans. Those of a single scope are not even copied, until somebody asks for one."""
        resources = self._request.resources
        if len(resources) == 1 and len(resources[0].scopes) == 1:  # nearly always, and loops cost
            scope = resources[0].scopes[0]
            self.items = scope.items
            self.scopes.append((0, len(scope.items), 0))
            self.resources.append(resources[0].resource)
            self._scopes.append(scope)
            return
        end = 0
        for index, resource in enumerate(resources):
            self.resources.append(resource.resource)
            for scope in resource.scopes:
                start, end = end, end + len(scope.items)
                self.scopes.append((start, end, index))
                self._scopes.append(scope)
        self.items = [item for scope in self._scopes for item in scope.items]

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
        heads += [Heads(head, scope, resource.resource) for scope in scopes]
    return heads


def frame(items: Sequence[bytes]) -> bytes:
    """Return items as the fields of a scope that they are."""
    if max(map(len, items), default=0) < SMALL:
        return b"".join([_PREFIXES[len(item)] + item for item in items])
    return b"".join([prefixed(b"\x12", item) for item in items])


def enclose(heads: Heads, framed: bytes) -> bytes:
    """Return a request of framed items and what stands around them."""
    return prefixed(b"\x0a", heads.resource + prefixed(b"\x12", heads.scope + framed))
