"""Tells over HTTP whether the agent is well: to a person, a load balancer, Kubernetes or Docker.

It stands beside the pipelines and watches all of them. Answers are JSON:

* `/health`: 200 `healthy` or `degraded`, 503 `unhealthy`. Degraded means that some component fails, such as an exporter
  whose destination is away: the agent still takes and keeps telemetry, and a restart would not help. Unhealthy means
  that the agent does not take telemetry (it starts, drains or has stopped) or, with `check_collector_pipeline`, that an
  exporter has failed too often.
* `/health/detailed`: the same, and every component with its state, its last error, its queue and since when.
* `/ready`: 200 while every receiver listens; 503 before, and while the agent drains. For readiness probes.
* `/live`: 200 as long as the process answers at all. For liveness probes.
* `path` (`/`): as the OpenTelemetry Collector's health check answers, by the rule of `/health`.

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
import ipaddress
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import AfterValidator, Field

import otelwp_agent
from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind
from otelwp_agent.config.blocks import Block, HttpServer
from otelwp_agent.config.types import Endpoint, PositiveDuration, format_duration
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import JSON, TEXT, Request, Response, Route, text_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.component import ComponentHealth, Context

LOOK_EVERY = 1.0
"""Seconds between looks at the components; also how exact "since" is."""

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
            message = f"{value!r} has bits set beyond its prefix: write `{nearest}` for the network"
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
    """Body of a 200; "" leaves the JSON."""
    unhealthy: str = ""
    """Body of a 503; "" leaves the JSON."""


class CheckCollectorPipeline(Block):
    """When failing exporters make the agent unhealthy, and not only degraded."""

    enabled: bool = False
    """Answer 503 while an exporter fails too often."""
    interval: PositiveDuration = 300.0
    """How far back failures are counted."""
    exporter_failure_threshold: int = Field(5, ge=1)
    """Failed sends of one exporter within `interval` that are still healthy; one more is not."""


class Config(HttpServer, ComponentConfig):
    """Settings of `health_check`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13133")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    path: Annotated[str, AfterValidator(_rooted)] = "/"
    """Where the OpenTelemetry Collector's form of the answer is."""
    response_body: ResponseBody | None = None
    """Fixed answers at `path` instead of JSON."""
    check_collector_pipeline: CheckCollectorPipeline = CheckCollectorPipeline()
    """When failing exporters make the agent unhealthy."""
    allow_cidrs: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    """Networks that may ask; everybody who reaches the endpoint if empty. Clients on a unix socket always may."""


class HealthCheck(Extension):
    """Serves the state of the agent."""

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` is seconds since 1970."""
        super().__init__(context)
        self._wall = wall
        self._fixed = config.response_body or ResponseBody()
        self._allowed = [ipaddress.ip_network(cidr) for cidr in config.allow_cidrs]
        self._refusals = LogLimit(context.clock)
        check = config.check_collector_pipeline
        self._watch = Watch(context.clock, wall, check.interval)
        self._threshold = check.exporter_failure_threshold if check.enabled else None
        self._timer: asyncio.TimerHandle | None = None
        answers: dict[str, Callable[[], Response]] = {
            config.path: self._as_the_collector,
            "/health": self._health,
            "/health/detailed": self._detailed,
            "/ready": self._ready,
            "/live": self._live,
        }
        if config.response_body is not None:
            answers[config.path] = self._as_the_collector
        routes = {path: Route(self._guard(answer), methods=("GET", "HEAD")) for path, answer in answers.items()}
        settings = config.model_copy(update={"max_request_body_size": min(config.max_request_body_size, _MAX_BODY)})
        self._server = http_server.HttpServer(settings, routes, name=f"extension {context.id}", log=context.log)

    @property
    def port(self) -> int:
        """The port it listens on; 0 on a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        await self._server.start()
        self._look()

    async def shutdown(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._server.shutdown(grace=1.0)

    def refresh(self) -> None:
        """Read the certificate files again."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return where it listens."""
        address = self._server.address
        return {"health": address if address.startswith("unix:") else f"http://{address}/health"}

    def _look(self) -> None:
        self._watch.see(self.context.host.components())
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _guard(self, answer: Callable[[], Response]) -> Callable[[Request], Response]:
        """Return a handler that answers those who may ask."""

        def handler(request: Request) -> Response:
            if self._allowed and request.peer and not self._may_ask(request.peer):
                if refused := self._refusals.take():
                    self.context.log.warning("health refused", peer=request.peer, requests=refused)
                return text_error(403, f"{request.peer} is not in allow_cidrs of {self.context.id}")
            return answer()

        return handler

    def _may_ask(self, peer: str) -> bool:
        address = ipaddress.ip_address(peer.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._allowed)

    def _summary(self) -> tuple[int, dict[str, object], Sequence[ComponentHealth]]:
        """Return status code and body of `/health`, and the components they were made from."""
        host = self.context.host
        components = host.components()
        self._watch.see(components)
        reasons = [_reason(each) for each in components if not each.healthy]
        status = "degraded" if reasons else "healthy"
        if self._threshold is not None:
            often = self._watch.failing_often(self._threshold)
            if often:
                status = "unhealthy"
                reasons += [f"{name} failed {count} times, and {self._threshold} are let pass" for name, count in often]
        if not host.ready:
            status = "unhealthy"
            reasons.insert(0, f"the agent is not ready: {host.status}")
        body: dict[str, object] = {
            "status": status,
            "agent": host.status,
            "version": otelwp_agent.__version__,
            "uptime": format_duration(max(0, round(self._wall() - host.started_at))),
            "up_since": _iso(host.started_at),
        }
        if reasons:
            body["reasons"] = reasons
        return (503 if status == "unhealthy" else 200), body, components

    def _health(self) -> Response:
        code, body, _ = self._summary()
        return _json(code, body)

    def _detailed(self) -> Response:
        code, body, components = self._summary()
        body["components"] = [
            {
                "kind": each.kind.label,
                "id": each.id,
                "status": "healthy" if each.healthy else "degraded",
                "since": _iso(self._watch.since(each)),
                **({"message": each.message} if each.message else {}),
                **({"details": dict(each.details)} if each.details else {}),
            }
            for each in sorted(components, key=_name)
        ]
        return _json(code, body)

    def _ready(self) -> Response:
        host = self.context.host
        return _json(200 if host.ready else 503, {"status": host.status})

    def _live(self) -> Response:
        return _json(200, {"status": "alive"})

    def _as_the_collector(self) -> Response:
        code, summary, _ = self._summary()
        well = code == 200  # noqa: PLR2004 - HTTP's own number
        fixed = self._fixed.healthy if well else self._fixed.unhealthy
        if fixed:
            return Response(code, fixed.encode(), TEXT)
        body = {"status": "Server available" if well else "Server not available"}
        if well:
            body |= {"upSince": str(summary["up_since"]), "uptime": str(summary["uptime"])}
        return _json(code, body)


class Watch:
    """Remembers since when each component is in its state, and how often each exporter failed lately.

    `clock` is monotonic, `wall` is seconds since 1970, failures are counted `interval` seconds back.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], interval: float) -> None:
        """Start with nothing seen."""
        self._clock = clock
        self._wall = wall
        self._interval = interval
        self._states: dict[str, tuple[bool, float]] = {}
        self._running: dict[str, int] = {}
        self._failures: dict[str, deque[tuple[float, int]]] = {}

    def see(self, components: Sequence[ComponentHealth]) -> None:
        """Compare with what was seen last; forget components that are gone."""
        names = {_name(each) for each in components}
        for seen in (self._states, self._running, self._failures):
            for name in [name for name in seen if name not in names]:
                del seen[name]
        for each in components:
            name = _name(each)
            state = self._states.get(name)
            if state is None or state[0] != each.healthy:
                self._states[name] = each.healthy, self._wall()
            if each.kind is Kind.EXPORTER:
                self._count(name, each)

    def since(self, component: ComponentHealth) -> float:
        """Return when a component that was seen came into its state: seconds since 1970."""
        return self._states[_name(component)][1]

    def failing_often(self, threshold: int) -> list[tuple[str, int]]:
        """Return the exporters with more than `threshold` failed sends within the interval, and how many."""
        oldest = self._clock() - self._interval
        often: list[tuple[str, int]] = []
        for name, failures in self._failures.items():
            while failures and failures[0][0] < oldest:
                failures.popleft()
            count = sum(count for _, count in failures)
            if count > threshold:
                often.append((name, count))
        return often

    def _count(self, name: str, exporter: ComponentHealth) -> None:
        """Count failures since the last look: an exporter tells how many it has had in a row."""
        row = int(exporter.details.get("consecutive_failures", 0 if exporter.healthy else 1))
        before, self._running[name] = self._running.get(name, 0), row
        fresh = row - before if row >= before else row
        if fresh:
            self._failures.setdefault(name, deque()).append((self._clock(), fresh))


def _name(component: ComponentHealth) -> str:
    """Return what a component is called; an exporter of several signals is one for each."""
    signal = component.details.get("data_type", "")
    return f"{component.kind.label} {component.id}" + (f" ({signal})" if signal else "")


def _reason(component: ComponentHealth) -> str:
    return f"{_name(component)}: {component.message or 'unhealthy'}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _json(status: int, body: dict[str, Any]) -> Response:
    text = orjson.dumps(body, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(status, text, JSON, (("Cache-Control", "no-store"),))


FACTORY = Factory(kind=Kind.EXTENSION, type="health_check", config=Config, build=HealthCheck, signals=frozenset())
