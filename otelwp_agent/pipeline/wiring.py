"""Connect the components of a graph: set each `next`, the pipelines' heads and the fan-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from otelwp_agent.component import ComponentId, Connector, Consumer, Kind, Processor, ReceiverConfig
from otelwp_agent.pipeline.entry import ConnectorEntry, PipelineHead, ReceiverEntry
from otelwp_agent.pipeline.fan_out import FanOut, fan_out
from otelwp_agent.pipeline.outlets import outlets_behind
from otelwp_agent.pipeline.tenant_plans import TierSwitch, admit_any, tenant_variants
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.graph_parts import GraphParts
    from otelwp_agent.pipeline.plan_types import PipelinePlan
    from otelwp_agent.pipeline.tenant_plans import Variants
    from otelwp_agent.sending.sender import SignalSender


class Wiring:
    """Connects the components of `graph`, which replaces the graph `before`, if there is one."""

    def __init__(self, graph: GraphParts, before: GraphParts | None) -> None:
        """Connect nothing yet."""
        self._graph = graph
        self._before = before.heads if before is not None else {}
        self._clock, self._log = graph.environment.clock, graph.environment.log
        self._fan_outs: list[FanOut | ReceiverEntry] = []
        self._variants = tenant_variants(graph.plan)
        """Pipelines as the tenants of each tier get them; empty without plans of tenants."""

    def wire(self, ours: Callable[[object], bool] | None = None) -> Sequence[FanOut | ReceiverEntry]:
        """Set every `next` and every head; return the stages that must be closed when they are replaced.

        Skip components for which `ours` returns `False`: the graph before this one still runs them.
        """
        graph = self._graph
        for pipeline in graph.plan.pipelines.values():
            self._wire_pipeline(pipeline, ours)
        for identifier, receiver in graph.receivers.items():
            if ours is None or ours(receiver):
                fed = self._fed_by(identifier)
                entries = {signal: self._entry(identifier, signal, heads) for signal, heads in fed.items()}
                for entry in entries.values():
                    entry.permit = self._permit(identifier)
                receiver.next = entries
        for identifier, connector in graph.connectors.items():
            if ours is None or ours(connector):
                fed = self._fed_by(identifier)
                exits = {
                    signal: ConnectorEntry(heads, clock=self._clock, log=self._log) for signal, heads in fed.items()
                }
                connector.next = exits
                connector.choose = self._chooser(exits)
                if ours is None:
                    connector.connect(outlets_behind(graph, identifier))
                self._fan_outs += exits.values()
        return self._fan_outs

    def _wire_pipeline(self, pipeline: PipelinePlan, ours: Callable[[object], bool] | None) -> None:
        graph = self._graph
        variants = self._variants.get(pipeline.id, {Tier.ENTERPRISE: pipeline})
        consumer, admits = self._tail(pipeline, variants)
        stages = [graph.processors[pipeline.id, identifier] for identifier in pipeline.processors]
        for identifier, stage in zip(reversed(pipeline.processors), reversed(stages), strict=True):
            if ours is None or ours(stage):
                stage.next = consumer
            after, consumer = consumer, stage
            getting = {tier: identifier in variant.processors for tier, variant in variants.items()}
            if not all(getting.values()):
                consumers = {tier: stage if gets else after for tier, gets in getting.items()}
                bypassed = {tier: () if gets else (f"processors/{identifier}",) for tier, gets in getting.items()}
                consumer = TierSwitch(graph.environment.tenant_tiers, consumers, pipeline.id, bypassed)
        head = graph.heads[pipeline.id]
        if ours is None or self._before.get(pipeline.id) is not head:
            head.first = consumer
            head.admits = [stage.admit for stage in stages if type(stage).admit is not Processor.admit]
            if not any(stage.buffers for stage in stages):
                head.admits = [*head.admits, admits]
            fills = {str(one): self._fill(one, pipeline.signal) for one in pipeline.exporters}
            head.use_fills(
                {tier: {str(one): fills[str(one)] for one in variant.exporters} for tier, variant in variants.items()},
                graph.environment.tenant_tiers,
            )

    def _tail(self, pipeline: PipelinePlan, variants: Variants) -> tuple[Consumer, Callable[[], None]]:
        """Return the end of a pipeline, and a function that raises `Overloaded` if it can accept no batch."""
        names = {tier: [str(identifier) for identifier in variant.exporters] for tier, variant in variants.items()}
        exits = {str(identifier): self._exit(identifier, pipeline.signal) for identifier in pipeline.exporters}
        tails: dict[tuple[str, ...], Consumer] = {}
        for each in names.values():
            if tuple(each) in tails:
                continue
            tail = fan_out([exits[name] for name in each], each, clock=self._clock, log=self._log)
            if isinstance(tail, FanOut):
                self._fan_outs.append(tail)
            tails[tuple(each)] = tail
        admits = [self._tail_admits(tail, pipeline.signal) for tail in tails.values()]
        if len(tails) == 1:
            return next(iter(tails.values())), admits[0]
        consumers = {tier: tails[tuple(each)] for tier, each in names.items()}
        bypassed = {tier: [f"exporters/{name}" for name in exits if name not in each] for tier, each in names.items()}
        tiers = self._graph.environment.tenant_tiers
        return TierSwitch(tiers, consumers, pipeline.id, bypassed), admit_any(admits)

    def _entry(self, receiver: ComponentId, signal: Signal, heads: Sequence[PipelineHead]) -> ReceiverEntry:
        """Return the entry that a receiver forwards its batches of one signal to."""
        environment = self._graph.environment
        registry, intake, clock, log = environment.registry, environment.intake, self._clock, self._log
        config = self._graph.plan.components[Kind.RECEIVER, receiver].config
        acknowledge = config.acknowledge if isinstance(config, ReceiverConfig) else "accepted"
        if intake is None:
            entry = ReceiverEntry(heads, str(receiver), signal, registry, clock=clock, log=log, acknowledge=acknowledge)
            self._fan_outs.append(entry)
            return entry
        from otelwp_agent.pipeline.intake import JournaledEntry  # noqa: PLC0415 - only with a journal

        return JournaledEntry(
            heads, str(receiver), signal, registry, clock=clock, log=log, acknowledge=acknowledge, intake=intake
        )

    def _permit(self, receiver: ComponentId) -> Callable[[str], None] | None:
        """Return a function that refuses tenants whose plans do not enable a receiver; `None` if all plans do."""
        needed = self._graph.plan.components[Kind.RECEIVER, receiver].factory.tier
        if not self._variants or needed is Tier.FREE:
            return None
        require, feature = self._graph.environment.tenant_tiers.require, f"requests to `{receiver}`"
        return lambda tenant: require(tenant, needed, str(receiver), feature)

    def _chooser(self, entries: Mapping[Signal, ConnectorEntry]) -> Callable[[Signal, Sequence[str]], ConnectorEntry]:
        """Return a function that returns the entry of some of the pipelines that a connector feeds."""
        chosen: dict[tuple[Signal, tuple[str, ...]], ConnectorEntry] = {}

        def choose(signal: Signal, pipelines: Sequence[str]) -> ConnectorEntry:
            key = (signal, tuple(pipelines))
            entry = chosen.get(key)
            if entry is None:
                heads = [self._graph.heads[name] for name in pipelines]
                entry = chosen[key] = ConnectorEntry(heads, clock=self._clock, log=self._log)
                self._fan_outs.append(entry)
            return entry

        for signal, entry in entries.items():
            chosen[signal, tuple(entry.names)] = entry
        return choose

    def _exit(self, identifier: ComponentId, signal: Signal) -> Consumer:
        graph = self._graph
        return graph.connectors[identifier] if graph.is_connector(identifier) else graph.senders[identifier, signal]

    def _tail_admits(self, tail: Consumer, signal: Signal) -> Callable[[], None]:
        """Return a function that raises `Overloaded` early if the end of a pipeline without a buffer is full."""
        if isinstance(tail, Connector):
            return lambda: tail.admit(signal)
        return cast("SignalSender | FanOut", tail).admit

    def _fill(self, identifier: ComponentId, signal: Signal) -> Callable[[str], float]:
        """Return a function for the used share of an exporter's queue; for a connector, it decides."""
        if not self._graph.is_connector(identifier):
            return self._graph.senders[identifier, signal].fill
        connector = self._graph.connectors[identifier]
        heads = [head for fed in self._fed_by(identifier).values() for head in fed]

        def fill(tenant: str) -> float:
            fills = {
                head.pipeline: max((one(tenant) for one in head.fills(tenant).values()), default=0.0) for head in heads
            }
            return connector.fill(signal, fills)

        return fill

    def _fed_by(self, identifier: ComponentId) -> dict[Signal, list[PipelineHead]]:
        """Return the heads of the pipelines that a receiver or connector feeds, by signal."""
        heads: dict[Signal, list[PipelineHead]] = {}
        for pipeline in self._graph.plan.pipelines.values():
            if identifier in pipeline.receivers:
                heads.setdefault(pipeline.signal, []).append(self._graph.heads[pipeline.id])
        return heads
