"""Edit attributes at any level of a request: resources, scopes, items, and the events and links of spans.

Messages that the chosen levels do not need stay bytes: with `levels={Level.RESOURCE}` no span is parsed.
"""

from __future__ import annotations

from enum import Enum
from operator import is_not
from typing import TYPE_CHECKING, Any

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import POINT_KINDS, parse
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from otelwp_agent.model.attributes import Attributes

    Edit = Callable[[Attributes], bool]
    EditBytes = Callable[[bytes], bytes]


class Level(Enum):
    """A kind of message that has attributes."""

    RESOURCE = "resource"
    SCOPE = "scope"
    ITEM = "item"
    """Spans, log records, metric data points."""
    EVENT = "event"
    """Events of spans."""
    LINK = "link"
    """Links of spans."""


ALL_LEVELS = frozenset(Level)


def edit_attributes(signal: Signal, body: bytes, edit: Edit, levels: Collection[Level] = ALL_LEVELS) -> bytes | None:
    """Return `body` with `edit` applied to the attributes at `levels`, or `None` if it changed nothing.

    `edit(attributes)` changes a list of `KeyValue`s in place and returns whether it did. Keys are bytes, and values are
    serialized AnyValues: `model.attributes` reads and writes them. Raises `MalformedError` if the body, or a message
    that must be read, does not parse.
    """
    edit_item = _item_editor(signal, edit, levels)
    request = parse(pb.Slices.FromString, body)
    changed = False
    for group in request.resources:
        if Level.RESOURCE in levels:
            resource = _edited(pb.Resource, group.resource, edit)
            if resource is not None:
                group.resource = resource
                changed = True
        for scoped in group.scopes:
            if Level.SCOPE in levels:
                scope = _edited(pb.AttributedScope, scoped.scope, edit)
                if scope is not None:
                    scoped.scope = scope
                    changed = True
            if edit_item is not None and _edit_items(scoped, edit_item):
                changed = True
    return request.SerializeToString() if changed else None


def _edited(message: type[pb.Resource | pb.AttributedScope], data: bytes, edit: Edit) -> bytes | None:
    """Return a serialized message with its attributes edited, or `None` if nothing changed."""
    parsed: Any = parse(message.FromString, data)
    return parsed.SerializeToString() if edit(parsed.attributes) else None


def _edit_items(scoped: pb.SlicesScope, edit_item: EditBytes) -> bool:
    items = scoped.items[:]
    edited = [edit_item(data) for data in items]
    if not any(map(is_not, items, edited)):
        return False
    scoped.ClearField("items")
    scoped.items.extend(edited)
    return True


def _item_editor(signal: Signal, edit: Edit, levels: Collection[Level]) -> EditBytes | None:
    """Return a function that edits a serialized item; `None` if no item has to be parsed.

    The function returns the same object if nothing changes.
    """
    own = Level.ITEM in levels
    inner = signal is Signal.TRACES and not {Level.EVENT, Level.LINK}.isdisjoint(levels)
    if not own and not inner:
        return None
    read: Callable[[bytes], Any] = {
        Signal.TRACES: pb.AttributedSpan if inner else pb.SpanAttributes,
        Signal.LOGS: pb.LogAttributes,
        Signal.METRICS: pb.MetricAttributes,
    }[signal].FromString
    if signal is Signal.METRICS:
        return lambda data: _edit_with(data, read, lambda metric: _edit_points(metric, edit))

    def apply(item: Any) -> bool:  # noqa: ANN401 - a span or a log record
        changed = own and edit(item.attributes)
        if inner and Level.EVENT in levels:
            for event in item.events:
                changed |= edit(event.attributes)
        if inner and Level.LINK in levels:
            for link in item.links:
                changed |= edit(link.attributes)
        return changed

    return lambda data: _edit_with(data, read, apply)


def _edit_with(data: bytes, read: Callable[[bytes], Any], apply: Callable[[Any], bool]) -> bytes:
    item = parse(read, data)
    if not apply(item):
        return data
    serialized: bytes = item.SerializeToString()
    return serialized


def _edit_points(metric: pb.MetricAttributes, edit: Edit) -> bool:
    changed = False
    for kind in POINT_KINDS:
        if metric.HasField(kind):
            for point in getattr(metric, kind).data_points:
                changed |= edit(point.attributes)
    return changed
