"""Control plane for the operator of an agent: the control socket with the audit, dead letters and sampling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.service.control import Control

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.component import Host
    from otelwp_agent.config.service import ServiceConfig
    from otelwp_agent.dead_letters.sink import DeadLetterFile
    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.service.control import Handler
    from otelwp_agent.service.dead_letters import DeadLetterRoutes
    from otelwp_agent.telemetry.metrics import Registry


class ControlPlane:
    """The control socket of one agent with its handlers. `graph` returns the running graph."""

    def __init__(
        self,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        graph: Callable[[], Graph],
        host: Host,
    ) -> None:
        """Open nothing. `host` reports the state of the agent."""
        self.control = Control(log)
        """Control socket, to which other modules add handlers."""
        self.dead_letters: DeadLetterFile | None = None
        """File for dead letters; `None` if none are kept."""
        self._registry = registry
        self._log = log
        self._graph = graph
        self._host = host
        self._settings: tuple[object, ...] = ()
        self._routes: DeadLetterRoutes | None = None

    def open(self, service: ServiceConfig) -> None:
        """Open the dead-letter file, if one is configured. Raises `StartError`."""
        path, settings = service.dead_letter_path, service.dead_letter
        self._settings = _settings_of(service)
        if path is None:
            return
        from otelwp_agent.at_rest.loading import load_keys  # noqa: PLC0415 - only if one is configured
        from otelwp_agent.dead_letters.sink import DeadLetterFile  # noqa: PLC0415 - only if one is configured

        dead_letters = DeadLetterFile(
            Path(path),
            settings.max_size,
            self._registry,
            self._log,
            max_tenant_share=settings.max_tenant_share,
            keys=load_keys(service.dead_letter_encryption, "service.dead_letter.encryption"),
        )
        dead_letters.open()
        self.dead_letters = dead_letters

    async def listen(self, service: ServiceConfig) -> None:
        """Listen on the socket that `service` names; called at the start and at each reload. Raises `StartError`."""
        if _settings_of(service) != self._settings:
            self._log.warning("service.dead_letter has changed: restart the agent to apply it")
        if service.control_path is not None:
            self._add_handlers()
        await self.control.listen(service.control_path)

    def handler(self, path: str) -> Handler | None:
        """Return the handler for `path`, also if there is no socket; `None` if nothing is served at this path."""
        self._add_handlers()
        return self.control.handler(path)

    def _add_handlers(self) -> None:
        if self._routes is not None:
            return
        from otelwp_agent.service.audit import add_audit  # noqa: PLC0415 - only with a control socket or the UI
        from otelwp_agent.service.dead_letters import DeadLetterRoutes  # noqa: PLC0415
        from otelwp_agent.service.sampling import add_sampling  # noqa: PLC0415
        from otelwp_agent.service.topology import add_topology  # noqa: PLC0415

        self._routes = DeadLetterRoutes(lambda: self.dead_letters, self._graph, self._log)
        self._routes.add_to(self.control)
        add_audit(self.control, self._graph)
        add_sampling(self.control, self._graph)
        add_topology(self.control, self._graph, self._host, self._registry)

    def drain(self) -> None:
        """Stop resending dead letters; continue to answer requests."""
        if self._routes is not None:
            self._routes.stop()

    async def shutdown(self) -> None:
        """Close the control socket and the dead-letter file. Call it when all items are settled."""
        self.drain()
        await self.control.shutdown()
        if self.dead_letters is not None:
            self.dead_letters.close()
            self.dead_letters = None


def _settings_of(service: ServiceConfig) -> tuple[object, ...]:
    """Return the settings of the dead-letter file, which are applied at the start only."""
    return service.dead_letter_path, service.dead_letter, service.dead_letter_encryption
