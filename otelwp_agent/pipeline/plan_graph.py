"""Check the graph of a plan: signals, connectors and cycles; `plan_bodies` checks encoded bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import Kind
from otelwp_agent.config.document import show_path
from otelwp_agent.config.explain import did_you_mean, listing
from otelwp_agent.config.references import pipeline_references
from otelwp_agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otelwp_agent.component import ComponentId, Factory
    from otelwp_agent.config.document import Document, Path
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Key, PipelinePlan


def check_graph(graph: PlanGraph) -> list[Problem]:
    """Return all errors in how pipelines connect components."""
    wrong_signals = [problem for pipeline in graph.pipelines.values() for problem in graph.wrong_signals(pipeline)]
    return [*wrong_signals, *graph.half_connectors(), *graph.wrong_destinations(), *graph.cycles()]


def emitted(factory: Factory, accepted: Signal) -> frozenset[Signal]:
    """Return the signals that a connector emits when it accepts the signal `accepted`."""
    return frozenset({accepted}) if factory.emits is None else factory.emits


class PlanGraph:
    """The pipelines of a plan with their components, and their places in the document."""

    def __init__(
        self, pipelines: Mapping[str, PipelinePlan], components: Mapping[Key, ComponentPlan], document: Document
    ) -> None:
        """Check nothing yet."""
        self.pipelines = pipelines
        self._components = components
        self._document = document

    def problem(self, message: str, pipeline: PipelinePlan, listed: str, identifier: ComponentId) -> Problem:
        """Return a problem at an id in one of a pipeline's lists."""
        path: Path = ("service", "pipelines", pipeline.id, listed)
        node = self._document.root.below(path)
        index = next((i for i, child in node.children() if str(child.value).strip() == str(identifier)), None)
        item = None if index is None else node.get(index)
        return (item or node).problem(message, path if index is None else (*path, index))

    def problem_at(self, message: str, path: Path) -> Problem:
        """Return a problem at the key of a path in the document, or of its nearest parent."""
        place = self._document.place(path, key=True)
        return Problem(message, show_path(path), place.file, place.line, place.column)

    def connector(self, identifier: ComponentId) -> ComponentPlan | None:
        """Return the connector of this id, or `None` if there is none."""
        return self._components.get((Kind.CONNECTOR, identifier))

    def stages(self, pipeline: PipelinePlan) -> Iterator[tuple[str, Kind, ComponentPlan]]:
        """Yield the components of a pipeline, each with the name of its list and the role that it has there."""
        for listed, kind in (
            ("receivers", Kind.RECEIVER),
            ("processors", Kind.PROCESSOR),
            ("exporters", Kind.EXPORTER),
        ):
            for identifier in getattr(pipeline, listed):
                planned = self._components.get((kind, identifier))
                if planned is None and kind is not Kind.PROCESSOR:
                    planned = self.connector(identifier)
                if planned is not None:
                    yield listed, kind, planned

    def wrong_signals(self, pipeline: PipelinePlan) -> Iterator[Problem]:
        """Refuse components that cannot carry their pipeline's signal."""
        for listed, kind, planned in self.stages(pipeline):
            able = planned.factory.signals
            if planned.kind is Kind.CONNECTOR and kind is Kind.RECEIVER and planned.factory.emits is not None:
                able = planned.factory.emits
            if pipeline.signal not in able:
                names = listing(sorted(signal.value for signal in able), "and")
                message = f"{planned.kind.label} `{planned.id}` does not carry {pipeline.signal.value}, only {names}"
                yield self.problem(message, pipeline, listed, planned.id)
            elif reason := planned.config.refuses(pipeline.signal):
                message = f"{planned.kind.label} `{planned.id}` does not carry {pipeline.signal.value}: {reason}"
                yield self.problem(message, pipeline, listed, planned.id)

    def half_connectors(self) -> Iterator[Problem]:
        """Refuse connectors that have no source or no destination for a signal of their pipelines."""
        for (kind, identifier), planned in self._components.items():
            if kind is not Kind.CONNECTOR:
                continue
            into = [pipeline for pipeline in self.pipelines.values() if identifier in pipeline.exporters]
            out = [pipeline for pipeline in self.pipelines.values() if identifier in pipeline.receivers]
            for pipeline in into:
                able = emitted(planned.factory, pipeline.signal)
                if not any(other.signal in able for other in out):
                    names = listing(sorted(signal.value for signal in able))
                    message = (
                        f"connector `{identifier}` has no destination: list it under `receivers` of a {names} pipeline"
                    )
                    yield self.problem(message, pipeline, "exporters", identifier)
            for pipeline in out:
                if not any(pipeline.signal in emitted(planned.factory, other.signal) for other in into):
                    wanted = f"`{pipeline.signal.value}`" if planned.factory.emits is None else "suitable"
                    message = (
                        f"connector `{identifier}` has no source: list it under `exporters` of a {wanted} pipeline"
                    )
                    yield self.problem(message, pipeline, "receivers", identifier)

    def wrong_destinations(self) -> Iterator[Problem]:
        """Refuse names of pipelines in the settings of connectors that do not exist or are not fed by the connector."""
        for (kind, identifier), planned in self._components.items():
            if kind is not Kind.CONNECTOR:
                continue
            named: dict[str, None] = {}
            for name, below in pipeline_references(planned.config):
                named[name] = None
                fed = self.pipelines.get(name)
                if fed is not None and identifier in fed.receivers:
                    continue
                if fed is None:
                    message = f"there is no pipeline `{name}`" + did_you_mean(name, self.pipelines)
                else:
                    message = f"pipeline `{name}` does not have `{identifier}` as receiver: add it to its `receivers`"
                yield self._named(message, (kind.value, str(identifier), *below))
            for pipeline in self.pipelines.values() if named else ():
                if identifier in pipeline.receivers and pipeline.id not in named:
                    message = f"connector `{identifier}` sends nothing here: none of its settings names this pipeline"
                    yield self.problem(message, pipeline, "receivers", identifier)

    def _named(self, message: str, path: Path) -> Problem:
        """Return a problem at the value of a path in the document."""
        return self._document.root.below(path).problem(message, path)

    def cycles(self) -> Iterator[Problem]:
        """Refuse cycles of pipelines and connectors, and name each of them."""
        done: set[str] = set()
        for start in self.pipelines:
            yield from self._cycles_from(start, [], done)

    def _cycles_from(self, name: str, path: list[tuple[str, ComponentId]], done: set[str]) -> Iterator[Problem]:
        """Search depth first from pipeline `name`; `path` lists the pipelines before it with their connectors."""
        if name in done:
            return
        for connector, following in self.following(name):
            here = [*path, (name, connector)]
            first = next((i for i, (visited, _) in enumerate(here) if visited == following), None)
            if first is None:
                yield from self._cycles_from(following, here, done)
                continue
            shown = " → ".join(f"{pipeline} → {via}" for pipeline, via in here[first:])
            message = f"batches would circulate forever: {shown} → {following}: remove one of these connectors"
            yield self.problem(message, self.pipelines[name], "exporters", connector)
        done.add(name)

    def following(self, name: str) -> Iterator[tuple[ComponentId, str]]:
        """Yield the pipelines that a pipeline feeds, each with the connector between them."""
        pipeline = self.pipelines[name]
        for identifier in pipeline.exporters:
            planned = self.connector(identifier)
            if planned is None:
                continue
            able = emitted(planned.factory, pipeline.signal)
            for other in self.pipelines.values():
                if identifier in other.receivers and other.signal in able:
                    yield identifier, other.id
