"""Keep important traces and a representative sample of the rest, within a budget.

Place it after `memory_limiter` and after processors that rename or redact spans, before `batch`. The budget is shared
among keys (`per`): rare keys are kept completely, heavy keys share the rest. Errors, slow traces, the first traces of a
key and traces with a debug flag are always kept, each kind up to a ceiling. A trace kept by probability carries its
threshold (`ot=th` in `tracestate`), so that backends can compute totals; a trace kept for another reason carries that
reason (`sampling.reason`).

A request that contains whole traces, as PHP sends them, is decided immediately. Other traces wait: `decision_wait`
after their root span, at most `max_wait`, within `max_bytes`. Spans that arrive later follow the decision of their
trace.

Example::

    processors:
      adaptive_sampling:
        target:
          spans_per_second: 500
        per: [service.name, http.route]
        always_keep:
          errors:
            ceiling: 0.3
          slow:
            above: 2s
        drop:
          health_checks: true
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from otelwp_agent.component import (
    ComponentConfig,
    ComponentHealth,
    Context,
    Effect,
    Factory,
    Kind,
    Processor,
    Reads,
    Stability,
    Tier,
)
from otelwp_agent.config.types import ByteSize, Duration, PositiveDuration  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import StartError
from otelwp_agent.fair_share import DEFAULT_SHARE
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.adaptive_sampling.config import (
    AlwaysKeep,
    AttributeName,
    Drop,
    Recorder,
    SitesOrNone,
    Target,
    check_budgets,
    unique,
)
from otelwp_agent.processors.adaptive_sampling.deciding import Decider
from otelwp_agent.processors.adaptive_sampling.facts import FactsReader
from otelwp_agent.processors.adaptive_sampling.forwarding import Forwarder
from otelwp_agent.processors.adaptive_sampling.holding import Holding
from otelwp_agent.processors.adaptive_sampling.key_metrics import KEY_INSTRUMENTS, KeyMetrics
from otelwp_agent.processors.adaptive_sampling.measures import (
    INSTRUMENTS,
    KEYS,
    RECORDED,
    WAITING_BYTES,
    WAITING_TRACES,
    Measures,
)
from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
from otelwp_agent.processors.adaptive_sampling.rescuing import Rescuer
from otelwp_agent.processors.adaptive_sampling.state_file import StateFile
from otelwp_agent.processors.adaptive_sampling.verdict import Memory
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.explain import explain
from otelwp_agent.sampling.adaptive.policy import Ceiling, Policy, Unit
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.sampling.traces import NATIVE, read
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sampling.trace_sampler import DecisionObserver

_TICK = 0.1
"""Seconds between checks for traces that are due. Deciding them blocks the event loop for 9 µs a trace."""


class Config(ComponentConfig):
    """Settings of adaptive sampling."""

    target: Target | None = None
    """The budget. Without it, only `sites` and `drop` drop traces."""
    per: list[AttributeName] = Field(default_factory=lambda: ["service.name"])
    """Attributes of the resource or the root span (or `span.name`) whose values form the key of a trace."""
    target_per_key: Target | None = None
    """Maximum of the budget for any one key, in the unit of `target`."""
    power: float = Field(Policy().power, ge=0, le=1)
    """How heavy keys share the budget that rare keys leave: in proportion to their traffic to this power. 0: equal
    shares; 1: equal probabilities."""
    max_keys: int = Field(10_000, ge=1, le=1_000_000)
    """Number of keys with a probability of their own; all others share one."""
    metric_keys: int = Field(20, ge=0, le=1000)
    """Number of keys, those with the most traffic, whose estimates are among the agent's metrics. Each adds 16 time
    series."""
    always_keep: AlwaysKeep = AlwaysKeep()
    """Traces that are kept independent of probability."""
    drop: Drop = Drop()
    """Traces that are never kept."""
    sites: SitesOrNone = None
    """Rules by site."""
    decision_wait: Duration = 2.0
    """How long to wait for more spans after a trace's root span."""
    max_wait: PositiveDuration = 30.0
    """How long to wait for a root span after a trace's first span."""
    max_bytes: ByteSize = Field(128 * 2**20, ge=2**16)
    """Memory for waiting traces. When it is full, the oldest are decided early."""
    max_trace_bytes: ByteSize = Field(4 * 2**20, ge=2**12)
    """A trace larger than this is reduced to its root, its errors and the spans between them."""
    max_tenant_share: float = Field(DEFAULT_SHARE, gt=0, le=1)
    """Maximum share for one tenant of `max_bytes` and of `max_keys`, of what the other tenants leave free. 1 for no
    limit. Data without a tenant may use all of them. Tenants share `target` in equal parts, as far as each needs it."""
    remember: int = Field(100_000, ge=1)
    """Number of traces whose decision is remembered for late spans."""
    mode: Literal["enforce", "dry_run"] = "enforce"
    """`dry_run` keeps everything and adds the decision to spans as `sampling.dry_run`."""
    flight_recorder: Recorder = Recorder()
    """Keeps dropped traces for a while, so that they can be rescued."""
    by_trace_id: bool = False
    """Decide by trace ids alone, immediately for each request: nothing waits, and nothing else of spans is read. Use it
    for traces that senders have sampled already, or where only the amount matters. It requires `per: []`, everything
    under `always_keep` disabled, and no `drop`, `sites` or `flight_recorder`; estimates then cover the number of
    traces, but not errors and durations."""
    state_directory: str = ""
    """Folder for a file with what was measured of keys, so that a restart continues with it. "" writes no file."""

    _unique_names = field_validator("per")(unique)

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if self.target is None and self.target_per_key is None:
            drop = self.drop
            if not (self.sites and self.sites.rules) and not (drop.health_checks or drop.bots or drop.rules):
                raise ValueError(
                    "these settings drop nothing: set a `target`, for example `target: {spans_per_second: 500}`"
                )
        if self.target is not None and self.target_per_key is not None:
            check_budgets(self.target.budget(), self.target_per_key.budget())
        if self.by_trace_id and (named := self._read_more_than_ids()):
            message = f"by_trace_id reads only trace ids, but these settings need more: {', '.join(named)}"
            raise ValueError(message)
        if self.decision_wait > self.max_wait:
            raise ValueError("decision_wait is above max_wait: no trace could wait that long")
        if self.max_trace_bytes > self.max_bytes:
            raise ValueError("max_trace_bytes is above max_bytes: one trace could use all the memory")
        return self

    def _read_more_than_ids(self) -> list[str]:
        """Return the names of the settings that need more of a trace than its id."""
        keep, drop = self.always_keep, self.drop
        counted = self.target or self.target_per_key
        needs = {
            "per": bool(self.per),
            "always_keep.errors": keep.errors.enabled,
            "always_keep.slow": keep.slow.enabled,
            "always_keep.first_seen": keep.first_seen.enabled,
            "always_keep.releases": keep.releases.enabled,
            "always_keep.debug": keep.debug.enabled,
            "drop": bool(drop.health_checks or drop.bots or drop.rules),
            "sites": self.sites is not None,
            "flight_recorder": self.flight_recorder.enabled,
            "a target in bytes or cost": counted is not None and counted.budget().unit is Unit.BYTES,
        }
        return [name for name, needed in needs.items() if needed]

    def policy(self) -> Policy:
        """Return the policy for the controller."""
        sites = self.sites
        return Policy(
            budget=None if self.target is None else self.target.budget(),
            key_budget=None if self.target_per_key is None else self.target_per_key.budget(),
            power=self.power,
            always=self.always_keep.always(),
            site_rules=() if sites is None else tuple([rule.rule() for rule in sites.rules]),
            site_minimum=0.0 if sites is None else sites.minimum / 3600,
            site_ceiling=Ceiling(share=0.2 if sites is None else sites.ceiling),
            max_keys=self.max_keys,
            tenant_share=self.max_tenant_share,
            max_sites=10_000 if sites is None else sites.max_sites,
        )


class AdaptiveSampling(Processor, TraceSampler):
    """Finds traces in requests, holds incomplete ones, and applies the controller's decisions."""

    headers = ("user-agent",)

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments."""
        super().__init__(context)
        policy = config.policy()
        self.controller = Controller(policy, context.clock())
        self._facts = FactsReader(config.per, config.always_keep, config.drop, config.sites)
        dry_run = config.mode == "dry_run"
        self._decider = Decider(self.controller, self._facts, Memory(config.remember), dry_run=dry_run)
        self._measures = Measures(context)
        self._key_metrics = KeyMetrics(context, self.controller, config.metric_keys)
        self._decider.odd = self._measures.odd
        self.per = config.per
        self._max_trace_bytes = config.max_trace_bytes
        self._by_trace_id = config.by_trace_id
        records = config.flight_recorder.enabled and config.mode == "enforce"
        recorder = self._recorder = FlightRecorder.of(config.flight_recorder, context) if records else None
        self.records = records
        self._outgoing = Outgoing(self._send, context)
        self._rescuer = None if recorder is None else Rescuer(recorder, self._decider, self._outgoing, self._measures)
        self._holding = Holding(
            self._decider,
            self._facts,
            self._measures,
            self._outgoing,
            self._recorder,
            decision_wait=config.decision_wait,
            max_wait=config.max_wait,
            max_bytes=config.max_bytes,
            max_trace_bytes=config.max_trace_bytes,
            max_tenant_share=config.max_tenant_share,
        )
        self._state = StateFile(config.state_directory, self.controller, context) if config.state_directory else None
        self._forwarder = Forwarder(self._send, self._measures, self._recorder)
        self._next_tick = context.clock() + _TICK
        self._timer: asyncio.TimerHandle | None = None
        measures = self._measures
        measures.gauge(RECORDED, lambda: float(self._recorder.size if self._recorder else 0))
        measures.gauge(KEYS, lambda: float(len(self.controller.key_states.states)))
        measures.gauge(WAITING_TRACES, lambda: float(len(self._holding.held.traces)))
        measures.gauge(WAITING_BYTES, lambda: float(self._holding.size))

    def observe(self, observer: DecisionObserver) -> None:
        """Call `observer` for every decision from now on."""
        self._decider.observer = observer

    async def start(self) -> None:
        """Load the saved state, open the flight recorder, and start the timer for traces that are due."""
        if not NATIVE:
            remedy = "install a C compiler and Python's headers, then install the agent again"
            self.context.log.warning("requests are read in Python, which takes several times more CPU", remedy=remedy)
        if self._state is not None:
            self._state.load()
        if self._recorder is not None:
            try:
                self._recorder.start()
            except OSError as error:
                message = f"processors/{self.context.id}: flight_recorder.directory cannot be used: {error}"
                raise StartError(message) from error
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._on_timer)

    async def shutdown(self) -> None:
        """Decide all waiting traces and forward them, for as long as it takes; drop what is left when cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._key_metrics.close()
        now = self.context.clock()
        self._holding.decide_all(now)
        if self._recorder is not None:
            self._recorder.shutdown()
        if self._state is not None:
            await self._state.save()
        try:
            self._outgoing.flush()
            while self._outgoing:  # noqa: ASYNC110 - a timer forwards the batches
                await asyncio.sleep(0.005)
        finally:
            dropped = self._outgoing.abandon()
            if dropped:
                message = "the next stage did not accept it in time"
                self.context.log.error("batch dropped", reason="shutdown", items=dropped, error=message)

    def health(self) -> ComponentHealth:
        """Return the health and its details; unhealthy while batches are refused."""
        full = self._holding.is_full
        details = {
            "mode": "dry_run" if self._decider.dry_run else "enforce",
            "keys": len(self.controller.key_states.states),
            "waiting_traces": len(self._holding.held.traces),
            "waiting_bytes": self._holding.size,
            "remembered_traces": len(self._decider.memory),
        }
        message = "full: the next stage refuses batches" if full else ""
        return ComponentHealth(self.context.kind, str(self.context.id), not full, message, details)

    @property
    def identity(self) -> Mapping[str, str]:
        """Return its pipeline and its id."""
        return {"pipeline": self.context.pipeline, "processor": str(self.context.id)}

    def explain(self, top: int) -> dict[str, Any]:
        """Return its state and its `top` busiest keys as JSON-compatible data."""
        return {
            **self.identity,
            "per": list(self.per),
            "records": self.records,
            **self.health().details,
            **explain(self.controller, self.context.clock(), top),
        }

    def admit(self) -> None:
        """Raise `Overloaded` while the memory is full."""
        if self._holding.is_full:
            raise self._outgoing.overloaded()

    def rewired(self) -> None:
        """Offer again what the next stage has refused."""
        self._outgoing.offer_again()

    def rescue(
        self, *, trace_id: bytes | None = None, since: float | None = None, where: Mapping[str, str] | None = None
    ) -> int:
        """Forward dropped traces from the recorder: one, or those dropped `since` that match `where`.

        `since` is in seconds since 1970; `where` maps attributes of the resource or a span to patterns, in which `*`
        matches anything. Returns the number of forwarded spans; they are new items, because the dropped ones were
        settled, and accounted to the receiver `rescue`. Later spans of these traces are kept as well.
        """
        return 0 if self._rescuer is None else self._rescuer.rescue(trace_id, since, where)

    def consume(self, batch: Batch) -> None:
        """Decide about complete traces and hold the others; raise `Overloaded` if the memory is full."""
        now = self.context.clock()
        if now >= self._next_tick:
            self._tick(now)
        if self._outgoing.size and not batch.admitted:
            refusal = self._holding.refusal(batch.origin.tenant)
            if refusal is not None:
                raise refusal
        if self._by_trace_id:
            self._decide_by_id(batch, now)
            return
        request, pieces = read(batch.body, self._facts.marks, name=self._facts.name)
        rescuer = self._rescuer
        late = [] if rescuer is None else rescuer.find_late_errors(pieces, batch.origin, now)
        decided = self._decider.decide_pieces(
            pieces, batch.origin, self._holding.held.traces, self._forwarder.refused, self._max_trace_bytes, now
        )
        if rescuer is not None:
            # Before anything can be refused: when the request is sent again, these errors are no longer new.
            rescuer.forward_late_errors(late, batch.origin.tenant)
        if not decided.waiting or len(decided.waiting) < len(pieces):
            self._forwarder.forward(batch, request, pieces, decided)
        if decided.waiting:
            self._holding.hold(batch, request, pieces, decided.waiting, now)

    def _decide_by_id(self, batch: Batch, now: float) -> None:
        request, pieces = read(batch.body)
        decided = self._decider.decide_by_id(pieces, batch.origin.tenant, self._forwarder.refused, now)
        self._forwarder.forward(batch, request, pieces, decided)

    def _on_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._on_timer)
        self._tick(self.context.clock())

    def _tick(self, now: float) -> None:
        """Decide about traces that are due."""
        self._next_tick = now + _TICK
        if now - self.controller.ticked >= 1:
            self.controller.tick(now)
            if now >= self._key_metrics.due:
                self._key_metrics.choose(now)
        self._holding.decide_due(now)
        if self._state is not None and now >= self._state.due:
            self._state.due = math.inf  # until the save has started
            spawn(self._state.save(), name="sampling state")

    def _send(self, batch: Batch) -> None:
        self.next.consume(batch)


FACTORY = Factory(
    Kind.PROCESSOR,
    "adaptive_sampling",
    Config,
    AdaptiveSampling,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.PRO,
    reads=Reads.ATTRIBUTES,
    effects=frozenset({Effect.EDITS, Effect.DROPS}),
    instruments=(*INSTRUMENTS, *KEY_INSTRUMENTS),
)
