"""Find the exporters behind the pipelines that a connector feeds, and whether batches in their queues may move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import Carries, Kind
from otelwp_agent.routing.outlets import Outlets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otelwp_agent.component import ComponentId
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.graph_parts import GraphParts
    from otelwp_agent.pipeline.plan_types import PipelinePlan
    from otelwp_agent.sending.sender import SignalSender


def outlets_behind(graph: GraphParts, connector: ComponentId) -> Mapping[Signal, Mapping[str, Outlets]]:
    """Return the exporters behind each pipeline that a connector feeds, by signal and pipeline."""
    found: dict[Signal, dict[str, Outlets]] = {}
    for pipeline in graph.plan.pipelines.values():
        if connector in pipeline.receivers:
            exporters = tuple(dict.fromkeys(_senders(graph, pipeline)))
            found.setdefault(pipeline.signal, {})[pipeline.id] = Outlets(exporters, _is_movable(graph, pipeline))
    return found


def _senders(graph: GraphParts, pipeline: PipelinePlan) -> Iterator[SignalSender]:
    """Yield the senders at the end of a pipeline, also behind its connectors. A plan has no cycles."""
    for identifier in pipeline.exporters:
        if not graph.is_connector(identifier):
            yield graph.senders[identifier, pipeline.signal]
            continue
        for following in graph.plan.pipelines.values():
            if identifier in following.receivers:
                yield from _senders(graph, following)


def _is_movable(graph: GraphParts, pipeline: PipelinePlan) -> bool:
    """Return whether a batch in the queue at the end of the pipeline is as it was when it entered it, and undivided."""
    if len(pipeline.receivers) != 1 or len(pipeline.exporters) != 1 or graph.is_connector(pipeline.exporters[0]):
        return False
    processors = [graph.plan.components[Kind.PROCESSOR, identifier] for identifier in pipeline.processors]
    return all(planned.encodes is Carries.PLAIN for planned in processors)
