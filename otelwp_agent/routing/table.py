"""A table of rules, and the destinations of an item.

The rules that match an item are a mask: bit n stands for rule n. What the request and the resource decide is evaluated
once for each different resource and remembered; items are read only if a rule is left that needs them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.routing.facts import Depth, Facts

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from otelwp_agent.routing.conditions import Condition
    from otelwp_agent.routing.facts import FactReader, Item

V = TypeVar("V")

Targets = tuple[str, ...]
"""Names of destinations, in the order of the table, each once."""

REMEMBERED = 4096
"""Most decisions that a table remembers, of resources and of items each."""
LONGEST_REMEMBERED = 2048
"""Bytes of the largest resource whose decision is remembered; with `REMEMBERED`, this bounds the memory to 8 MiB."""


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A row of the table."""

    name: str
    """Its name in messages."""
    condition: Condition
    targets: Targets
    copies: bool = False
    """Whether later rules see the items, too."""


@dataclass(frozen=True, slots=True)
class ResourceMatch:
    """The decision that request and resource allow: the rules known to match, and those that need more."""

    mask: int
    open: tuple[tuple[int, RoutingRule], ...]
    """Rules that read scopes or items, with their bits; without the rules behind one that is known to take all."""


class RoutingTable:
    """Rules in order, and the destinations of the items that no rule takes."""

    def __init__(self, rules: Sequence[RoutingRule], default: Targets) -> None:
        """Use `rules` for items of one signal."""
        self.rules = rules
        self.default = default
        self.depth = max((rule.condition.depth for rule in rules), default=Depth.REQUEST)
        """The depth to which telemetry must be read."""
        self._readers = tuple(dict.fromkeys(reader for rule in rules for reader in rule.condition.readers))
        self._request_readers = [reader for reader in self._readers if reader.depth is Depth.REQUEST]
        self._keys = {depth: _keys(self._readers, depth) for depth in Depth}
        deep = [rule.condition for rule in rules if rule.condition.depth > Depth.RESOURCE]
        raws = [reader.raw for reader in dict.fromkeys(reader for condition in deep for reader in condition.readers)]
        self._raws = [raw for raw in raws if raw is not None]
        """Determine together which rules match an item …"""
        self._remembers_items = None not in raws
        """… unless a rule reads a fact that has too many values."""
        self._reads_scopes = any(reader.depth is Depth.SCOPE for reader in self._readers)
        self._resources: OrderedDict[Hashable, tuple[ResourceMatch, Mapping[bytes, bytes]]] = OrderedDict()
        self._items: OrderedDict[Hashable, int] = OrderedDict()
        self._targets: dict[int, Targets] = {}

    def know(self, facts: Facts, resource: bytes) -> ResourceMatch:
        """Return what the request and a serialized resource decide; set the resource of `facts`."""
        key = (resource, *[reader.read(facts) for reader in self._request_readers])
        found = self._resources.get(key)
        if found is None:
            message = parse(pb.Resource.FromString, resource)
            facts.resource = _wanted(message.attributes, self._keys[Depth.RESOURCE])
            found = self._known(facts), facts.resource
            if len(resource) <= LONGEST_REMEMBERED:
                _remember(self._resources, key, found)
        else:
            self._resources.move_to_end(key)
        facts.resource = found[1]
        return found[0]

    def enter_scope(self, facts: Facts, scope: bytes) -> None:
        """Set the scope of `facts`, if a rule reads it."""
        if self._reads_scopes:
            facts.scope = parse(pb.RoutedScope.FromString, scope)
            facts.scope_attributes = _wanted(facts.scope.attributes, self._keys[Depth.SCOPE])

    def match(self, facts: Facts, known: ResourceMatch, item: Item) -> int:
        """Return the mask of all rules that match an item whose request and resource are `known`."""
        facts.item = item
        keys = self._keys[Depth.ITEM]
        if keys and not isinstance(item, pb.MetricAttributes):
            facts.attributes = _wanted(item.attributes, keys)
        if not self._remembers_items:
            return self._match(facts, known)
        key = (known.mask, *[raw(facts) for raw in self._raws])
        mask = self._items.get(key)
        if mask is None:
            mask = self._match(facts, known)
            if sum(len(part) for part in key if isinstance(part, bytes | str)) <= LONGEST_REMEMBERED:
                _remember(self._items, key, mask)
        return mask

    def targets(self, mask: int) -> Targets:
        """Return the destinations of items that match the rules in `mask`; empty if there is none."""
        found = self._targets.get(mask)
        if found is None:
            found = self._walk(mask)
            if len(self._targets) < REMEMBERED:
                self._targets[mask] = found
        return found

    def _known(self, facts: Facts) -> ResourceMatch:
        mask, left = 0, []
        for place, rule in enumerate(self.rules):
            if rule.condition.depth > Depth.RESOURCE:
                left.append((1 << place, rule))
            elif rule.condition.test(facts):
                mask |= 1 << place
                if not rule.copies:
                    break
        return ResourceMatch(mask, tuple(left))

    @staticmethod
    def _match(facts: Facts, known: ResourceMatch) -> int:
        mask = known.mask
        for bit, rule in known.open:
            if rule.condition.test(facts):
                mask |= bit
        return mask

    def _walk(self, mask: int) -> Targets:
        targets: list[str] = []
        for place, rule in enumerate(self.rules):
            if mask >> place & 1:
                targets += rule.targets
                if not rule.copies:
                    break
        else:
            targets += self.default
        return tuple(dict.fromkeys(targets))


def _keys(readers: Iterable[FactReader], depth: Depth) -> frozenset[bytes]:
    return frozenset(reader.key for reader in readers if reader.depth is depth and reader.key is not None)


def _wanted(attributes: Iterable[pb.KeyValue], keys: frozenset[bytes]) -> dict[bytes, bytes]:
    """Return the values of the first attribute with each of `keys`."""
    found: dict[bytes, bytes] = {}
    for attribute in attributes:
        key = attribute.key
        if key in keys and key not in found:
            found[key] = attribute.value
    return found


def _remember(memory: OrderedDict[Hashable, V], key: Hashable, value: V) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
