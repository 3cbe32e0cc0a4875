"""Receive Jaeger's JSON over HTTP, as WordPress plugins send it, and repair spans that are not valid.

The receiver is the start of a pipeline, next to PHP. A real Jaeger collector accepts no JSON; this receiver accepts the
JSON of Jaeger's query API and UI, and the variants that plugins send (docs/topics/jaeger.md lists the repairs). Thrift,
recognized by its first bytes, is accepted on the same path for old exporters. The answer, 202, is sent at once: larger
bodies are decoded after it, and problems in them are reported in metrics and in the log.

Example::

    receivers:
      jaeger_json:
        endpoint: 127.0.0.1:14268
        additional_endpoints: ["[::1]:14268"]
        on_overload: accept_and_drop
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.codecs.jaeger import http as jaeger_http
from otelwp_agent.component import Context, Factory, Kind, Reads, Receiver, ReceiverConfig, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport import overload

if TYPE_CHECKING:
    from collections.abc import Mapping


class Config(ReceiverConfig, blocks.HttpReceiver):
    """Settings of the Jaeger JSON receiver."""

    endpoint: Endpoint = Endpoint("127.0.0.1:14268")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""


class JaegerJsonReceiver(Receiver):
    """Listens for requests with Jaeger's JSON."""

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(context)
        self._http = jaeger_http.JaegerHttp(
            config,
            lambda: self.next.get(Signal.TRACES),
            receiver=str(context.id),
            name=f"{context.kind.value}/{context.id}",
            log=context.log,
            registry=context.registry,
            clock=context.clock,
            drops=self.drops,
            in_flight=context.in_flight,
            gate=context.gate(config),
            max_items=config.max_items_per_request,
        )

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        await self._http.start()

    async def shutdown(self) -> None:
        """Stop listening, and forward the bodies that were answered but not decoded yet."""
        await self._http.shutdown()

    def refresh(self) -> None:
        """Read the certificates again."""
        self._http.server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening address."""
        return {"http": self._http.server.address} if self._http.server.listening else {}


FACTORY = Factory(
    Kind.RECEIVER,
    "jaeger_json",
    Config,
    JaegerJsonReceiver,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
    instruments=(*jaeger_http.INSTRUMENTS, *overload.INSTRUMENTS),
)
