"""Tells senders how many of their traces to send, as Jaeger's remote sampling does: the rest would be dropped anyway.

It stands beside pipelines with `adaptive_sampling` and answers from what that has learned. OpenTelemetry SDKs (their
Jaeger remote sampler) and the WordPress plugin ask again and again, and leave out at the source what is not wanted.

* `GET /sampling?service=NAME`: `{"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.2}}`.
  With `span.name` among the keys (`per`) of `adaptive_sampling`, `operationSampling` has a rate for each span name.
* `GET /?service=NAME`: the same with `strategyType` as a number, for Jaeger's first clients.

The rate is `headroom` times the highest probability that the budget leaves any key of the service, at least `min_rate`:
so errors, slow traces and rare keys still come. While the traffic is within the target, it is 1.

Example::

    processors:
      adaptive_sampling:
        target:
          spans_per_second: 500
        per: [service.name, span.name]
    extensions:
      remote_sampling:
        endpoint: 127.0.0.1:5778
        min_rate: 0.05
    service:
      extensions: [remote_sampling]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
from pydantic import Field

from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import LocalHttpServer
from otelwp_agent.config.types import Endpoint, PositiveDuration
from otelwp_agent.sampling.adaptive.heads import HeadRates
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import JSON, Request, Response, Route, text_error
from otelwp_agent.transport.local_access import LocalAccess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.component import Context

_MAX_BODY = 64 * 1024
_PROBABILISTIC = 0
"""The number of that strategy in Jaeger's first interface."""


class Config(LocalHttpServer, ComponentConfig):
    """Settings of `remote_sampling`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:5778")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    min_rate: float = Field(0.05, gt=0, le=1)
    """The lowest rate that is told: senders that leave out more would hide their errors."""
    headroom: float = Field(2.0, ge=1, le=1000, allow_inf_nan=False)
    """How many times as many traces to ask for as chance would keep."""
    settle: PositiveDuration = 120.0
    """How long a rate stands for senders that do not write it into `tracestate` (`ot=th`): longer than the time between
    two of their questions."""


class RemoteSampling(Extension):
    """Serves rates."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        self._heads = HeadRates(config.min_rate, config.headroom, config.settle)
        access = LocalAccess(
            [config.endpoint, *config.additional_endpoints],
            config.allowed_hosts,
            setting=f"extension {context.id}",
            log=context.log,
            clock=context.clock,
        )
        routes = {
            "/sampling": access.guard(self._route("PROBABILISTIC")),
            "/": access.guard(self._route(_PROBABILISTIC)),
        }
        settings = config.model_copy(update={"max_request_body_size": min(config.max_request_body_size, _MAX_BODY)})
        self._server = http_server.HttpServer(settings, routes, name=f"extension {context.id}", log=context.log)

    @property
    def port(self) -> int:
        """The port it listens on; 0 on a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def shutdown(self) -> None:
        """Stop listening."""
        await self._server.shutdown(grace=1.0)

    def refresh(self) -> None:
        """Read the certificate files again."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return where it listens."""
        address = self._server.address
        return {"sampling": address if address.startswith("unix:") else f"http://{address}/sampling"}

    def _route(self, strategy: str | int) -> Route:
        return Route(lambda request: self._answer(request, strategy), methods=("GET", "HEAD"))

    def _answer(self, request: Request, strategy: str | int) -> Response:
        services = parse_qs(request.query, keep_blank_values=True).get("service", [])
        if len(services) != 1 or not services[0]:
            return text_error(400, "give `service` once: /sampling?service=NAME")
        samplers = [(sampler.controller, sampler.per) for sampler in self.context.host.providers(TraceSampler)]
        if not samplers:
            return text_error(503, "no pipeline has an adaptive_sampling, from which rates would come")
        rate, operations = self._heads.rates(services[0], samplers, self.context.clock())
        body: dict[str, Any] = {"strategyType": strategy, "probabilisticSampling": {"samplingRate": rate}}
        if operations is not None:
            body["operationSampling"] = {
                "defaultSamplingProbability": rate,
                "defaultLowerBoundTracesPerSecond": 0,
                "perOperationStrategies": [
                    {"operation": name, "probabilisticSampling": {"samplingRate": of}}
                    for name, of in operations.items()
                ],
            }
        return Response(200, orjson.dumps(body), JSON, (("Cache-Control", "no-store"),))


FACTORY = Factory(
    kind=Kind.EXTENSION,
    type="remote_sampling",
    config=Config,
    build=RemoteSampling,
    signals=frozenset(),
    tier=Tier.PRO,  # what it serves, an `adaptive_sampling` has learned
)
