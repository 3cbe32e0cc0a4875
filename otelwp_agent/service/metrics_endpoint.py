"""Serve the agent's own metrics to Prometheus: GET /metrics on `service.telemetry.metrics.address`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.config.blocks import HttpServer as Settings
from otelwp_agent.errors import StartError
from otelwp_agent.telemetry.metrics import CONTENT_TYPE
from otelwp_agent.transport.compression import compress
from otelwp_agent.transport.http_messages import Request, Response, Route
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.local_access import LocalAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from otelwp_agent.config.types import Endpoint
    from otelwp_agent.telemetry.metrics import Registry

SETTING = "service.telemetry.metrics.address"
"""Setting with the address, named in messages."""

SECTION = "service.telemetry.metrics"
"""Section with that setting and `allowed_hosts`."""

FRESH = 0.25
"""Seconds for which rendered metrics are reused, so that a flood of requests costs little. Normal scrapes are seconds
apart."""

_MAX_BODY = 64 * 1024
"""Largest request body in bytes. A scrape has none; larger bodies are refused before they are read."""


class MetricsEndpoint:
    """Endpoint that serves the metrics of one registry. `address` is `host:port` or `unix:///path`."""

    def __init__(
        self,
        registry: Registry,
        address: Endpoint,
        log: structlog.typing.FilteringBoundLogger,
        *,
        allowed_hosts: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Copy the settings; `start` opens the socket."""
        self._registry = registry
        self._clock = clock
        self._rendered: dict[bool, tuple[float, Response]] = {}  # key: whether compressed; value: expiry and response
        access = LocalAccess([address], allowed_hosts, setting=SECTION, log=log, clock=clock)
        routes = {"/metrics": access.guard(Route(self._metrics, methods=("GET", "HEAD")))}
        settings = Settings(endpoint=address, max_request_body_size=_MAX_BODY, max_connections=64)
        self._server = HttpServer(settings, routes, name="metrics", log=log)

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen; raise `StartError` that names the setting if that fails."""
        try:
            await self._server.start()
        except StartError as error:
            message = f"{error}. Change {SETTING}, or set it to `none` to serve no metrics"
            raise StartError(message) from error

    async def shutdown(self) -> None:
        """Finish the current scrape, if there is one, and stop listening."""
        await self._server.shutdown(grace=1.0)

    def _metrics(self, request: Request) -> Response:
        """Return the metrics, rendered at most once per encoding in `FRESH` seconds."""
        gzip = accepts_gzip(request.headers.get("accept-encoding", ""))
        now = self._clock()
        until, response = self._rendered.get(gzip, (now, None))
        if response is None or now >= until:
            response = self._render(gzip=gzip)
            self._rendered[gzip] = now + FRESH, response
        return response

    def _render(self, *, gzip: bool) -> Response:
        body = self._registry.expose().encode(errors="replace")
        headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"), ("Vary", "Accept-Encoding"))
        if gzip:
            body = compress("gzip", body)
            headers += (("Content-Encoding", "gzip"),)
        return Response(200, body, CONTENT_TYPE, headers)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for part in header.lower().split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip()] = parameter.strip().removeprefix("q=").strip()
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""
