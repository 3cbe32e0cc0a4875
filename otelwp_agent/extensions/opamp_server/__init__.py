"""Receive the reports of OpenTelemetry agents over the Open Agent Management Protocol (OpAMP).

Agents send their description, health, effective configuration and available components to `/v1/opamp`, over HTTP or
WebSocket: the OpenTelemetry Collector with its extension `opamp` or its supervisor, SDKs, and this agent. They appear
among the installations of the fleet (`otelwp-agent fleet list`), with the CMS `opamp` or the one in `cms`.

The tenant is that of the API key, which needs the scope `heartbeat`. Messages that are invalid or too many at once are
refused with the error response of OpAMP, counted, and nothing of them is stored. docs/topics/opamp.md has the details.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      api_key/heartbeat:
        store: control_store
        scope: heartbeat
      opamp_server:
        endpoint: 127.0.0.1:4320
        store: control_store
        auth:
          authenticator: api_key/heartbeat
        cms:
          io.opentelemetry.collector: otelcol
    service:
      extensions: [control_store, api_key/heartbeat, opamp_server]
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from otelwp_agent.admin.settings import ApplicationServerSettings
from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind, Stability, Tier
from otelwp_agent.config.blocks import HttpServerAuth, Middleware  # noqa: TC001 - annotations of fields
from otelwp_agent.config.references import ControlStoreRef
from otelwp_agent.config.types import ByteSize, Endpoint, PositiveDuration
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.errors import StartError
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.component import Context
    from otelwp_agent.extensions.opamp_server.serving import OpampServer

MESSAGES = Instrument(
    "otelwp_opamp_server_messages", "Messages of agents that were stored.", labels=("extension", "transport")
)
REFUSED = Instrument(
    "otelwp_opamp_server_refused",
    "Messages and requests of agents that were refused, by reason: malformed, too_large, scope, rate, store, …",
    labels=("extension", "transport", "reason"),
)
CONNECTIONS = Instrument(
    "otelwp_opamp_server_connections",
    "Agents that are connected over WebSocket.",
    InstrumentKind.GAUGE,
    ("extension",),
)

CmsName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?$")]


class Config(ApplicationServerSettings, ComponentConfig):
    """Settings of `opamp_server`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4320")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    max_request_body_size: ByteSize = Field(1024 * 1024, ge=1024)
    """Maximum size of a message, before and after decompression."""
    max_connections: int = Field(10_000, ge=1)
    """Maximum number of open connections; more are closed."""
    idle_timeout: PositiveDuration = 60.0
    """Maximum time for the head of the next request to arrive. WebSockets stay open; they are pinged each 30 s."""
    auth: HttpServerAuth
    """Authenticates every message. The credential decides on the tenant."""
    middlewares: list[Middleware] = Field(default_factory=list)
    """Rate limiters that every message must pass, in this order."""
    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    cms: dict[Annotated[str, Field(min_length=1, max_length=256)], CmsName] = Field(default_factory=dict)
    """The CMS under which agents are listed, by their `service.name`. Others have the CMS `opamp`. It also decides
    which registered version makes an agent outdated."""
    max_messages_per_second: int = Field(2000, ge=1)
    """Messages of all agents that are accepted per second, with a burst of one second."""
    retry_spread: PositiveDuration = Field(30.0, ge=2)
    """Longest wait that is reported to agents whose message was refused because of the load, or because the store is
    not available. It is random, so that agents do not return at the same time after an outage."""


class OpampServerExtension(Extension):
    """Listens for agents."""

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` returns the time in seconds since 1970. Raise `StartError` for missing packages."""
        super().__init__(context)
        access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        try:
            from otelwp_agent.extensions.opamp_server.exchange import OpampExchange  # noqa: PLC0415 - may be missing
            from otelwp_agent.extensions.opamp_server.serving import OpampServer  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"extensions/{context.id}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[control]'`"
            ) from error
        gate = context.gate(config)
        assert gate is not None  # noqa: S101 - `auth` is required
        self.wall = wall
        name, registry = str(context.id), context.registry
        exchange = OpampExchange(
            access,
            context,
            cms=dict(config.cms),
            rate=config.max_messages_per_second,
            retry_spread=config.retry_spread,
            now=self._now,
        )
        self._server: OpampServer = OpampServer(
            config,
            exchange,
            gate,
            name=f"extension {name}",
            log=context.log,
            count=lambda transport: registry.counter(MESSAGES, extension=name, transport=transport).add(),
            refused=lambda transport, reason: registry.counter(
                REFUSED, extension=name, transport=transport, reason=reason
            ).add(),
        )

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Begin to listen; raise `StartError` if the address cannot be used."""
        try:
            await self._server.start()
        except BaseException:
            await self.shutdown()
            raise
        connected = self._server.connected
        self.context.registry.gauge(CONNECTIONS, lambda: len(connected), extension=str(self.context.id))
        self.context.log.info("OpAMP server listening", url=self._server.url, port=self.port)

    async def shutdown(self) -> None:
        """Stop listening, and finish the messages in progress."""
        await self._server.shutdown()

    def refresh(self) -> None:
        """Reload the certificate files."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
        return {"opamp": self._server.url}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)  # tests replace `wall`


FACTORY = Factory(
    Kind.EXTENSION,
    "opamp_server",
    Config,
    OpampServerExtension,
    signals=frozenset(),
    stability=Stability.BETA,
    tier=Tier.ENTERPRISE,
    instruments=(MESSAGES, REFUSED, CONNECTIONS),
)
