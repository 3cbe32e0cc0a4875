"""Divide a batch among destinations by a table of rules.

A request is forwarded as it is if all of its items have the same destinations. If they depend on resources alone, the
request is cut between its resources, without reading below them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import count, parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.facts import Depth, Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.model.batch import Batch, Origin, Share
    from otelwp_agent.routing.facts import Item
    from otelwp_agent.routing.table import ResourceMatch, RoutingTable, Targets

ITEM_PARSERS: dict[Signal, Callable[[bytes], Any]] = {
    Signal.TRACES: pb.RoutedSpan.FromString,
    Signal.LOGS: pb.LogAttributes.FromString,
    Signal.METRICS: pb.MetricAttributes.FromString,
}
"""Parsers of an item with the fields that conditions read, by signal."""


class Routed(NamedTuple):
    """The part of a request that goes to the same destinations."""

    targets: Targets
    """Empty if no rule has taken the items and there is no default."""
    body: bytes
    places: Sequence[int] | None
    """Positions of its items in the request, in order; `None` for all of them."""


def divide(table: RoutingTable, signal: Signal, body: bytes, origin: Origin, *, whole_traces: bool) -> list[Routed]:
    """Return the parts of a request, one for each set of destinations, in the order of their first items.

    With `whole_traces`, all spans of a trace go where the first rule that matches any of them sends it. Raises
    `MalformedError` if the request cannot be read.
    """
    if table.depth is Depth.REQUEST:
        return [Routed(table.targets(table.know(Facts(origin), b"").mask), body, None)]
    request = parse(pb.Resources.FromString, body)
    facts = Facts(origin)
    known = [table.know(facts, group.resource) for group in request.resources]
    if not known:
        return [Routed(table.default, body, None)]
    if not any(each.open for each in known):
        return by_resources(signal, body, request, [table.targets(each.mask) for each in known])
    slices = parse(pb.Slices.FromString, body)
    masks = _Masks(table, signal, facts, whole_traces=whole_traces)
    for group in slices.resources:
        masks.resource(group)
    return by_items(signal, body, slices, masks.targets()) or [Routed(table.default, body, None)]


def batch_of(batch: Batch, routed: Routed) -> Batch:
    """Return the batch of one part, with its shares of the receipts."""
    if routed.places is None:
        return batch
    return batch.with_body(routed.body, len(routed.places), _shares(batch.shares, routed.places))


def by_resources(signal: Signal, body: bytes, request: pb.Resources, targets: Sequence[Targets]) -> list[Routed]:
    """Divide a request between its resources; `targets` are the destinations of each."""
    kinds = list(dict.fromkeys(targets))
    if len(kinds) == 1:
        return [Routed(kinds[0], body, None)]
    parts = {kind: pb.Resources() for kind in kinds}
    places: dict[Targets, list[int]] = {kind: [] for kind in kinds}
    start = 0
    for group, kind in zip(request.resources, targets, strict=True):
        parts[kind].resources.append(group)
        items = count(signal, pb.Resources(resources=[group]).SerializeToString())
        places[kind] += range(start, start + items)
        start += items
    return [Routed(kind, parts[kind].SerializeToString(), places[kind]) for kind in kinds]


class _Masks:
    """Finds the rules that match each item of a request."""

    def __init__(self, table: RoutingTable, signal: Signal, facts: Facts, *, whole_traces: bool) -> None:
        self.table = table
        self._facts = facts
        self._parse: Callable[[bytes], Item] = ITEM_PARSERS[signal]
        self._joins = whole_traces and signal is Signal.TRACES
        self._traces: dict[bytes, int] = {}
        self.rows: list[tuple[int, bytes]] = []
        """The mask of each item, and its trace if spans of a trace stay together."""

    def resource(self, group: pb.SlicesResource) -> None:
        """Read the items of one resource."""
        known = self.table.know(self._facts, group.resource)
        for scope in group.scopes:
            self.table.enter_scope(self._facts, scope.scope)
            for data in scope.items:
                self._item(known, data)

    def _item(self, known: ResourceMatch, data: bytes) -> None:
        if not known.open and not self._joins:
            self.rows.append((known.mask, b""))
            return
        try:
            item = self._parse(data)
        except DecodeError as error:
            message = "the body is not a serialized OTLP export request"
            raise MalformedError(message) from error
        mask = self.table.match(self._facts, known, item) if known.open else known.mask
        trace = b""
        if self._joins and isinstance(item, pb.RoutedSpan):
            trace = item.trace_id
            self._traces[trace] = self._traces.get(trace, 0) | mask
        self.rows.append((mask, trace))

    def targets(self) -> list[Targets]:
        """Return the destinations of each item."""
        table, traces = self.table, self._traces
        return [table.targets(traces[trace] if trace else mask) for mask, trace in self.rows]


def by_items(signal: Signal, body: bytes, request: pb.Slices, targets: Sequence[Targets]) -> list[Routed]:
    """Divide a request between its items; `targets` are the destinations of each. Without items, return nothing.

    `request` is consumed.
    """
    kinds = list(dict.fromkeys(targets))
    if len(kinds) < 2:  # noqa: PLR2004 - nothing to divide
        return [Routed(kind, body, None) for kind in kinds]
    parts = {kind: _Part() for kind in kinds}
    start = item = 0
    for group in request.resources:
        scopes = list(group.scopes)
        del group.scopes[:]
        resource_head = group.SerializeToString()
        for part in parts.values():
            part.resource = resource_head
        for scope in scopes:
            items = list(scope.items)
            del scope.items[:]
            scope_head = scope.SerializeToString()
            for part in parts.values():
                part.scope = scope_head
            for data in items:
                weight = 1 if signal is not Signal.METRICS else _points(data)
                parts[targets[item]].add(data, range(start, start + weight))
                start += weight
                item += 1
    return [Routed(kind, parts[kind].request.SerializeToString(), parts[kind].places) for kind in kinds]


class _Part:
    """A part of a request while it is built; a resource or scope is added with its first item."""

    def __init__(self) -> None:
        self.request = pb.Slices()
        self.places: list[int] = []
        self._resource: bytes = b""
        self._scope: bytes = b""
        self._into_resource: pb.SlicesResource | None = None
        self._into_scope: pb.SlicesScope | None = None

    @property
    def resource(self) -> bytes:
        """The serialized resource of the following scopes, without scopes."""
        return self._resource

    @resource.setter
    def resource(self, head: bytes) -> None:
        self._resource, self._into_resource, self._into_scope = head, None, None

    @property
    def scope(self) -> bytes:
        """The serialized scope of the following items, without items."""
        return self._scope

    @scope.setter
    def scope(self, head: bytes) -> None:
        self._scope, self._into_scope = head, None

    def add(self, data: bytes, places: range) -> None:
        """Add an item; `places` are its positions in the request (of a metric: those of its points)."""
        if self._into_scope is None:
            if self._into_resource is None:
                self._into_resource = self.request.resources.add()
                self._into_resource.MergeFromString(self._resource)
            self._into_scope = self._into_resource.scopes.add()
            self._into_scope.MergeFromString(self._scope)
        self._into_scope.items.append(data)
        self.places += places


def _points(data: bytes) -> int:
    """Return the number of data points of a serialized metric."""
    slices = pb.Slices(resources=[pb.SlicesResource(scopes=[pb.SlicesScope(items=[data])])])
    return count(Signal.METRICS, slices.SerializeToString())


def _shares(shares: Sequence[Share], places: Sequence[int]) -> list[Share]:
    """Return the shares of the items at `places`, which are in order."""
    found: list[Share] = []
    end, at = 0, 0
    for receipt, items in shares:
        end += items
        first = at
        while at < len(places) and places[at] < end:
            at += 1
        if at > first:
            found.append((receipt, at - first))
    return found
