"""Report over HTTP whether the agent is healthy, for people, load balancers, Kubernetes and Docker.

It covers all pipelines. Answers are JSON:

* `/health`: 200 `healthy` or `degraded`, 503 `unhealthy`. Degraded means that a component fails, such as an exporter
  whose backend is unreachable, or that the event loop is blocked (`service.watchdog`): the agent still accepts and
  keeps telemetry, and a restart would not help. Unhealthy means that the agent does not accept telemetry (it is
  starting, draining or stopped) or, with `check_collector_pipeline`, that an exporter has failed too often.
* `/health/detailed`: the same, with the state of every component, the time of its last change, last error and queue.
* `/ready`: 200 while every receiver listens; 503 before, and while the agent drains. For readiness probes.
* `/live`: 200, unless the event loop has been blocked for longer than `dead_after`. For liveness probes.
* `path` (`/`): the form of the OpenTelemetry Collector's health check, with the status of `/health`.

It runs in a separate thread, so that it answers while the pipelines are busy. Answers come from a snapshot of the
components, which is at most 0.25 s old unless the event loop is blocked.

Example::

    extensions:
      health_check:
        endpoint: 127.0.0.1:13133
        allow_cidrs: [127.0.0.0/8, 10.0.0.0/8]
        check_collector_pipeline:
          enabled: true
          interval: 5m
          exporter_failure_threshold: 5
    service:
      extensions: [health_check]
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import AfterValidator, Field

from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind
from otelwp_agent.config.blocks import Block, LocalHttpServer
from otelwp_agent.config.types import Duration, Endpoint, PositiveDuration
from otelwp_agent.extensions.health_check import report
from otelwp_agent.extensions.health_check.watch import Snapshot, Watch
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import JSON, TEXT, Request, Response, Route, text_error
from otelwp_agent.transport.local_access import LocalAccess
from otelwp_agent.transport.side_loop import SIDE_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.component import Context

    _Handler = Callable[[], Response | asyncio.Future[Response]]

LOOK_EVERY = 1.0
"""Seconds between two checks of the components; also the accuracy of `since`."""
FRESH = 0.25
"""Seconds for which a snapshot and the answers made from it are reused."""
PATIENCE = 0.1
"""Seconds to wait for a new snapshot from the main loop; after that, the last snapshot is used."""

_MAX_BODY = 64 * 1024


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        try:
            nearest = ipaddress.ip_network(value, strict=False)
        except ValueError:
            message = f"{value!r} is not a network: write an address and a prefix, like `10.0.0.0/8` or `::1/128`"
        else:
            message = f"{value!r} has bits set after its prefix: write `{nearest}` for the network"
        raise ValueError(message) from None
    return value


def _rooted(value: str) -> str:
    if not value.startswith("/") or "?" in value:
        message = f"{value!r} is not a path: write one that begins with `/`, without a query"
        raise ValueError(message)
    return value


class ResponseBody(Block):
    """Fixed answers at `path`."""

    healthy: str = ""
    """Body of a 200; "" means the default JSON."""
    unhealthy: str = ""
    """Body of a 503; "" means the default JSON."""


class CheckCollectorPipeline(Block):
    """When failing exporters make the agent unhealthy, and not only degraded."""

    enabled: bool = False
    """Answer 503 while an exporter fails too often."""
    interval: PositiveDuration = 300.0
    """Period in which failures are counted, up to now."""
    exporter_failure_threshold: int = Field(5, ge=1)
    """Number of failed attempts of one exporter within `interval` that is still healthy; more is unhealthy."""


class Config(LocalHttpServer, ComponentConfig):
    """Settings of `health_check`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13133")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    path: Annotated[str, AfterValidator(_rooted)] = "/"
    """Path of the answer in the OpenTelemetry Collector's form."""
    response_body: ResponseBody | None = None
    """Fixed answers at `path` instead of JSON."""
    check_collector_pipeline: CheckCollectorPipeline = CheckCollectorPipeline()
    """When failing exporters make the agent unhealthy."""
    allow_cidrs: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    """Networks whose clients are allowed; if empty, all clients are. Clients on a unix socket are always allowed."""
    dead_after: Duration = 60.0
    """`/live` answers 503 once the event loop has been blocked for this long, because only a restart helps. 0 disables
    this."""


class HealthCheck(Extension):
    """Serves the state of the agent.

    The main loop makes snapshots; the server and its handlers run on the side loop. Both use only immutable data
    (`_snapshot`) and data that any thread may read (`Host`).
    """

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` returns the time in seconds since 1970."""
        super().__init__(context)
        self._wall = wall
        self._fixed = config.response_body or ResponseBody()
        self._allowed = [ipaddress.ip_network(cidr) for cidr in config.allow_cidrs]
        self._refusals = LogLimit(context.clock)
        self._dead_after = config.dead_after or float("inf")
        check = config.check_collector_pipeline
        self._watch = Watch(context.clock, wall, check.interval)
        self._threshold = check.exporter_failure_threshold if check.enabled else None
        self._snapshot = Snapshot()
        self._answers: dict[Callable[[], Response], tuple[float, object, Response]] = {}
        self._main: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._access = LocalAccess(
            [config.endpoint, *config.additional_endpoints],
            config.allowed_hosts,
            setting=f"extension {context.id}",
            log=context.log,
            clock=context.clock,
        )
        handlers = {
            config.path: self._from_snapshot(self._as_the_collector),
            "/health": self._from_snapshot(self._health),
            "/health/detailed": self._from_snapshot(self._detailed),
            "/ready": self._ready,
            "/live": self._live,
        }
        if config.response_body is not None:
            handlers[config.path] = self._from_snapshot(self._as_the_collector)
        settings = config.model_copy(update={"max_request_body_size": min(config.max_request_body_size, _MAX_BODY)})
        routes = {path: self._guarded(handler) for path, handler in handlers.items()}
        self._server = http_server.HttpServer(settings, routes, name=f"extension {context.id}", log=context.log)

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        SIDE_LOOP.acquire()
        try:
            await SIDE_LOOP.run(self._server.start())
        except BaseException:
            SIDE_LOOP.release()
            raise
        self._main = asyncio.get_running_loop()
        self._look()

    async def shutdown(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._main is not None:
            self._main = None
            try:
                await SIDE_LOOP.run(self._server.shutdown(grace=1.0))
            finally:
                SIDE_LOOP.release()

    def refresh(self) -> None:
        """Reload the certificate files."""
        if self._main is not None:
            SIDE_LOOP.call(self._server.reload_tls)

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
        address = self._server.address
        return {"health": address if address.startswith("unix:") else f"http://{address}/health"}

    # -- on the main loop

    def _look(self) -> None:
        self._publish()
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _publish(self) -> None:
        host = self.context.host
        self._snapshot = self._watch.snapshot(host.status, host.components(), self._threshold)

    async def _publish_if_stale(self) -> None:
        if self._is_stale():
            self._publish()

    # -- on the side loop

    def _guarded(self, handler: _Handler) -> Route:
        """Return a route that refuses clients outside `allow_cidrs`."""

        def guarded(request: Request) -> Response | asyncio.Future[Response]:
            if self._allowed and request.peer and not self._is_allowed(request.peer):
                if refused := self._refusals.take():
                    self.context.log.warning("health requests refused", peer=request.peer, requests=refused)
                return text_error(403, f"{request.peer} is not in allow_cidrs of {self.context.id}")
            return handler()

        return self._access.guard(Route(guarded, methods=("GET", "HEAD")))

    def _is_allowed(self, peer: str) -> bool:
        address = ipaddress.ip_address(peer.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._allowed)

    def _from_snapshot(self, answer: Callable[[], Response]) -> _Handler:
        """Return a handler for `answer` that first updates an old snapshot, unless the main loop is blocked."""

        def handler() -> Response | asyncio.Future[Response]:
            if self._main is None or not self._is_stale() or self.context.host.stall() is not None:
                return self._cached(answer)
            return spawn(self._with_a_new_snapshot(answer, self._main), name="answer with a new snapshot")

        return handler

    def _is_stale(self) -> bool:
        snapshot = self._snapshot
        return self.context.clock() - snapshot.taken >= FRESH or snapshot.status != self.context.host.status

    async def _with_a_new_snapshot(self, answer: Callable[[], Response], main: asyncio.AbstractEventLoop) -> Response:
        published = asyncio.run_coroutine_threadsafe(self._publish_if_stale(), main)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.wrap_future(published)
        return self._cached(answer)

    def _cached(self, answer: Callable[[], Response]) -> Response:
        """Return the response of `answer`, cached for `FRESH` seconds as long as snapshot and state are the same."""
        host, now = self.context.host, self.context.clock()
        state = self._snapshot.taken, host.status, host.stall() is None
        until, before, response = self._answers.get(answer, (now, None, None))
        if response is None or now >= until or before != state:
            response = answer()
            self._answers[answer] = now + FRESH, state, response
        return response

    def _summary(self) -> tuple[int, dict[str, object], Snapshot]:
        host, snapshot = self.context.host, self._snapshot
        agent = report.Agent(host.status, host.started_at, self._wall(), host.stall())
        return *report.summary(agent, snapshot, self._threshold), snapshot

    def _health(self) -> Response:
        code, body, _ = self._summary()
        return _json(code, body)

    def _detailed(self) -> Response:
        code, body, snapshot = self._summary()
        return _json(code, {**body, "components": report.components(snapshot)})

    def _as_the_collector(self) -> Response:
        code, body, _ = self._summary()
        fixed = self._fixed.healthy if code == 200 else self._fixed.unhealthy  # noqa: PLR2004 - an HTTP status
        return Response(code, fixed.encode(), TEXT) if fixed else _json(code, report.as_the_collector(code, body))

    def _ready(self) -> Response:
        status = self.context.host.status
        return _json(200 if status == "ready" else 503, {"status": status})

    def _live(self) -> Response:
        stall = self.context.host.stall()
        if stall is not None and stall.seconds >= self._dead_after:
            return _json(503, {"status": "blocked", "reason": str(stall)})
        return _json(200, {"status": "alive"})


def _json(status: int, body: dict[str, Any]) -> Response:
    text = orjson.dumps(body, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(status, text, JSON, (("Cache-Control", "no-store"),))


FACTORY = Factory(kind=Kind.EXTENSION, type="health_check", config=Config, build=HealthCheck, signals=frozenset())
