"""Replay a recording through a pipeline up to its adaptive sampling, in simulated time, and count the decisions.

The processors are the real ones, built from the configuration; only their clock is simulated. So batches wait, traces
wait for their roots, and budgets fill up as in real time, and the same rules decide the same for the same requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.component import Context, Kind, NoHost, Processor
from otelwp_agent.errors import AgentError, ConsumeError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.replay.recordings import paced
from otelwp_agent.replay.simulated_time import SimulatedLoop
from otelwp_agent.sampling.adaptive.counts import Counts
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelwp_agent.component import ComponentConfig, ComponentId, Consumer
    from otelwp_agent.pipeline.plan_types import PipelinePlan, Plan
    from otelwp_agent.replay.recordings import Recorded, Recording
    from otelwp_agent.sampling.adaptive.trace import Key

LEFT_OUT = frozenset({"memory_limiter"})
"""Processors that would measure this process instead of the simulated agent."""
REMEMBERED = 200_000
"""Number of remembered traces, whose key is used to count late spans."""
UNKNOWN: Key = ("(late)",)
"""Key of late spans whose trace is not remembered."""


@dataclass(slots=True)
class Replayed:
    """The result of a replay."""

    per: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    requests: int = 0
    spans: int = 0
    seconds: float = 0.0
    """Seconds from the first request to the last."""
    refused: int = 0
    """Number of requests that every pipeline would refuse because they are invalid."""
    kept: dict[Key, Counts] = field(default_factory=dict)
    dropped: dict[Key, Counts] = field(default_factory=dict)
    reasons: dict[tuple[bool, str], Counts] = field(default_factory=dict)
    """Counts by whether traces were kept, and by reason."""
    _keys: dict[object, Key] = field(default_factory=dict)

    def __call__(  # noqa: PLR0913, PLR0917 - `trace_sampler.DecisionObserver`
        self,
        trace: object,
        key: Key | None,
        spans: int,
        size: int,
        keep: bool,  # noqa: FBT001 - `trace_sampler.DecisionObserver`
        reason: str,
    ) -> None:
        """Count a decision."""
        if key is None:
            key, traces = self._keys.get(trace, UNKNOWN), 0
        else:
            traces = 1
            if len(self._keys) >= REMEMBERED:
                del self._keys[next(iter(self._keys))]
            self._keys[trace] = key
        of = self.kept if keep else self.dropped
        counts = of.get(key)
        if counts is None:
            counts = of[key] = Counts()
        counts.add(traces, spans, size)
        why = (keep, str(reason))
        if why not in self.reasons:
            self.reasons[why] = Counts()
        self.reasons[why].add(traces, spans, size)

    def of(self, key: Key) -> tuple[Counts, Counts]:
        """Return the counts of kept and of dropped traces of a key."""
        return self.kept.get(key, Counts()), self.dropped.get(key, Counts())

    def totals(self) -> tuple[Counts, Counts]:
        """Return the counts of kept and of dropped traces."""
        return sum(self.kept.values(), Counts()), sum(self.dropped.values(), Counts())


def choose(plan: Plan, pipeline: str = "", processor: str = "") -> tuple[PipelinePlan, ComponentId]:
    """Return the pipeline and the id of its adaptive sampling, selected by `pipeline` and `processor` if given.

    Raises `AgentError`, with the existing names, unless exactly one matches.
    """
    every = [
        (each, identifier)
        for each in plan.pipelines.values()
        for identifier in each.processors
        if plan.components[Kind.PROCESSOR, identifier].factory.type == "adaptive_sampling"
    ]
    if pipeline and pipeline not in plan.pipelines:
        raise AgentError(f"there is no pipeline {pipeline!r}; the pipelines are {', '.join(plan.pipelines)}")
    if not every:
        raise AgentError("no pipeline of this configuration has an `adaptive_sampling` processor")
    names = ", ".join(f"{identifier} in {each.id}" for each, identifier in every)
    found = [entry for entry in every if pipeline in {"", entry[0].id} and processor in {"", str(entry[1])}]
    if not found:
        raise AgentError(f"no adaptive sampling matches; the existing ones are {names}")
    if len(found) > 1:
        raise AgentError(f"there are several adaptive samplings ({names}): choose one with --pipeline or --processor")
    return found[0]


def replay(
    plan: Plan, pipeline: PipelinePlan, sampler: ComponentId, requests: Iterable[Recorded], recording: Recording
) -> Replayed:
    """Feed the requests to a pipeline up to its sampler, at their arrival times in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(_replay(plan, pipeline, sampler, requests, recording))


async def _replay(
    plan: Plan, pipeline: PipelinePlan, sampler: ComponentId, requests: Iterable[Recorded], recording: Recording
) -> Replayed:
    stages, left_out = _build(plan, pipeline, sampler)
    last = stages[-1]
    assert isinstance(last, TraceSampler)  # noqa: S101 - `choose` checks it
    replayed = Replayed(tuple(last.per), left_out)
    last.observe(replayed)
    started: list[Processor] = []
    try:
        for stage in stages:
            started.append(stage)
            await stage.start()
        await _feed(stages[0], requests, recording, replayed)
    finally:
        for stage in started:
            await stage.shutdown()
    return replayed


async def _feed(first: Processor, requests: Iterable[Recorded], recording: Recording, replayed: Replayed) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for at, request in paced(requests, recording):
        wait = begin + at - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        replayed.requests += 1
        replayed.spans += request.items
        replayed.seconds = at
        shares = [(Receipt(request.items), request.items)]
        try:
            first.consume(Batch(Signal.TRACES, request.body, request.items, request.origin, shares))
        except ConsumeError:
            replayed.refused += 1


def _build(plan: Plan, pipeline: PipelinePlan, sampler: ComponentId) -> tuple[list[Processor], tuple[str, ...]]:
    """Build and connect the processors up to the sampler; return them, and the names of those that are left out."""
    stages: list[Processor] = []
    left_out: list[str] = []
    loop = asyncio.get_running_loop()
    log, registry = logging.get(), Registry()
    for identifier in pipeline.processors[: pipeline.processors.index(sampler) + 1]:
        planned = plan.components[Kind.PROCESSOR, identifier]
        if planned.factory.type in LEFT_OUT:
            left_out.append(str(identifier))
            continue
        context = Context(
            identifier,
            Kind.PROCESSOR,
            registry,
            log.bind(component=f"processors/{identifier}"),
            loop.time,
            NoHost(),
            pipeline.id,
        )
        stage = planned.factory.build(_harmless(planned.config), context)
        assert isinstance(stage, Processor)  # noqa: S101 - its kind guarantees it
        stages.append(stage)
    following: Consumer = _SettlingSink()
    for stage in reversed(stages):
        stage.next = following
        following = stage
    return stages, tuple(left_out)


def _harmless(config: ComponentConfig) -> ComponentConfig:
    """Return a processor's configuration without settings that read or write files."""
    changed: dict[str, object] = {}
    recorder = getattr(config, "flight_recorder", None)
    if recorder is not None:
        changed["flight_recorder"] = recorder.model_copy(update={"enabled": False})
    if getattr(config, "state_directory", ""):
        changed["state_directory"] = ""
    return config.model_copy(update=changed) if changed else config


class _SettlingSink:
    """Accepts and settles every batch."""

    def refusal(self, batch: Batch) -> None:
        pass

    def consume(self, batch: Batch) -> None:
        batch.settle(Outcome.DELIVERED)
