"""Read, count and split serialized OTLP requests through projections, never through the whole message.

Every function takes and returns protobuf wire bytes. Unknown and deprecated fields survive, because protobuf keeps what
a projection does not declare. Malformed bytes raise `MalformedError`.
"""

from __future__ import annotations

import itertools
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
    if signal is Signal.METRICS:
        return _count_points(parse(pb.Points.FromString, body))
    return sum(
        [len(scope.items) for resource in parse(pb.Shape.FromString, body).resources for scope in resource.scopes]
    )


def split(signal: Signal, body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut `body` into consecutive parts of `sizes` items, which add up to what it holds.

    Each part repeats the resources and scopes of its items. A metric whose points fall into several parts is repeated.
    """
    request = parse(pb.Opaque.FromString, body)
    cuts = list(itertools.accumulate(sizes))
    parts = [pb.Opaque()]
    position = 0
    for resource in request.resources:
        scopes = list(resource.scopes)
        resource_head = _head(resource, "scopes")
        target: pb.OpaqueResource | None = None
        for scope in scopes:
            items: Sequence[bytes] = list(scope.items)
            weights: Sequence[int] | None = None
            if signal is Signal.METRICS:
                items, weights = _cut_metrics(items, position, cuts)
            scope_head = _head(scope, "items")
            start = 0
            while True:
                if position == cuts[len(parts) - 1] and start < len(items) and len(parts) < len(cuts):
                    parts.append(pb.Opaque())
                    target = None
                if target is None:
                    target = _add(parts[-1].resources, resource_head)
                taken, weight = _run(len(items), weights, start, cuts[len(parts) - 1] - position)
                _add(target.scopes, scope_head).items.extend(items[start : start + taken])
                start += taken
                position += weight
                if start >= len(items):
                    break
        if not scopes:
            _add(parts[-1].resources, resource_head)
    return [part.SerializeToString() for part in parts]


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
    """Cut a batch into parts of at most `max_bytes` each; one item that is larger stays alone, and too large."""
    if len(batch.body) <= max_bytes or batch.items <= 1:
        return [batch]
    sizes: list[int] = []
    size = used = 0
    for fresh, more, items in _costs(batch):
        entering = more
        for item_cost, weight in items:
            cost = entering + item_cost
            if size and used + cost > max_bytes:
                sizes.append(size)
                size = used = 0
            if not used:
                cost = fresh + item_cost
            size += weight
            used += cost
            entering = 0
    if size or not sizes:
        sizes.append(size)
    return split_batch(batch, sizes) if len(sizes) > 1 else [batch]


def split_receipts(batch: Batch) -> list[Batch]:
    """Cut a batch in two halves between its receipts; a batch of one receipt comes back alone."""
    if len(batch.shares) < 2:  # noqa: PLR2004 - two halves
        return [batch]
    middle = sum(items for _, items in batch.shares[: len(batch.shares) // 2])
    return split_batch(batch, [middle, batch.items - middle])


def _count_points(request: pb.Points) -> int:
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


def _head(message: Message, field: str) -> bytes:
    """Empty `field` of a message and return the rest of it, serialized."""
    message.ClearField(field)
    return message.SerializeToString()


def _add(container: RepeatedCompositeFieldContainer[M], head: bytes) -> M:
    """Append a message that starts as `head`, and return it."""
    message = container.add()
    message.MergeFromString(head)
    return message


def _run(available: int, weights: Sequence[int] | None, start: int, need: int) -> tuple[int, int]:
    """Return how many items from `start` go into a part that has room for `need`, and what they weigh."""
    if weights is None:
        taken = min(available - start, need)
        return taken, taken
    weight = 0
    end = start
    while end < available and weight + weights[end] <= need:
        weight += weights[end]
        end += 1
    return end - start, weight


def _points(metric: pb.Metric) -> tuple[str, int]:
    """Return which kind of points a metric holds, and how many."""
    for kind in POINT_KINDS:
        points = len(getattr(metric, kind).data_points)
        if points:
            return kind, points
    return "", 0


def _cut_metrics(items: Sequence[bytes], position: int, cuts: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """Return metrics and their points, with each metric that holds points on both sides of a cut made two."""
    metrics: list[bytes] = []
    weights: list[int] = []
    for item in items:
        metric = parse(pb.Metric.FromString, item)
        kind, points = _points(metric)
        edges = [cut - position for cut in cuts if position < cut < position + points]
        if not edges:
            metrics.append(item)
            weights.append(points)
        else:
            data = getattr(metric, kind)
            all_points = list(data.data_points)
            for start, end in itertools.pairwise([0, *edges, points]):
                del data.data_points[:]
                data.data_points.extend(all_points[start:end])
                metrics.append(metric.SerializeToString())
                weights.append(end - start)
        position += points
    return metrics, weights


def _costs(batch: Batch) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield runs of items as (bytes if a part begins here, bytes if it goes on, [(bytes, weight) of each item])."""
    for resource in parse(pb.Opaque.FromString, batch.body).resources:
        scopes = list(resource.scopes)
        resource_cost = len(_head(resource, "scopes")) + _NESTING
        for scope in scopes:
            items = list(scope.items)
            scope_cost = resource_cost + len(_head(scope, "items")) + _NESTING
            if batch.signal is not Signal.METRICS:
                yield scope_cost, scope_cost, [(len(item) + _NESTING, 1) for item in items]
                continue
            for item in items:
                metric = parse(pb.Metric.FromString, item)
                kind, points = _points(metric)
                if not points:
                    yield scope_cost, scope_cost, [(len(item) + _NESTING, 0)]
                    continue
                data = getattr(metric, kind)
                sizes = [(len(point) + _NESTING, 1) for point in data.data_points]
                del data.data_points[:]
                head = metric.ByteSize() + 2 * _NESTING
                yield scope_cost + head, head, sizes
