"""Check that every stage of a plan accepts the bodies that reach it: plain, compressed or encrypted.

A body is plain where a receiver creates it, unless the receiver's settings say otherwise. Processors that encode it
change this for all stages after them, also across connectors, until the exporters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.component import Carries, Kind, Unfit
from otelwp_agent.config.explain import listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otelwp_agent.errors import Problem
    from otelwp_agent.pipeline.plan_graph import PlanGraph
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Components, PipelinePlan

_ENCODED = {Carries.COMPRESSED: "compressed", Carries.ENCODED: "encrypted"}


class _Bodies(NamedTuple):
    """The most encoded bodies at one point of a pipeline."""

    carries: Carries
    encoder: ComponentPlan | None = None
    """The component that has encoded them; `None` if they are plain."""
    pipeline: str = ""
    """The pipeline of the encoder."""


_PLAIN = _Bodies(Carries.PLAIN)


def check_bodies(graph: PlanGraph, catalog: Components) -> Iterator[Problem]:
    """Yield a problem for each stage that cannot accept the bodies that reach it.

    Stages that encode are problems too if that makes no sense: encryption before compression, or the same twice.
    """
    entering = _entering(graph)
    for pipeline in graph.pipelines.values():
        bodies = entering[pipeline.id]
        for listed, role, planned in graph.stages(pipeline):
            if role is Kind.RECEIVER:
                continue
            yield from _check(graph, catalog, _Stage(pipeline, listed, planned), bodies)
            if role is Kind.PROCESSOR:
                bodies = _after(bodies, planned, pipeline.id)


class _Stage(NamedTuple):
    """A component at its place in a pipeline."""

    pipeline: PipelinePlan
    listed: str
    planned: ComponentPlan


def _entering(graph: PlanGraph) -> Mapping[str, _Bodies]:
    """Return the bodies that the receivers and connectors of each pipeline forward into it."""
    entering = dict.fromkeys(graph.pipelines, _PLAIN)
    for pipeline in graph.pipelines.values():
        for _, role, planned in graph.stages(pipeline):
            if role is Kind.RECEIVER and planned.kind is Kind.RECEIVER:
                entering[pipeline.id] = _after(entering[pipeline.id], planned, pipeline.id)
    waiting = list(graph.pipelines)
    while waiting:  # ends also with a cycle of connectors, because bodies only become more encoded
        name = waiting.pop()
        bodies = entering[name]
        for _, role, planned in graph.stages(graph.pipelines[name]):
            if role is Kind.PROCESSOR:
                bodies = _after(bodies, planned, name)
        for identifier, following in graph.following(name):
            through = _through(bodies, graph.connector(identifier), name)
            if through.carries > entering[following].carries:
                entering[following] = through
                waiting.append(following)
    return entering


def _after(bodies: _Bodies, planned: ComponentPlan, pipeline: str) -> _Bodies:
    """Return the bodies after a component that receives `bodies`."""
    return bodies if planned.encodes <= bodies.carries else _Bodies(planned.encodes, planned, pipeline)


def _through(bodies: _Bodies, connector: ComponentPlan | None, pipeline: str) -> _Bodies:
    """Return the bodies that a connector forwards: those that it accepts, or its own if it creates new ones."""
    if connector is None:
        return _PLAIN
    forwarded = bodies if connector.factory.emits is None and not _refusal(connector, bodies.carries) else _PLAIN
    return _after(forwarded, connector, pipeline)


def _refusal(planned: ComponentPlan, bodies: Carries) -> bool | Unfit:
    """Return why a component does not accept bodies: its factory (`True`), or a setting; `False` if it does."""
    if bodies > planned.factory.accepts:
        return True
    return planned.config.unfit_for(bodies) or False


def _check(graph: PlanGraph, catalog: Components, stage: _Stage, bodies: _Bodies) -> Iterator[Problem]:
    planned, encoder = stage.planned, bodies.encoder
    refusal = _refusal(planned, bodies.carries)
    if not refusal or encoder is None:
        return
    data = _data(stage, bodies, encoder)
    if isinstance(refusal, Unfit):
        path = (planned.kind.value, str(planned.id), *refusal.setting)
        yield graph.problem_at(f"{data} cannot pass here in pipeline `{stage.pipeline.id}`: {refusal.reason}", path)
        return
    deed = {Carries.PLAIN: "read", Carries.COMPRESSED: "compress", Carries.ENCODED: "encrypt"}[planned.encodes]
    if planned.kind is Kind.EXPORTER:
        deed = "send"
    message = f"{planned.kind.label} `{planned.id}` cannot {deed} {data}: {_advice(catalog, stage, bodies, encoder)}"
    yield graph.problem(message, stage.pipeline, stage.listed, planned.id)


def _data(stage: _Stage, bodies: _Bodies, encoder: ComponentPlan) -> str:
    """Return in words which data reach a stage, and what has encoded them."""
    where = "" if bodies.pipeline == stage.pipeline.id else f" of pipeline `{bodies.pipeline}`"
    if encoder.kind is Kind.RECEIVER:
        return f"{_ENCODED[bodies.carries]} data of receiver `{encoder.id}`{where}"
    return f"data that `{encoder.id}`{where} has {_ENCODED[bodies.carries]}"


def _advice(catalog: Components, stage: _Stage, bodies: _Bodies, encoder: ComponentPlan) -> str:
    """Return what would be right instead."""
    planned = stage.planned
    where = f"pipeline `{bodies.pipeline}`"
    if planned.kind is not Kind.PROCESSOR:
        able = [name for name in catalog.names(planned.kind) if _accepts(catalog, planned.kind, name, bodies.carries)]
        return f"use {listing(able)} instead, or leave `{encoder.id}` out of {where}"
    if encoder.kind is not Kind.RECEIVER and planned.encodes is encoder.encodes:
        return "leave one of them out"
    if encoder.kind is Kind.RECEIVER:
        return "leave it out, or have the receiver emit plain data"
    if bodies.pipeline != stage.pipeline.id:
        return f"put it into {where}, before `{encoder.id}`"
    return f"put it before `{encoder.id}`"


def _accepts(catalog: Components, kind: Kind, name: str, bodies: Carries) -> bool:
    factory = catalog.get(kind, name)
    return factory is not None and factory.accepts >= bodies
