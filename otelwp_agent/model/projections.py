"""Read, count and split serialized OTLP requests with projections instead of the complete message types.

Every function takes and returns serialized messages. Unknown and deprecated fields are kept, because protobuf keeps
fields that a projection does not declare. A malformed message raises `MalformedError`.
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
"""Bytes before a nested message: a tag of one byte and a length of at most five bytes."""


def parse(parser: Callable[[bytes], M], body: bytes) -> M:
    """Parse `body` with `parser` (a `FromString`); raise `MalformedError` if it does not parse."""
    try:
        return parser(body)
    except DecodeError as error:
        message = "the body is not a serialized OTLP export request"
        raise MalformedError(message) from error


def count(signal: Signal, body: bytes) -> int:
    """Return the number of items in `body`: spans, data points or log records."""
    if signal is Signal.METRICS:
        return _count_points(parse(pb.Points.FromString, body))
    return sum(
        [len(scope.items) for resource in parse(pb.Opaque.FromString, body).resources for scope in resource.scopes]
    )


def check(signal: Signal, body: bytes) -> int:
    """Return the number of items in `body`; check that every message down to the items parses as protobuf."""
    if signal is _METRICS:
        return _count_points(parse(pb.PointShape.FromString, body))
    resources = parse(_parse_shape, body).resources
    if len(resources) == 1:  # the usual case; access by index takes less than half the time of iteration
        scopes = resources[0].scopes
        if len(scopes) == 1:
            return len(scopes[0].items)
    return sum([len(scope.items) for resource in resources for scope in resource.scopes])


def split(signal: Signal, body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Split `body` into consecutive parts of `sizes` items; raise `ValueError` if the sum of `sizes` is not its items.

    Each part repeats the resources and scopes of its items. A metric with points in several parts is repeated in each
    of them. Resources, scopes and metrics without items are put into the part of the items before them.
    """
    request = parse(pb.Opaque.FromString, body)
    remaining_sizes = iter(sizes)
    free = next(remaining_sizes, 0)
    resources = list(request.resources)
    parts = _Parts(_head(request, "resources"))
    for items in _scopes(resources, parts):
        weights = [_points(item) for item in items] if signal is Signal.METRICS else None
        start = 0
        while True:
            end, weight = _fitting(items, weights, start, free)
            if end > start:
                parts.put(items[start:end])
            start = end
            free -= weight
            if start == len(items):
                break
            if free and weights is not None:
                first, items[start] = _cut_metric(items[start], free)
                weights[start] -= free
                parts.put([first])
            free = next(remaining_sizes, 0)
            if not free:
                message = f"{sum(sizes)} items were to be split, but there are more"
                raise ValueError(message)
            parts.begin()
    if free or next(remaining_sizes, 0):
        message = f"{sum(sizes)} items were to be split, but there are fewer"
        raise ValueError(message)
    return parts.bodies()


def split_batch(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Split a batch and its receipts into consecutive parts of `sizes` items."""
    bodies = split(batch.signal, batch.body, sizes)
    shares = divide(batch.shares, sizes)
    return [batch.with_body(body, size, part) for body, size, part in zip(bodies, sizes, shares, strict=True)]


def split_items(batch: Batch, max_items: int) -> list[Batch]:
    """Split a batch into parts of at most `max_items` items."""
    if batch.items <= max_items:
        return [batch]
    full, rest = divmod(batch.items, max_items)
    return split_batch(batch, [max_items] * full + ([rest] if rest else []))


def split_bytes(batch: Batch, max_bytes: int) -> list[Batch]:
    """Split a batch into parts of at most `max_bytes` each; a larger single item becomes a part of its own.

    Metrics without points do not count as items: they are put into the part of the items before them, whatever their
    size.
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
    """Split a batch into two halves between its receipts; a batch with one receipt is returned whole."""
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
    """The parts of a request, built one after the other. A resource or scope is added with its first items."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._heads = [b"", b""]
        self._parts: list[pb.Opaque] = []
        self.begin()

    def begin(self) -> None:
        """Begin a new part."""
        self._parts.append(pb.Opaque.FromString(self._head))
        self._resource: pb.OpaqueResource | None = None
        self._scope: pb.OpaqueScope | None = None

    def enter_resource(self, head: bytes) -> None:
        """Set the resource of the following scopes; `head` is the resource without its scopes."""
        self._heads[0] = head
        self._resource = self._scope = None

    def enter_scope(self, head: bytes) -> None:
        """Set the scope of the following items; `head` is the scope without its items."""
        self._heads[1] = head
        self._scope = None

    def put_resource(self) -> pb.OpaqueResource:
        """Return the current resource in this part; add it if it is missing."""
        if self._resource is None:
            self._resource = _add(self._parts[-1].resources, self._heads[0])
        return self._resource

    def put(self, items: Sequence[bytes]) -> None:
        """Add items to this part; with no items, add only the scope."""
        if self._scope is None:
            self._scope = _add(self.put_resource().scopes, self._heads[1])
        self._scope.items.extend(items)

    def bodies(self) -> list[bytes]:
        """Return the serialized parts."""
        return [part.SerializeToString() for part in self._parts]


def _scopes(resources: Sequence[pb.OpaqueResource], parts: _Parts) -> Iterator[list[bytes]]:
    """Yield the items of each scope that has items, and set that scope in `parts`; add empty scopes to `parts`."""
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
    """Clear `field` of a message and return the serialized rest of the message."""
    message.ClearField(field)
    return message.SerializeToString()


def _add(container: RepeatedCompositeFieldContainer[M], head: bytes) -> M:
    """Append a message with the fields of `head` (serialized) to `container`, and return it."""
    message = container.add()
    message.MergeFromString(head)
    return message


def _fitting(items: Sequence[bytes], weights: Sequence[int] | None, start: int, free: int) -> tuple[int, int]:
    """Return the end of the items from `start` that fit whole into a part, and their total weight.

    The part accepts the weight `free`. Without `weights`, each item has the weight 1.
    """
    if weights is None:
        count = min(len(items) - start, free)
        return start + count, count
    weight, end = 0, start
    while end < len(items) and weight + weights[end] <= free:
        weight += weights[end]
        end += 1
    return end, weight


def _data(metric: pb.Metric) -> pb.DataPoints | None:
    """Return the message that contains a metric's data points, or `None`."""
    kind = metric.WhichOneof("data")
    return None if kind is None else getattr(metric, kind)


def _points(item: bytes) -> int:
    """Return the number of data points in a serialized metric."""
    data = _data(parse(pb.Metric.FromString, item))
    return 0 if data is None else len(data.data_points)


def _cut_metric(item: bytes, points: int) -> tuple[bytes, bytes]:
    """Split a serialized metric into two with the same name and settings; the first gets the first `points` points."""
    halves = []
    for part in (slice(points, None), slice(None, points)):
        metric = parse(pb.Metric.FromString, item)
        data = _data(metric)
        if data is not None:
            del data.data_points[part]
        halves.append(metric.SerializeToString())
    return halves[0], halves[1]


def _costs(batch: Batch) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield runs of items as (bytes before them in a new part, bytes before them in the current part, items).

    Each item is (bytes, weight).
    """
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
    """Return the bytes of a serialized metric without its points, and (bytes, 1) for each point."""
    metric = parse(pb.Metric.FromString, item)
    data = _data(metric)
    if data is None or not data.data_points:
        return len(item) + _NESTING, [(0, 0)]
    points = [(len(point) + _NESTING, 1) for point in data.data_points]
    not_read = len(item) - metric.ByteSize()  # the bytes of earlier kinds of data, which the last kind replaces
    del data.data_points[:]
    return metric.ByteSize() + max(0, not_read) + 2 * _NESTING, points
