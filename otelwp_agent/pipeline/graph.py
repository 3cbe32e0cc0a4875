"""The running graph: a plan's components, built, wired, started and stopped in order.

Order: exporters are built first and receivers started last; receivers stop first, and every buffer drains on the way.

A reload builds the new graph beside the old one. A component that did not change (same id, same configuration, same
place) is the same object in both, with its buffers, queues and state. `Graph.start` starts only new components, and
stops them again if one fails, so that the old graph continues unchanged. After that `adopt` connects the components of
the new graph, and `retire` drains those that only the old one has.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from otelwp_agent.component import (
    BackendGroup,
    Component,
    ComponentId,
    Connector,
    Context,
    ExporterConfig,
    Kind,
    Processor,
)
from otelwp_agent.component_errors import failure
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import StartError
from otelwp_agent.model.ledger_report import totals
from otelwp_agent.pipeline.building import build_component
from otelwp_agent.pipeline.entry import PipelineHead
from otelwp_agent.pipeline.graph_parts import GraphParts
from otelwp_agent.pipeline.wiring import Wiring
from otelwp_agent.sending.balanced import BalancedSender
from otelwp_agent.sending.sender import Drained, Sender, SignalSender

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.component import Exporter
    from otelwp_agent.journal.records import ExporterRow
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.entry import ReceiverEntry
    from otelwp_agent.pipeline.environment import Environment
    from otelwp_agent.pipeline.fan_out import FanOut
    from otelwp_agent.pipeline.plan_types import ComponentPlan, PipelinePlan, Plan

C = TypeVar("C", bound=Component)
T = TypeVar("T")

_UNQUEUED = ExporterConfig(sending_queue=Queue(max_bytes=2**62), retry_on_failure=Retry(enabled=False))
"""For exporters whose `Config` does not derive from `ExporterConfig`."""


@dataclass(slots=True)
class Graph(GraphParts):
    """Everything that runs for one plan."""

    fan_outs: Sequence[FanOut | ReceiverEntry] = ()
    """Stages that watch branches for isolation; `adopt` replaces them."""
    _before: Graph | None = None
    _fresh: list[Component | SignalSender] = field(default_factory=list)

    @classmethod
    def build(cls, plan: Plan, environment: Environment, before: Graph | None = None) -> Graph:
        """Create every component of `plan`, or take it from the running graph `before`. Opens nothing."""
        graph = cls(plan, environment, _before=before)
        old = before or cls(plan, environment)
        for identifier in plan.extensions:
            graph._make(Kind.EXTENSION, identifier, graph.extensions, old.extensions)
        for pipeline in plan.pipelines.values():
            for identifier in pipeline.exporters:
                if not graph.is_connector(identifier):
                    graph._make(Kind.EXPORTER, identifier, graph.exporters, old.exporters)
                    graph._make_sender(identifier, pipeline.signal)
                else:
                    graph._make(Kind.CONNECTOR, identifier, graph.connectors, old.connectors)
            for identifier in pipeline.processors:
                graph._make_processor(pipeline, identifier)
            graph._make_head(pipeline)
        graph._keep_emptying()
        for pipeline in plan.pipelines.values():
            for identifier in pipeline.receivers:
                if not graph.is_connector(identifier):
                    graph._make(Kind.RECEIVER, identifier, graph.receivers, old.receivers)
        fresh = {id(part) for part in graph._fresh}
        graph.fan_outs = Wiring(graph, before).wire(lambda part: id(part) in fresh)
        return graph

    async def start(self) -> None:
        """Start new components: extensions, exporters, connectors, processors, receivers. If one fails, stop them."""
        started: list[Component | SignalSender] = []
        running = [self._before] if self._before is not None else []
        _feed_from_journal(*running, self)  # before a receiver listens
        try:
            for part in self._fresh:
                started.append(part)
                await part.start()
        except BaseException as error:
            for part in reversed(started):
                await _shutdown_quietly(part)
            if running:
                _feed_from_journal(*running)
            if isinstance(error, Exception):
                raise failure(_name(started[-1]), "cannot start", error, _context(started[-1]).log) from error
            raise

    def adopt(self) -> None:
        """Connect all components, also those shared with the graph before: from now on this graph runs."""
        before = self._before
        for watching in self.fan_outs:
            watching.close()
        self.fan_outs = Wiring(self, before).wire()
        if before is not None:
            for stage in before.processors.values():
                stage.rewired()
            for sender in before.senders.values():
                sender.rewired()
            # A receiver that is replaced forwards what still arrives into the new pipelines.
            for identifier, receiver in before.receivers.items():
                if identifier in self.receivers and receiver is not self.receivers[identifier]:
                    receiver.next = self.receivers[identifier].next
        self._fresh = []
        self._before = None
        _feed_from_journal(self)
        if self.environment.intake is not None:
            self.environment.intake.journal.remember_exporters(self._exporter_rows)

    async def retire(self, successor: Graph | None, deadline: float, *, patient: bool = False) -> Drained:
        """Stop the parts that `successor` does not share, receivers first.

        Drain until `deadline` (on the clock), then drop. If `patient`, components may take longer to forward what they
        hold, until the task is cancelled. Returns the outcomes of the items that the senders still held.
        """
        kept = successor.parts() if successor is not None else set()
        delivered = left = in_journal = 0
        for rank in self.stop_order():
            going = [part for part in rank if id(part) not in kept]
            for drained in await asyncio.gather(*(self._stop(part, deadline, patient=patient) for part in going)):
                delivered += drained.delivered
                left += drained.left
                in_journal += drained.kept
        for watching in self.fan_outs:
            watching.close()
        return Drained(delivered, left, in_journal)

    def refresh(self) -> None:
        """Let every component read its files again; a component that fails logs it and keeps the old content."""
        for part in self.components():
            try:
                part.refresh()
            except StartError as error:
                self.environment.log.warning("files not reloaded; the old ones stay in use", error=str(error))

    def _exporter_rows(self) -> list[ExporterRow]:
        """Return the sums of the exporters that the journal stores."""
        lines = totals("exporter", [sender.line() for sender in self.senders.values()])
        return [(line.name, line.accepted, line.delivered, line.reasons, line.in_flight) for line in lines]

    def _make(
        self, kind: Kind, identifier: ComponentId, into: dict[ComponentId, C], before: Mapping[ComponentId, C]
    ) -> None:
        """Add the component to `into`: the running one if its configuration is the same, else a new one."""
        if identifier in into:
            return
        planned = self.plan.components[kind, identifier]
        old = before.get(identifier)
        if old is not None and self._same(planned):
            into[identifier] = old
            return
        into[identifier] = cast("C", self._new(planned))

    def _make_sender(self, identifier: ComponentId, signal: Signal) -> None:
        key = (identifier, signal)
        exporter = self.exporters[identifier]
        if key in self.senders:
            return
        before = self._before
        if before is not None and key in before.senders and before.senders[key].exporter is exporter:
            self.senders[key] = before.senders[key]
            return
        self.senders[key] = sender = self._new_sender(exporter, identifier, signal)
        self._fresh.append(sender)

    def _new_sender(self, exporter: Exporter, identifier: ComponentId, signal: Signal) -> SignalSender:
        """Return a sender, which shares the circuit breakers with those of the exporter's other signals."""
        before, keeps, letters = self._before, self.environment.intake is not None, self.environment.dead_letters
        known = [*self.senders.values(), *(before.senders.values() if before is not None else ())]
        if isinstance(exporter, BackendGroup):
            shared = (
                sender.breakers
                for sender in known
                if isinstance(sender, BalancedSender) and sender.exporter is exporter
            )
            return BalancedSender(exporter, signal, keeps=keeps, dead_letters=letters, breakers=next(shared, None))
        config = self.plan.components[Kind.EXPORTER, identifier].config
        settings = config if isinstance(config, ExporterConfig) else _UNQUEUED
        breakers = (sender.breaker for sender in known if isinstance(sender, Sender) and sender.exporter is exporter)
        return Sender(
            exporter,
            signal,
            queue=settings.sending_queue,
            retry=settings.retry_on_failure,
            timeout=settings.attempt_timeout,
            breaker=next(breakers, None),
            keeps=keeps,
            dead_letters=letters,
        )

    def _keep_emptying(self) -> None:
        """Take the exporters that only send what they hold from the graph before, with their queues."""
        before = self._before
        if before is None:
            return
        for identifier in self.plan.emptying:
            if identifier in before.exporters and self._same(self.plan.components[Kind.EXPORTER, identifier]):
                exporter = self.exporters[identifier] = before.exporters[identifier]
                self.senders |= {key: one for key, one in before.senders.items() if one.exporter is exporter}

    def _make_processor(self, pipeline: PipelinePlan, identifier: ComponentId) -> None:
        key = (pipeline.id, identifier)
        planned = self.plan.components[Kind.PROCESSOR, identifier]
        before = self._before
        if before is not None and key in before.processors and self._same(planned):
            self.processors[key] = before.processors[key]
        else:
            self.processors[key] = cast("Processor", self._new(planned, pipeline.id))

    def _make_head(self, pipeline: PipelinePlan) -> None:
        before = self._before
        old = before.heads.get(pipeline.id) if before is not None else None
        self.heads[pipeline.id] = old or PipelineHead(pipeline.id, self.environment.ledgers)

    def _same(self, planned: ComponentPlan) -> bool:
        """Return whether the graph before this one runs the component, with the same configuration and extensions."""
        before = self._before
        old = before.plan.components.get((planned.kind, planned.id)) if before is not None else None
        if before is None or old is None or old.factory is not planned.factory or old.config != planned.config:
            return False
        # A component uses the extensions that it was built with.
        return all(before.extensions.get(each) is self.extensions[each] for each in planned.references)

    def _new(self, planned: ComponentPlan, pipeline: str = "") -> Component:
        environment = self.environment
        names = {"component": f"{planned.kind.value}/{planned.id}"}
        if pipeline:
            names["pipeline"] = pipeline
        context = Context(
            id=planned.id,
            kind=planned.kind,
            registry=environment.registry,
            log=environment.log.bind(**names),
            clock=environment.clock,
            host=environment.host,
            pipeline=pipeline,
            in_flight=environment.in_flight,
            ledgers=environment.ledgers,
            messages=environment.messages,
            deliveries=environment.deliveries,
            tenant_tiers=environment.tenant_tiers,
            extensions={each: self.extensions[each] for each in planned.references},
        )
        component = build_component(planned, context)
        self._fresh.append(component)
        return component

    async def _stop(self, part: Component | SignalSender, deadline: float, *, patient: bool) -> Drained:
        """Stop one part; log every failure, so that the others are stopped too."""
        log = _context(part).log
        try:
            if isinstance(part, SignalSender):
                return await part.drain(deadline)
            async with asyncio.timeout(None if patient else max(0.01, deadline - self.environment.clock())):
                await part.shutdown()
        except TimeoutError:
            log.warning("component did not stop in time")
        except Exception:
            log.exception("component did not stop")
        return Drained(0, 0)


def _context(part: Component | SignalSender) -> Context:
    return part.exporter.context if isinstance(part, SignalSender) else part.context


def _name(part: Component | SignalSender) -> str:
    context = _context(part)
    return f"{context.kind.value}/{context.id}"


def _feed_from_journal(*graphs: Graph) -> None:
    """Have journaled requests fed to the pipelines of these graphs, the last one first, and to no others."""
    intake = graphs[-1].environment.intake
    if intake is None:
        return
    heads = {name: head for graph in graphs for name, head in graph.heads.items()}
    processors = [stage for graph in graphs for stage in graph.processors.values()]
    connectors = [connector for graph in graphs for connector in graph.connectors.values()]
    senders = [sender for graph in graphs for sender in graph.senders.values()]
    readers: list[Processor | Connector | SignalSender] = [*processors, *connectors, *senders]
    intake.switch(heads, (header for reader in readers for header in reader.headers))


async def _shutdown_quietly(part: Component | SignalSender) -> None:
    """Stop a part after a failed start, whose own error matters more."""
    log = _context(part).log
    try:
        await part.shutdown()
    except Exception:
        log.exception("component did not stop")
