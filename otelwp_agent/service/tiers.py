"""Run what the agent may use: fit each plan to the tier, and change the running graph when the tier changes.

The steps of a change are a reload: a plan for the new tier is made of the plan of the configuration
(`pipeline.reduction`), built beside the running graph and adopted. Exporters that the tier does not allow get nothing
new and run until their queues are empty. When the tier returns, they continue, with what their queues still hold.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.pipeline.reduction import ChangeKind, reduce_plan
from otelwp_agent.service.license import license_health
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from collections.abc import Set as AbstractSet

    import structlog

    from otelwp_agent.component import ComponentHealth, ComponentId
    from otelwp_agent.licensing.entitlement import Entitlement
    from otelwp_agent.licensing.manager import LicenseManager
    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.pipeline.reduction import PlanChange, Reduction
    from otelwp_agent.telemetry.metrics import Registry

LOOK_EVERY = 0.5
"""Seconds between two looks at the queues of exporters that are about to stop."""
RETRY_AFTER = 30.0
"""Seconds before a change of the tier is tried again that could not be applied."""

STEPS = Instrument(
    "otelwp_tier_steps",
    "Steps of changes of the tier: components bypassed, stopped, limited, kept or restored, and exporters emptied.",
    labels=("action",),
)
REDUCED = Instrument(
    "otelwp_tier_reduced",
    "Components and settings that differ from the configuration because of the tier, by action.",
    InstrumentKind.GAUGE,
    ("action",),
)
EMPTYING = Instrument(
    "otelwp_tier_emptying_exporters",
    "Exporters that the tier does not allow and that still send what is in their queues.",
    InstrumentKind.GAUGE,
)
INSTRUMENTS = (STEPS, REDUCED, EMPTYING)

_EMPTIED, _RESTORED = "emptied", "restored"
_EVENTS = {
    ChangeKind.BYPASSED.value: "processor bypassed because of the tier",
    ChangeKind.STOPPED.value: "component stopped because of the tier",
    ChangeKind.LIMITED.value: "setting limited because of the tier",
    ChangeKind.KEPT.value: "component kept although it needs a higher tier",
}


class TierControl:
    """Fits plans to what `license_` permits. `refit` replaces the running graph; it returns whether that succeeded."""

    def __init__(
        self,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        license_: LicenseManager,
        refit: Callable[[], Awaitable[bool]],
    ) -> None:
        """Watch nothing until `watch`."""
        self._registry = registry
        self._log = log
        self._license = license_
        self._refit = refit
        self._emptied: set[ComponentId] = set()
        self._fitted: tuple[Plan, Entitlement, Reduction] | None = None
        """Plan of the configuration, entitlement and reduction of the last call of `fit`; in use once it is adopted."""
        self._running: tuple[Plan, Entitlement, Reduction] | None = None
        self._graph: Graph | None = None
        self._still_feeding: Callable[[], bool] = bool
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        for action in ChangeKind:
            registry.gauge(REDUCED, partial(self._number, action.value), action=action.value)
        registry.gauge(EMPTYING, lambda: len(self._emptying()))

    def fit(self, plan: Plan) -> Plan:
        """Return the plan to run for the plan of a configuration."""
        entitlement = self._license.current
        reduction = reduce_plan(plan, entitlement.tier, self._emptied)
        running = self._graph.exporters if self._graph is not None else {}
        if absent := {identifier for identifier in reduction.plan.emptying if identifier not in running}:
            reduction = reduce_plan(plan, entitlement.tier, self._emptied | absent)
        self._fitted = plan, entitlement, reduction
        return reduction.plan

    def fit_again(self) -> Plan:
        """Return the plan to run for the configuration in use, whose tier has changed."""
        assert self._running is not None  # noqa: S101 - only called by `refit`
        return self.fit(self._running[0])

    def adopted(self, graph: Graph) -> None:
        """Report that `graph` runs the plan that `fit` returned last; log and count each step."""
        assert self._fitted is not None  # noqa: S101 - the graph was built from it
        before, self._running, self._graph = self._running, self._fitted, graph
        _, entitlement, reduction = self._running
        old = set(before[2].changes) if before is not None else set()
        new = set(reduction.changes)
        self._emptied &= {each for each in self._emptied if each not in graph.exporters}
        log = self._log.bind(tier=entitlement.tier.value, basis=entitlement.basis.value)
        reported = entitlement.basis is not Basis.CONFIGURED
        for change in sorted(new - old) if reported else ():
            self._count(change.action)
            log.warning(_EVENTS[change.action], **_fields(change))
        for change in sorted(old - new):
            self._count(_RESTORED)
            log.info("component restored", before=change.action, **_fields(change))
        self._changed.set()

    def watch(self, still_feeding: Callable[[], bool]) -> None:
        """Follow the licence from now on. `still_feeding` returns whether a former graph still forwards what it had."""
        self._still_feeding = still_feeding
        self._license.subscribe(lambda _: self._changed.set())
        self._task = spawn(self._follow(), name="follow the tier")

    def stop(self) -> None:
        """Change nothing any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def health(self) -> ComponentHealth:
        """Return the state of the licence, with the differences from the configuration that it causes."""
        state = license_health(self._license)
        details = dict(state.details)
        changes = self._running[2].changes if self._running is not None else ()
        if changes:
            details["changes"] = [str(change) for change in changes]
        if emptying := self._emptying():
            details["emptying_exporters"] = sorted(map(str, emptying))
        return replace(state, details=details)

    async def _follow(self) -> None:
        """Apply each change of the tier, and stop exporters whose queues are empty."""
        failed = False
        while True:
            seconds = RETRY_AFTER if failed else LOOK_EVERY if self._emptying() else None
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            empty = self._empty()
            for identifier in empty:
                self._count(_EMPTIED)
                self._log.info("exporter stops: its queue is empty", component=f"exporters/{identifier}")
            self._emptied |= empty
            failed = not await self._apply() if empty or self._is_outdated() else False

    async def _apply(self) -> bool:
        """Replace the running graph; return whether that succeeded."""
        try:
            return await self._refit()
        except Exception:  # noqa: BLE001 - a bug must not end the changes of the tier
            self._log.exception("tier not applied; the components of the old one still run")
            return False

    def _is_outdated(self) -> bool:
        """Return whether the running plan is for another tier than the current one."""
        return self._running is not None and self._running[1].tier is not self._license.current.tier

    def _emptying(self) -> AbstractSet[ComponentId]:
        """Return the exporters that run only until their queues are empty."""
        return frozenset() if self._graph is None else self._graph.plan.emptying & self._graph.exporters.keys()

    def _empty(self) -> set[ComponentId]:
        """Return those of them that hold nothing, once nothing more can come."""
        if self._graph is None or self._still_feeding():
            return set()
        holding = {identifier for (identifier, _), sender in self._graph.senders.items() if sender.holds}
        return {*self._emptying()} - holding

    def _number(self, action: str) -> int:
        return 0 if self._running is None else sum(change.action == action for change in self._running[2].changes)

    def _count(self, action: str) -> None:
        self._registry.counter(STEPS, action=action).add()


def _fields(change: PlanChange) -> dict[str, str]:
    return {"component": change.component} | ({"detail": change.detail} if change.detail else {})
