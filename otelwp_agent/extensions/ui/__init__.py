"""Serve a web page that shows what the agent does: pipelines, traces, delivery and sampling.

The page is served to browsers on this host: <http://127.0.0.1:13170/>. It loads nothing from other servers, and needs
no build step. Screens: the pipelines with their rates, queues and drops, live; the last traces, if a pipeline has the
exporter `recent_traces`; the ledger and the dead letters, which can be resent; the budget and the keys of
`adaptive_sampling`. The data of the screens is also available as JSON: `docs/topics/ui.md` describes it.

To reach it from other hosts, set `token`, or `store` to let the operators of a control store log in with their tokens,
and use `tls`. Without a login, an endpoint that is not on loopback is refused.

Example::

    exporters:
      recent_traces:
        max_mib: 16
    extensions:
      ui:
        endpoint: 127.0.0.1:13170
    service:
      extensions: [ui]
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import Ban, LocalHttpServer
from otelwp_agent.config.references import ControlStoreRef  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import Endpoint, Secret
from otelwp_agent.extensions.ui.api import UiApi
from otelwp_agent.extensions.ui.assets import asset_routes
from otelwp_agent.extensions.ui.live import LiveUpdates
from otelwp_agent.extensions.ui.login import Login
from otelwp_agent.transport import http_server
from otelwp_agent.transport.local_access import LocalAccess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otelwp_agent.component import Context
    from otelwp_agent.config.document import Path

_MAX_BODY = 256 * 1024
_SHORTEST_TOKEN = 16


class Config(LocalHttpServer, ComponentConfig):
    """Settings of `ui`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13170")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    token: Secret | None = None
    """Text of at least 16 characters with which people log in, and programs send requests (`Authorization: Bearer`)."""
    store: ControlStoreRef | None = None
    """Id of the extension `control_store` whose operators may log in with their tokens. The role `viewer` may read,
    `operator` may also resend dead letters."""
    ban: Ban = Ban()
    """When to ban an address that fails to log in."""

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Require a login beyond loopback, and a token that is not easily guessed."""
        if self.token is not None and len(self.token.get_secret_value()) < _SHORTEST_TOKEN:
            yield ("token",), f"the token is too short: use at least {_SHORTEST_TOKEN} characters"
        if self.token is not None or self.store is not None:
            return
        if not _is_local(self.endpoint):
            yield ("endpoint",), _OPEN
        for number, endpoint in enumerate(self.additional_endpoints):
            if not _is_local(endpoint):
                yield ("additional_endpoints", number), _OPEN


_OPEN = (
    "other hosts could read everything without a login: use an address on loopback such as 127.0.0.1:13170, or set "
    "`token` or `store`"
)


def _is_local(endpoint: Endpoint) -> bool:
    if endpoint.unix or endpoint.host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return False


class Ui(Extension):
    """Serves the page and its JSON API."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        local = LocalAccess(
            [config.endpoint, *config.additional_endpoints],
            config.allowed_hosts,
            setting=f"extension {context.id}",
            log=context.log,
            clock=context.clock,
        )
        token = None if config.token is None else config.token.get_secret_value()
        self._login = Login(context, local, token, config.store, config.ban, secure=config.tls is not None)
        self._live = LiveUpdates(context)
        api = UiApi(context, self._login, self._live)
        routes = {**asset_routes(self._login), **api.routes()}
        settings = config.model_copy(update={"max_request_body_size": min(config.max_request_body_size, _MAX_BODY)})
        self._server = http_server.HttpServer(settings, routes, name=f"extension {context.id}", log=context.log)
        self._scheme = "https" if config.tls is not None else "http"

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        await self._server.start()
        self.context.log.info("ui listening", url=self.endpoints()["ui"], port=self.port)

    async def shutdown(self) -> None:
        """End the live updates, and stop listening."""
        self._live.close()
        await self._server.shutdown(grace=1.0)

    def refresh(self) -> None:
        """Reload the certificate files."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
        address = self._server.address
        return {"ui": address if address.startswith("unix:") else f"{self._scheme}://{address}/"}


FACTORY = Factory(kind=Kind.EXTENSION, type="ui", config=Config, build=Ui, signals=frozenset(), tier=Tier.FREE)
