"""Report to senders which share of their traces to send, as Jaeger's remote sampling does.

It serves the probabilities that `adaptive_sampling` in the pipelines has learned. OpenTelemetry SDKs (their Jaeger
remote sampler) and the WordPress plugin request the rate regularly, and do not send traces that would be dropped.

* `GET /sampling?service=NAME`: `{"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.2}}`.
  With `span.name` among the keys (`per`) of `adaptive_sampling`, `operationSampling` has a rate for each span name.
* `GET /?service=NAME`: the same with `strategyType` as a number, for Jaeger's oldest clients.

The rate is `headroom` times the highest probability of any key of the service within the budget, and at least
`min_rate`, so that errors, slow traces and rare keys are still sent. While the traffic is within the target, it is 1.

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
"""Number of the strategy in Jaeger's oldest interface."""


class Config(LocalHttpServer, ComponentConfig):
    """Settings of `remote_sampling`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:5778")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    min_rate: float = Field(0.05, gt=0, le=1)
    """Lowest rate that is reported. With lower rates, senders would drop too many traces with errors."""
    headroom: float = Field(2.0, ge=1, le=1000, allow_inf_nan=False)
    """Factor by which the requested traces exceed those that are kept by chance."""
    settle: PositiveDuration = 120.0
    """How long a rate is valid for senders that do not write it into `tracestate` (`ot=th`). It must be longer than the
    interval of their requests."""


class RemoteSampling(Extension):
    """Serves sampling rates over HTTP."""

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
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def shutdown(self) -> None:
        """Stop listening."""
        await self._server.shutdown(grace=1.0)

    def refresh(self) -> None:
        """Reload the certificate files."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
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
            return text_error(503, "no pipeline has an adaptive_sampling, which provides the rates")
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
    tier=Tier.PRO,  # it serves rates of `adaptive_sampling`, which needs this tier
)
