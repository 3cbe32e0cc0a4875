"""The facts about an item that the conditions of routing rules can read.

A `FactReader` says where a fact is and how deep the telemetry must be read for it: the request, its resources, their
scopes or every item. The deepest reader of a rule decides what the rule costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.model.batch import Origin

Value = str | bool | int | float | bytes | None
"""A fact; `None` if the telemetry does not have it. Arrays and maps are JSON texts."""

Item = pb.RoutedSpan | pb.LogAttributes | pb.MetricAttributes
_NOTHING: Mapping[bytes, bytes] = {}


class Depth(IntEnum):
    """The depth to which telemetry is read, in order of cost."""

    REQUEST = 0
    RESOURCE = 1
    SCOPE = 2
    ITEM = 3


class Facts:
    """The facts about one item, set from the outside in: the request, a resource, a scope, the item."""

    __slots__ = ("attributes", "item", "origin", "resource", "scope", "scope_attributes")

    def __init__(self, origin: Origin) -> None:
        """Describe the items of a request with this origin."""
        self.origin = origin
        self.resource: Mapping[bytes, bytes] = _NOTHING
        """Serialized values of the resource's attributes that some rule reads, by key."""
        self.scope = pb.RoutedScope()
        self.scope_attributes: Mapping[bytes, bytes] = _NOTHING
        self.item: Item = pb.RoutedSpan()
        self.attributes: Mapping[bytes, bytes] = _NOTHING


@dataclass(frozen=True, slots=True)
class FactReader:
    """A fact that a condition reads."""

    path: str
    """Its full path, for messages: `resource.attributes["service.name"]`."""
    depth: Depth
    read: Callable[[Facts], Value]
    key: bytes | None = None
    """The key, if the fact is an attribute."""
    raw: Callable[[Facts], object] | None = None
    """Returns something cheap that determines the fact and has few different values; `None` if there is no such thing,
    so that decisions cannot be remembered."""


def value_of(data: bytes | None) -> Value:  # noqa: PLR0911 - one for each type
    """Return a serialized attribute value as a fact."""
    if data is None:
        return None
    value = decode(data)
    match value.WhichOneof("value"):
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bytes_value":
            return value.bytes_value
        case None:
            return None
        case _:
            return as_string(value)
