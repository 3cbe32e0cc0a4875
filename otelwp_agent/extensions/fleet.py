"""Monitor installations of plugins: which are outdated, fail or no longer send heartbeats.

Each hour, the status and the error rate of all installations are updated. Each day, their health of the day before is
recorded, installations whose update solves a security problem get a notice, and old events are deleted. If several
agents share a control store, one of them does the work; what was missed while none ran is done at the next start.
docs/topics/fleet.md has the details.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      fleet:
        store: control_store
    service:
      extensions: [control_store, fleet]
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import Field

from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Tier
from otelwp_agent.config.references import ControlStoreRef
from otelwp_agent.config.types import PositiveDuration  # noqa: TC001 - a field's annotation
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.errors import StoreError
from otelwp_agent.errors import StartError
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.control.fleet.monitor_runs import MonitorRuns
    from otelwp_agent.control.fleet.overview import FleetAlert, FleetStatistics

JOBS = Instrument(
    "otelwp_fleet_jobs", "Hourly and daily work of the monitor that this agent did.", labels=("extension", "job")
)
FAILURES = Instrument(
    "otelwp_fleet_failures",
    "Checks of the monitor that failed because the control store was not available; they are repeated.",
    labels=("extension",),
)
INSTALLATIONS = Instrument(
    "plugin_installations_total", "Installations of plugins by CMS.", InstrumentKind.GAUGE, ("extension", "cms")
)
OUTDATED = Instrument(
    "plugin_outdated_percentage", "Share of outdated installations in percent.", InstrumentKind.GAUGE, ("extension",)
)
ERROR_RATE = Instrument(
    "plugin_error_rate_avg",
    "Average error rate of the installations over 24 hours in percent.",
    InstrumentKind.GAUGE,
    ("extension",),
)
FAILING = Instrument(
    "plugin_high_error_rate_installations",
    "Installations with an error rate above 5 percent.",
    InstrumentKind.GAUGE,
    ("extension",),
)


class Config(ComponentConfig):
    """Settings of `fleet`."""

    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    interval: PositiveDuration = Field(300.0, ge=1)
    """Time between two checks whether work is due. The metrics of the fleet are updated as often."""
    event_retention: PositiveDuration = Field(30 * 86400.0, ge=2 * 86400)
    """Time after which events are deleted."""
    health_retention: PositiveDuration = Field(400 * 86400.0, ge=2 * 86400)
    """Time after which the daily health is deleted."""


class Fleet(Extension):
    """Does the work of the monitor, and publishes the statistics."""

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` returns the time in seconds since 1970. Raise `StartError` for missing packages."""
        super().__init__(context)
        try:
            from otelwp_agent.control.fleet.monitor_runs import MonitorRuns  # noqa: PLC0415 - may be missing
        except ModuleNotFoundError as error:
            raise StartError(
                f"extensions/{context.id}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[control]'`"
            ) from error
        access = self._access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self.wall = wall
        self._interval = config.interval
        self._runs: MonitorRuns = MonitorRuns(
            lambda: access.store,
            secrets.token_hex(8),
            self._seconds,
            event_retention=timedelta(seconds=config.event_retention),
            health_retention=timedelta(seconds=config.health_retention),
        )
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._failures = LogLimit(context.clock)
        self._failure = ""
        self._alerts: dict[str, FleetAlert] = {}

    async def start(self) -> None:
        """Begin to monitor in the background."""
        name, registry = str(self.context.id), self.context.registry
        for job in self._runs.done:
            registry.counter(JOBS, lambda job=job: self._runs.done[job], extension=name, job=job)  # type: ignore[misc]
        registry.counter(FAILURES, extension=name)
        self._task = spawn(self._monitor(), name=f"extensions/{name}: monitor")

    async def shutdown(self) -> None:
        """Finish the transaction in progress; the rest of the work is continued at the next start."""
        self._stop.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def health(self) -> ComponentHealth | None:
        """Report the alerts, and whether the last check succeeded."""
        details = {"alerts": {name: alert.summary for name, alert in self._alerts.items()}}
        return ComponentHealth(self.context.kind, str(self.context.id), not self._failure, self._failure, details)

    async def check(self) -> None:
        """Do the work that is due, and update the metrics; after a failure, the next check repeats it."""
        from otelwp_agent.control.fleet.overview import statistics  # noqa: PLC0415 - the packages may be missing

        try:
            await self._runs.run_due()
            now = datetime.fromtimestamp(self.wall(), UTC)
            found = await self._access.store.read(lambda connection: statistics(connection, now))
        except StoreError as error:
            self._failure = str(error)
            self.context.registry.counter(FAILURES, extension=str(self.context.id)).add()
            if times := self._failures.take():
                self.context.log.warning("fleet not checked", times=times, error=str(error))
            return
        self._failure = ""
        self._publish(found)

    async def _monitor(self) -> None:
        while True:
            await self.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._stop.wait()

    def _publish(self, found: FleetStatistics) -> None:
        from otelwp_agent.control.fleet.overview import alerts  # noqa: PLC0415 - the packages may be missing

        name, registry = str(self.context.id), self.context.registry
        registry.remove(INSTALLATIONS, extension=name)
        for cms, count in found.cms.items():
            registry.gauge(INSTALLATIONS, extension=name, cms=cms).set(count)
        registry.gauge(OUTDATED, extension=name).set(found.outdated_percentage)
        registry.gauge(ERROR_RATE, extension=name).set(found.avg_error_rate)
        registry.gauge(FAILING, extension=name).set(found.high_error_rate)
        current = {alert.name: alert for alert in alerts(found)}
        for alert in current.values():
            if alert.name not in self._alerts:
                self.context.log.warning("fleet alert", alert=alert.name, summary=alert.summary)
        for ended in self._alerts.keys() - current.keys():
            self.context.log.info("fleet alert ended", alert=ended)
        self._alerts = current

    def _seconds(self) -> float:
        return self.wall()  # tests replace it


FACTORY = Factory(
    Kind.EXTENSION,
    "fleet",
    Config,
    Fleet,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    instruments=(JOBS, FAILURES, INSTALLATIONS, OUTDATED, ERROR_RATE, FAILING),
)
