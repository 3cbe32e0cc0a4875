"""Lifecycle of the agent: build → start → run → reload → drain → stop.

Signals: SIGTERM and SIGINT drain within `service.shutdown_timeout`, a second one stops immediately. SIGHUP reloads the
configuration: the new graph is built and started first, and the old one is kept if that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING, Literal, TypeVar

from otelwp_agent.errors import AgentError, ConfigError, StartError
from otelwp_agent.licensing.manager import LicenseManager, license_required
from otelwp_agent.pipeline.environment import Environment
from otelwp_agent.pipeline.graph import Graph
from otelwp_agent.service import memory
from otelwp_agent.service.control_plane import ControlPlane
from otelwp_agent.service.ledger_metrics import bind_ledgers
from otelwp_agent.service.metrics_endpoint import MetricsEndpoint
from otelwp_agent.service.scheduling import set_scheduling
from otelwp_agent.service.tiers import TierControl
from otelwp_agent.service.watchdog import Watchdog
from otelwp_agent.telemetry import logging, process
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import ComponentHealth, Stall
    from otelwp_agent.component.host import ControlHandler
    from otelwp_agent.config.service import JournalConfig
    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.sending.sender import Drained

SAME_SIGNAL = 0.1
"""Seconds within which a second SIGTERM counts as a duplicate of the first: `timeout` and `make` both forward it."""

T = TypeVar("T")


class Service:
    """The running agent. `load` reads the configuration and raises `ConfigError` if it is invalid."""

    def __init__(
        self,
        load: Callable[[], Plan],
        *,
        clock: Callable[[], float] = time.monotonic,
        license_: Callable[[Registry], LicenseManager] | None = None,
    ) -> None:
        """Create the agent; `run` or `start` loads the configuration.

        `clock` returns seconds, as the event loop does; `license_` makes another licence manager than the usual one.
        """
        self._load = load
        self.registry = Registry()
        self.log = logging.get()
        self.started = asyncio.Event()
        """Set once every receiver listens."""
        self._graph: Graph | None = None
        self._metrics: MetricsEndpoint | None = None
        self.started_at = time.time()
        self._draining = False
        self._stopped = False
        self._clock = clock
        self._stop_requested_at = 0.0
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._reloads = asyncio.Lock()
        self._watchdog = Watchdog(self.registry, self.log)
        self._retiring: set[asyncio.Task[Drained]] = set()
        """Graphs from before a reload that still forward the data that they hold."""
        self._environment = Environment(self.registry, self.log, clock, self)
        self.control_plane = ControlPlane(self.registry, self.log, lambda: self.graph, self)
        self.license = (license_ or _license_manager)(self.registry)
        """Tier and features that the agent may use."""
        self.tiers = TierControl(self.registry, self.log, self.license, self._refit)

    @property
    def ready(self) -> bool:
        """Whether every receiver listens and nothing is being drained."""
        return self.started.is_set() and not self._draining

    @property
    def status(self) -> Literal["starting", "ready", "draining", "stopped"]:
        """Current state of the agent's lifecycle."""
        if self._stopped:
            return "stopped"
        if self._draining:
            return "draining"
        return "ready" if self.started.is_set() else "starting"

    def components(self) -> Sequence[ComponentHealth]:
        """Return the state of every component that reports one."""
        states = self._graph.health() if self._graph is not None else []
        states = [*states, self.tiers.health()]
        intake = self._environment.intake
        return [*states, intake.journal.health()] if intake is not None else states

    def providers(self, capability: type[T]) -> Sequence[T]:
        """Return the processors and exporters that implement `capability`, in the order of the file."""
        return self._graph.providers(capability) if self._graph is not None else []

    def control(self, path: str) -> ControlHandler | None:
        """Return the handler for `path` on the control socket, or `None` if there is none."""
        return self.control_plane.handler(path)

    def stall(self) -> Stall | None:
        """Return how long the event loop has been blocked, if that is too long. May be called from any thread."""
        return self._watchdog.stall()

    @property
    def graph(self) -> Graph:
        """The running graph; raises `AgentError` if there is none."""
        if self._graph is None:
            raise AgentError("the agent is not running")
        return self._graph

    async def run(self) -> None:
        """Start, run until a signal requests a stop, drain. Raises `ConfigError` or `StartError` if it cannot start."""
        with self._signals():  # before anything else: an unhandled SIGHUP ends the process
            await self.start()
            await self._stop.wait()
        await self.stop()

    async def start(self) -> None:
        """Load the configuration, build the graph and start it. If that fails, everything is closed again."""
        memory.tune()
        plan = self._load()
        set_scheduling(plan.service.scheduling)
        self._apply_telemetry(plan)
        process.observe(self.registry, plan.service.telemetry.resource)
        self._open_journal(plan)
        metrics = None
        try:
            self.control_plane.open(plan.service)
            self._environment.dead_letters = self.control_plane.dead_letters
            await self._read_license(plan)
            plan = self.tiers.fit(plan)
            graph = Graph.build(plan, self._environment)
            metrics = await self._metrics_endpoint(plan)
            await self.control_plane.listen(plan.service)
            await graph.start()
        except BaseException:
            await _close(metrics)
            await self.license.stop()
            await self.control_plane.shutdown()
            await self._close_journal()
            raise
        graph.adopt()
        self._graph, self._metrics = graph, metrics
        bind_ledgers(self.registry, graph.heads)
        if self._environment.intake is not None:
            self._environment.intake.start()
        self.started.set()
        self.log.info("agent ready", pipelines=len(plan.pipelines), components=len(plan.components))
        self.tiers.adopted(graph)
        self.tiers.watch(lambda: bool(self._retiring))
        memory.release()
        self._watchdog.threshold = plan.service.watchdog.threshold
        self._watchdog.start()  # only now, because starting may block the loop

    async def reload(self) -> bool:
        """Reload the configuration and return True; if that fails, log why, keep the old one and return False."""
        await self.started.wait()
        async with self._reloads:
            before = self.graph
            try:
                plan = self._load()
                await self._read_license(plan)
                graph = await self._replace(self.tiers.fit(plan))
            except AgentError as error:
                await self._read_license(before.plan)
                self._log_failure("configuration not reloaded; the old one is still used", error)
                return False
            self._watchdog.threshold = plan.service.watchdog.threshold
            process.describe(self.registry, plan.service.telemetry.resource)
            graph.refresh()
            self._reload_journal(plan.service.journal, before.plan.service.journal)
            self.log.info("configuration reloaded", pipelines=len(plan.pipelines), components=len(plan.components))
            self._retire(before, graph)
            return True

    async def _refit(self) -> bool:
        """Run what the current tier enables of the configuration; return whether that succeeded."""
        async with self._reloads:
            before = self.graph
            try:
                graph = await self._replace(self.tiers.fit_again())
            except AgentError as error:
                self._log_failure("tier not applied; the components of the old one still run", error)
                return False
            self._retire(before, graph, patient=True)
            return True

    async def _replace(self, plan: Plan) -> Graph:
        """Build a graph for `plan` beside the running one, start and adopt it; raise, with nothing changed."""
        before, old_metrics = self.graph, self._metrics
        graph = Graph.build(plan, self._environment, before)
        metrics = await self._metrics_endpoint(plan, before)
        try:
            await self.control_plane.listen(plan.service)
            await graph.start()
            self._apply_telemetry(plan)
        except BaseException:
            await self.control_plane.listen(before.plan.service)
            if metrics is not old_metrics:
                await _close(metrics)
            raise
        graph.adopt()
        self._graph, self._metrics = graph, metrics
        bind_ledgers(self.registry, graph.heads)
        self.tiers.adopted(graph)
        if metrics is not old_metrics:
            await _close(old_metrics)
        return graph

    def _retire(self, before: Graph, graph: Graph, *, patient: bool = False) -> None:
        """Stop in the background what `graph` does not have of the graph before it."""
        deadline = self._environment.clock() + before.plan.service.shutdown_timeout
        retiring = spawn(before.retire(graph, deadline, patient=patient), name="retire the graph before a reload")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    def _log_failure(self, event: str, error: AgentError) -> None:
        problems = error.problems if isinstance(error, ConfigError) else [error]
        self.log.error(event, problems=[str(problem) for problem in problems])

    async def stop(self) -> None:
        """Drain and stop: report not ready, close receivers, empty buffers and queues, close everything."""
        self._draining = True
        self.tiers.stop()
        self.control_plane.drain()
        graph = self.graph
        timeout = graph.plan.service.shutdown_timeout
        self.log.info("draining", timeout_seconds=timeout, in_flight=graph.in_flight())
        draining = spawn(self._drain(graph, timeout), name="drain")
        hurry = spawn(self._stop_now.wait(), name="wait for a second signal")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        drained = draining.result() if draining.done() else None
        if drained is None:
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining
        await self.license.stop()
        await self.control_plane.shutdown()
        journaled = self._environment.intake is not None
        await self._close_journal()
        self._log_stop(drained, graph.in_flight(), journaled=journaled)
        self._stopped = True
        await _close(self._metrics)
        self._watchdog.stop()

    async def _drain(self, graph: Graph, timeout: float) -> Drained:
        """Drain within `timeout` seconds, older graphs first, because they forward to exporters of `graph`."""
        deadline = self._environment.clock() + timeout
        if self._environment.intake is not None:
            self._environment.intake.stop()
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=timeout / 2)
        drained = await graph.retire(None, deadline)
        for retiring in tuple(self._retiring):  # a graph that had no deadline
            retiring.cancel()
            await asyncio.wait([retiring])
        return drained

    def _log_stop(self, drained: Drained | None, in_flight: int, *, journaled: bool) -> None:
        """Log how many items were delivered, kept and dropped; `drained` is `None` after an immediate stop."""
        dropped = (drained.left if drained is not None else 0) + (0 if journaled else in_flight)
        kept = {"kept_in_journal": in_flight} if journaled else {}
        log = self.log.error if dropped else self.log.info
        if drained is not None:
            log("agent stopped", delivered_while_draining=drained.delivered, **kept, dropped=dropped)
        else:
            log("agent stopped immediately after a second signal", **kept, dropped=dropped)

    async def _read_license(self, plan: Plan) -> None:
        """Decide what the agent may use, from the licence and the tier of the configuration."""
        service = plan.service
        await self.license.start(service.license, service.stated_tier, service.license_state_path)

    def _open_journal(self, plan: Plan) -> None:
        """Open the journal, if one is configured, and restore the accounts from it."""
        settings = plan.service.journal
        if settings is None:
            return
        from otelwp_agent.journal.journal import Journal  # noqa: PLC0415
        from otelwp_agent.pipeline.intake import Intake  # noqa: PLC0415 - only with a journal

        log = self.log.bind(component="journal")
        ledgers = self._environment.ledgers
        journal = Journal(settings, ledgers, self.registry, log, self._environment.messages)
        journal.open()
        self._environment.intake = Intake(journal, ledgers, log)

    def _reload_journal(self, settings: JournalConfig | None, before: JournalConfig | None) -> None:
        """Use other keys for what the journal writes from now on; other changes need a restart."""
        intake = self._environment.intake
        if intake is not None and settings is not None and before is not None:
            try:
                intake.journal.encrypt_with(settings.encryption)
            except StartError as error:
                self.log.error("journal keys not changed; the old ones are still used", error=str(error))  # noqa: TRY400 - the message says all
            before = before.model_copy(update={"encryption": settings.encryption})
        if settings != before:
            self.log.warning("service.journal has changed: restart the agent to apply it")

    async def _close_journal(self) -> None:
        intake, self._environment.intake = self._environment.intake, None
        if intake is not None:
            intake.stop()
            await intake.journal.close()

    def _apply_telemetry(self, plan: Plan) -> None:
        logs = plan.service.telemetry.logs
        try:
            logging.configure(logs.level, logs.encoding, paths=logs.output_paths, fields=logs.initial_fields)
        except OSError as error:
            raise StartError(
                f"service.telemetry.logs.output_paths: cannot write to {error.filename}: {error.strerror}"
            ) from error

    async def _metrics_endpoint(self, plan: Plan, before: Graph | None = None) -> MetricsEndpoint | None:
        """Return the metrics endpoint for `plan`: the current one if its settings are the same, a new one, or none."""
        settings = plan.service.telemetry.metrics
        address, allowed = settings.address, settings.allowed_hosts
        if before is not None:
            old = before.plan.service.telemetry.metrics
            if (old.address, old.allowed_hosts) == (address, allowed):
                return self._metrics
        if address is None:
            return None
        endpoint = MetricsEndpoint(self.registry, address, self.log, allowed_hosts=allowed)
        await endpoint.start()
        return endpoint

    def _signals(self) -> contextlib.ExitStack:
        """Handle signals until the stack is closed."""
        loop = asyncio.get_running_loop()
        stack = contextlib.ExitStack()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self.reload(), name="reload"))
        stack.callback(loop.remove_signal_handler, signal.SIGHUP)
        return stack

    def _request_stop(self) -> None:
        now = self._clock()
        if not self._stop.is_set():
            self._stop.set()
            self._stop_requested_at = now
        elif now - self._stop_requested_at >= SAME_SIGNAL:
            self._stop_now.set()


def _license_manager(registry: Registry) -> LicenseManager:
    return LicenseManager(registry, logging.get().bind(component="license"), required=license_required())


async def _close(endpoint: MetricsEndpoint | None) -> None:
    if endpoint is not None:
        await endpoint.shutdown()
