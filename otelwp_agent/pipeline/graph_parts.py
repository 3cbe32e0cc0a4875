"""The parts of a running graph, by id: what builds, wires, starts and stops them works on this."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from otelwp_agent.component import Component, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.component import ComponentHealth, ComponentId, Connector, Exporter, Extension, Processor, Receiver
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.entry import PipelineHead
    from otelwp_agent.pipeline.environment import Environment
    from otelwp_agent.pipeline.plan_types import PipelinePlan, Plan
    from otelwp_agent.sending.sender import SignalSender

T = TypeVar("T")


@dataclass(slots=True)
class GraphParts:
    """Everything that runs for one plan."""

    plan: Plan
    environment: Environment
    extensions: dict[ComponentId, Extension] = field(default_factory=dict)
    exporters: dict[ComponentId, Exporter] = field(default_factory=dict)
    senders: dict[tuple[ComponentId, Signal], SignalSender] = field(default_factory=dict)
    connectors: dict[ComponentId, Connector] = field(default_factory=dict)
    processors: dict[tuple[str, ComponentId], Processor] = field(default_factory=dict)
    receivers: dict[ComponentId, Receiver] = field(default_factory=dict)
    heads: dict[str, PipelineHead] = field(default_factory=dict)

    def is_connector(self, identifier: ComponentId) -> bool:
        """Return whether the plan has a connector of this id."""
        return (Kind.CONNECTOR, identifier) in self.plan.components

    def health(self) -> list[ComponentHealth]:
        """Return the state of every component that reports one."""
        states = [part.health() for rank in self.stop_order() for part in rank]
        return [state for state in states if state is not None]

    def providers(self, capability: type[T]) -> list[T]:
        """Return the processors, then the exporters, that implement `capability`, in the order of the file."""
        stages = [*self.processors.values(), *self.exporters.values()]
        return [stage for stage in stages if isinstance(stage, capability)]

    def in_flight(self) -> int:
        """Return the items that have been accepted and not settled, over all pipelines."""
        return sum(ledger.in_flight for head in self.heads.values() for ledger in head.ledgers.values())

    def stop_order(self) -> list[Sequence[Component | SignalSender]]:
        """Return every part in the order in which it stops; the parts of one rank stop together."""
        ranks: list[Sequence[Component | SignalSender]] = [list(self.receivers.values())]
        for pipeline in self._downstream_order():
            ranks += [[self.processors[pipeline.id, identifier]] for identifier in pipeline.processors]
        ranks += [list(self.connectors.values()), list(self.senders.values())]
        return [*ranks, list(self.exporters.values()), *self._extensions_by_reference()]

    def _extensions_by_reference(self) -> list[Sequence[Component | SignalSender]]:
        """Return the extensions in ranks, each after those that refer to it."""
        left = dict(self.extensions)
        ranks: list[Sequence[Component | SignalSender]] = []
        while left:
            referred = {each for one in left for each in self.plan.components[Kind.EXTENSION, one].references}
            rank = [one for one in left if one not in referred]
            ranks.append([left.pop(one) for one in rank or [*left]])
        return ranks or [[]]

    def components(self) -> list[Component]:
        """Return every component in the order in which it stops."""
        return [part for rank in self.stop_order() for part in rank if isinstance(part, Component)]

    def _downstream_order(self) -> list[PipelinePlan]:
        """Return pipelines so that each comes before those that its connectors feed."""
        pipelines = list(self.plan.pipelines.values())
        ordered: list[PipelinePlan] = []
        while pipelines:
            for pipeline in pipelines:
                feeders = [
                    other
                    for other in pipelines
                    if other is not pipeline and any(identifier in other.exporters for identifier in pipeline.receivers)
                ]
                if not feeders:
                    ordered.append(pipeline)
                    pipelines.remove(pipeline)
                    break
            else:  # a cycle, which the plan refuses
                ordered += pipelines
                break
        return ordered

    def parts(self) -> set[int]:
        """Return the `id()` of every part."""
        return {id(part) for rank in self.stop_order() for part in rank}
