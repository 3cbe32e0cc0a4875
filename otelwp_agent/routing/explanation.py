"""Explain where a table sends each item: the rules that match, and the facts because of which others do not.

It evaluates every rule for every item with the same conditions as `division`, but remembers nothing: it is for people,
not for the data path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.routing.division import ITEM_PARSERS, divide
from otelwp_agent.routing.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.facts import Item, Value
    from otelwp_agent.routing.table import RoutingTable, Targets


class RuleResult(NamedTuple):
    """The result of one rule for one item."""

    rule: str
    condition: str
    targets: Targets
    matches: bool
    facts: Sequence[tuple[str, Value]]
    """The facts that the condition reads, by path."""


class Explained(NamedTuple):
    """The destinations of one item, and the reasons."""

    item: Item
    targets: Targets
    rules: Sequence[RuleResult]
    """The rules up to the one that takes the item."""
    joined: bool
    """Whether it goes elsewhere than its own rules say, because it stays with its trace."""


def explain(
    table: RoutingTable, signal: Signal, body: bytes, origin: Origin, *, whole_traces: bool
) -> Iterator[Explained]:
    """Yield an explanation for each item of a request, in order; a metric is one item. Raises `MalformedError`."""
    targets = _targets(table, signal, body, origin, whole_traces=whole_traces)
    facts, parser = Facts(origin), ITEM_PARSERS[signal]
    for group in parse(pb.Slices.FromString, body).resources:
        for scope in group.scopes:
            for data in scope.items:
                known = table.know(facts, group.resource)
                table.enter_scope(facts, scope.scope)
                item = parse(parser, data)
                mask = known.mask | table.match(facts, known, item)
                found = next(targets)
                yield Explained(item, found, _results(table, facts), table.targets(mask) != found)


def _results(table: RoutingTable, facts: Facts) -> list[RuleResult]:
    results = []
    for rule in table.rules:
        condition = rule.condition
        read = [(reader.path, reader.read(facts)) for reader in condition.readers]
        results.append(RuleResult(rule.name, condition.text, rule.targets, condition.test(facts), read))
        if results[-1].matches and not rule.copies:
            break
    return results


def _targets(
    table: RoutingTable, signal: Signal, body: bytes, origin: Origin, *, whole_traces: bool
) -> Iterator[Targets]:
    """Yield the destinations of each item, as `divide` decides."""
    places: dict[int, Targets] = {}
    for routed in divide(table, signal, body, origin, whole_traces=whole_traces):
        if routed.places is None:
            while True:
                yield routed.targets
        places |= dict.fromkeys(routed.places, routed.targets)
    for place in sorted(places):
        yield places[place]
