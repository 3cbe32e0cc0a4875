"""Split requests into items that can be compared, independently of how they were batched and grouped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.model.messages import request_class
from otelwp_agent.model.projections import POINT_KINDS
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

_FIELDS = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
}


class Item(NamedTuple):
    """One item with its resource and scope, each serialized. Two items are equal if all three are.

    `resource` and `scope` are the ResourceSpans without its scopes and the ScopeSpans without its spans (and likewise
    for metrics and logs). `item` is a span, a log record, or a metric with one data point.
    """

    resource: bytes
    scope: bytes
    item: bytes


def items_of(signal: Signal, body: bytes) -> list[Item]:
    """Return the items of a serialized request, in order."""
    resources, scopes, items = _FIELDS[signal]
    found: list[Item] = []
    for resource in getattr(request_class(signal).FromString(body), resources):
        outer = _without(resource, scopes)
        for scope in getattr(resource, scopes):
            inner = _without(scope, items)
            for item in getattr(scope, items):
                found += [Item(outer, inner, data) for data in _parts(signal, item)]
    return found


def messages_of(signal: Signal, body: bytes) -> list[Message]:
    """Return the fully parsed items of a request (for metrics: the metrics), in order."""
    resources, scopes, items = _FIELDS[signal]
    return [
        item
        for resource in getattr(request_class(signal).FromString(body), resources)
        for scope in getattr(resource, scopes)
        for item in getattr(scope, items)
    ]


def _parts(signal: Signal, item: Message) -> Iterator[bytes]:
    """Yield the serialized item; for a metric, one copy of it for each data point."""
    kind = item.WhichOneof("data") if signal is Signal.METRICS else None
    if kind not in POINT_KINDS:
        if signal is not Signal.METRICS:
            yield item.SerializeToString(deterministic=True)
        return
    points = list(getattr(item, kind).data_points)
    for point in points:
        one = type(item)()
        one.CopyFrom(item)
        data = getattr(one, kind)
        data.ClearField("data_points")
        data.data_points.append(point)
        yield one.SerializeToString(deterministic=True)


def _without(message: Message, field: str) -> bytes:
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField(field)
    return rest.SerializeToString(deterministic=True)
