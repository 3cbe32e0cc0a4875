"""Read, count and split serialized OTLP requests through projections, never through the whole message.

Every function takes and returns protobuf wire bytes. Unknown and deprecated fields survive, because protobuf keeps what
a projection does not declare. Malformed bytes raise `MalformedError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Batch, divide
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

M = TypeVar("M", bound=Message)

POINT_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
"""The fields of a Metric that can hold data points; a metric has one of them."""

_METRICS = Signal.METRICS
_parse_shape = pb.Shape.FromString

_NESTING = 6
"""Bytes that a nested message costs beside its own: a tag, and a length that needs five bytes at most."""


def parse(parser: Callable[[bytes], M], body: bytes) -> M:
    """Parse `body` with `parser` (a `FromString`); raise `MalformedError` if it does not parse."""
    try:
        return parser(body)
    except DecodeError as error:
        message = "the body is not a serialized OTLP export request"
        raise MalformedError(message) from error


def count(signal: Signal, body: bytes) -> int:
    """Return the items in `body`: spans, data points or log records."""
    if signal is Signal.METRICS:
        return _count_points(parse(pb.Points.FromString, body))
    return sum(
        [len(scope.items) for resource in parse(pb.Opaque.FromString, body).resources for scope in resource.scopes]
    )


def check(signal: Signal, body: bytes) -> int:
    """Return the items in `body` after proving that every message down to the item parses as protobuf."""
    if signal is _METRICS:
        return _count_points(parse(pb.PointShape.FromString, body))
    resources = parse(_parse_shape, body).resources
    if len(resources) == 1:  # nearly always, and reading by index costs less than half of iterating
        scopes = resources[0].scopes
        if len(scopes) == 1:
            return len(scopes[0].items)
    return sum([len(scope.items) for resource in resources for scope in resource.scopes])


def split(signal: Signal, body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut `body` into consecutive parts of `sizes` items; raise `ValueError` if they do not add up to what it holds.

    Each part repeats the resources and scopes of its items. A metric whose points fall into several parts is repeated.
    What holds no items goes with the items before it.
    """
    request = parse(pb.Opaque.FromString, body)
    rooms = iter(sizes)
    room = next(rooms, 0)
    resources = list(request.resources)
    parts = _Parts(_head(request, "resources"))
    for items in _scopes(resources, parts):
        weights = [_points(item) for item in items] if signal is Signal.METRICS else None
        start = 0
        while True:
            end, weight = _fitting(items, weights, start, room)
            if end > start:
                parts.put(items[start:end])
            start = end
            room -= weight
            if start == len(items):
                break
            if room and weights is not None:
                first, items[start] = _cut_metric(items[start], room)
                weights[start] -= room
                parts.put([first])
            room = next(rooms, 0)
            if not room:
                message = f"{sum(sizes)} items were to be split, but there are more"
                raise ValueError(message)
            parts.begin()
    if room or next(rooms, 0):
        message = f"{sum(sizes)} items were to be split, but there are less"
        raise ValueError(message)
    return parts.bodies()


def split_batch(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Cut a batch into consecutive parts of `sizes` items, its receipts divided among them."""
    bodies = split(batch.signal, batch.body, sizes)
    shares = divide(batch.shares, sizes)
    return [batch.with_body(body, size, part) for body, size, part in zip(bodies, sizes, shares, strict=True)]


def split_items(batch: Batch, max_items: int) -> list[Batch]:
    """Cut a batch into parts of at most `max_items` items."""
    if batch.items <= max_items:
        return [batch]
    full, rest = divmod(batch.items, max_items)
    return split_batch(batch, [max_items] * full + ([rest] if rest else []))


def split_bytes(batch: Batch, max_bytes: int) -> list[Batch]:
    """Cut a batch into parts of at most `max_bytes` each; one item that is larger stays alone, and too large.

    Metrics without points are no items: they go with the items before them, whatever they weigh.
    """
    if len(batch.body) <= max_bytes or batch.items <= 1:
        return [batch]
    sizes: list[int] = []
    size = used = 0
    for fresh, more, items in _costs(batch):
        entering = more
        for item_cost, weight in items:
            if size and weight and used + entering + item_cost > max_bytes:
                sizes.append(size)
                size = used = 0
            used += item_cost + (entering if used else fresh)
            size += weight
            entering = 0
    sizes.append(size)
    return split_batch(batch, sizes) if len(sizes) > 1 else [batch]


def split_receipts(batch: Batch) -> list[Batch]:
    """Cut a batch in two halves between its receipts; a batch of one receipt comes back alone."""
    if len(batch.shares) < 2:  # noqa: PLR2004 - two halves
        return [batch]
    middle = sum(items for _, items in batch.shares[: len(batch.shares) // 2])
    return split_batch(batch, [middle, batch.items - middle])


def _count_points(request: pb.Points | pb.PointShape) -> int:
    return sum(
        [
            len(metric.gauge.data_points)
            + len(metric.sum.data_points)
            + len(metric.histogram.data_points)
            + len(metric.exponential_histogram.data_points)
            + len(metric.summary.data_points)
            for resource in request.resources
            for scope in resource.scopes
            for metric in scope.items
        ]
    )


class _Parts:
    """The parts of a request, made one after the other; a resource and a scope enter a part with their first items."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._heads = [b"", b""]
        self._parts: list[pb.Opaque] = []
        self.begin()

    def begin(self) -> None:
        """Go on in a new part."""
        self._parts.append(pb.Opaque.FromString(self._head))
        self._resource: pb.OpaqueResource | None = None
        self._scope: pb.OpaqueScope | None = None

    def enter_resource(self, head: bytes) -> None:
        """Go on within a resource."""
        self._heads[0] = head
        self._resource = self._scope = None

    def enter_scope(self, head: bytes) -> None:
        """Go on within a scope of that resource."""
        self._heads[1] = head
        self._scope = None

    def put_resource(self) -> pb.OpaqueResource:
        """Return the resource in this part."""
        if self._resource is None:
            self._resource = _add(self._parts[-1].resources, self._heads[0])
        return self._resource

    def put(self, items: Sequence[bytes]) -> None:
        """Put items into this part, none of them if only the scope is to be there."""
        if self._scope is None:
            self._scope = _add(self.put_resource().scopes, self._heads[1])
        self._scope.items.extend(items)

    def bodies(self) -> list[bytes]:
        """Return the parts, serialized."""
        return [part.SerializeToString() for part in self._parts]


def _scopes(resources: Sequence[pb.OpaqueResource], parts: _Parts) -> Iterator[list[bytes]]:
    """Yield the items of each scope that has some, `parts` having entered it; put what is empty into `parts`."""
    for resource in resources:
        scopes = list(resource.scopes)
        parts.enter_resource(_head(resource, "scopes"))
        if not scopes:
            parts.put_resource()
        for scope in scopes:
            items = list(scope.items)
            parts.enter_scope(_head(scope, "items"))
            if items:
                yield items
            else:
                parts.put(())


def _head(message: Message, field: str) -> bytes:
    """Empty `field` of a message and return the rest of it, serialized."""
    message.ClearField(field)
    return message.SerializeToString()


def _add(container: RepeatedCompositeFieldContainer[M], head: bytes) -> M:
    """Append a message that starts as `head`, and return it."""
    message = container.add()
    message.MergeFromString(head)
    return message


def _fitting(items: Sequence[bytes], weights: Sequence[int] | None, start: int, room: int) -> tuple[int, int]:
    """Return the end of the items from `start` that go whole into a part with `room` left, and what they weigh."""
    if weights is None:
        taken = min(len(items) - start, room)
        return start + taken, taken
    weight, end = 0, start
    while end < len(items) and weight + weights[end] <= room:
        weight += weights[end]
        end += 1
    return end, weight


def _data(metric: pb.Metric) -> pb.DataPoints | None:
    """Return what holds a metric's data points."""
    kind = metric.WhichOneof("data")
    return None if kind is None else getattr(metric, kind)


def _points(item: bytes) -> int:
    """Return the data points of a serialized metric."""
    data = _data(parse(pb.Metric.FromString, item))
    return 0 if data is None else len(data.data_points)


def _cut_metric(item: bytes, points: int) -> tuple[bytes, bytes]:
    """Cut a serialized metric after so many of its points; both parts are the same metric."""
    halves = []
    for part in (slice(points, None), slice(None, points)):
        metric = parse(pb.Metric.FromString, item)
        data = _data(metric)
        if data is not None:
            del data.data_points[part]
        halves.append(metric.SerializeToString())
    return halves[0], halves[1]


def _costs(batch: Batch) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield runs of items as (bytes if a part begins here, bytes if it goes on, [(bytes, weight) of each item])."""
    request = parse(pb.Opaque.FromString, batch.body)
    resources = list(request.resources)
    root_cost = len(_head(request, "resources"))
    for resource in resources:
        scopes = list(resource.scopes)
        resource_cost = len(_head(resource, "scopes")) + _NESTING
        more = resource_cost
        if not scopes:
            yield root_cost, 0, [(resource_cost, 0)]
        for scope in scopes:
            items = list(scope.items)
            scope_cost = len(_head(scope, "items")) + _NESTING
            fresh = root_cost + resource_cost + scope_cost
            more += scope_cost
            if not items:
                yield fresh, more, [(0, 0)]
            elif batch.signal is not Signal.METRICS:
                yield fresh, more, [(len(item) + _NESTING, 1) for item in items]
            else:
                for item in items:
                    head, points = _metric_costs(item)
                    yield fresh + head, more + head, points
                    more = 0
            more = 0


def _metric_costs(item: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Return what a serialized metric costs without its points, and (bytes, 1) of each point."""
    metric = parse(pb.Metric.FromString, item)
    data = _data(metric)
    if data is None or not data.data_points:
        return len(item) + _NESTING, [(0, 0)]
    points = [(len(point) + _NESTING, 1) for point in data.data_points]
    not_read = len(item) - metric.ByteSize()  # a second kind of data, which the last one replaces
    del data.data_points[:]
    return metric.ByteSize() + max(0, not_read) + 2 * _NESTING, points
