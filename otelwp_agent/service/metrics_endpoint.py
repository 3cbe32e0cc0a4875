"""Serves our own metrics to Prometheus: GET /metrics on `service.telemetry.metrics.address`."""

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
"""Where the address is configured; messages name it."""

SECTION = "service.telemetry.metrics"
"""The section with that setting and `allowed_hosts`."""

FRESH = 0.25
"""Seconds for which rendered metrics are served again. Scrapes come every few seconds; a flood of them costs little."""

_MAX_BODY = 64 * 1024
"""A scrape has no body; whoever sends one is told so before it is read."""


class MetricsEndpoint:
    """The endpoint of one registry. `address` is `host:port` or `unix:///path`."""

    def __init__(
        self,
        registry: Registry,
        address: Endpoint,
        log: structlog.typing.FilteringBoundLogger,
        *,
        allowed_hosts: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what is needed; nothing is opened before `start`."""
        self._registry = registry
        self._clock = clock
        self._rendered: dict[bool, tuple[float, Response]] = {}  # by whether it is compressed: until when, and what
        access = LocalAccess([address], allowed_hosts, setting=SECTION, log=log, clock=clock)
        routes = {"/metrics": access.guard(Route(self._metrics, methods=("GET", "HEAD")))}
        settings = Settings(endpoint=address, max_request_body_size=_MAX_BODY, max_connections=64)
        self._server = HttpServer(settings, routes, name="metrics", log=log)

    @property
    def port(self) -> int:
        """The port it listens on; 0 on a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen; raise `StartError` that names the setting to change."""
        try:
            await self._server.start()
        except StartError as error:
            message = f"{error}. Change {SETTING}, or set it to `none` to serve no metrics"
            raise StartError(message) from error

    async def shutdown(self) -> None:
        """Answer the scrape under way, if there is one, and stop listening."""
        await self._server.shutdown(grace=1.0)

    def _metrics(self, request: Request) -> Response:
        """Return the metrics, rendered at most once per encoding in `FRESH` seconds, however many requests come."""
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
    """Say whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for part in header.lower().split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip()] = parameter.strip().removeprefix("q=").strip()
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""
