"""Settings that name the extensions that authenticate and limit requests."""

from __future__ import annotations

from typing import Annotated

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.references import (  # noqa: TC001 - pydantic reads them
    ClientAuthenticatorRef,
    RequestLimiterRef,
    ServerAuthenticatorRef,
)
from otelwp_agent.config.types import Refused

NO_LOCAL_AUTH = Refused(
    "this endpoint is for people and tools on this host and does not authenticate its clients: listen on an address "
    "that only they can reach (127.0.0.1, a unix socket), or require client certificates (`tls.client_ca_file`), and "
    "remove this"
)
"""Mark of `auth` and `middlewares` of endpoints that do not receive telemetry, which are refused."""

CLIENT_MIDDLEWARES = Refused("middleware extensions are supported for servers only: remove `middlewares`")
"""Mark of a client's `middlewares`, which are refused."""

_PARAMETERS = Refused("credentials in the query of a URL end up in logs: send them in a header, and remove this")


class ServerAuth(Block):
    """Authentication of the requests that a server gets."""

    authenticator: ServerAuthenticatorRef
    """Id of the extension that authenticates each request before its body is read. The extension must be listed in
    `service.extensions`."""


class HttpServerAuth(ServerAuth):
    """Authentication of the requests that an HTTP server gets."""

    request_params: Annotated[None, _PARAMETERS] = None
    """Refused: credentials in the query of a URL end up in logs."""


class ClientAuth(Block):
    """Authentication of the requests that a client sends."""

    authenticator: ClientAuthenticatorRef
    """Id of the extension that adds a credential to each request. The extension must be listed in
    `service.extensions`."""


class Middleware(Block):
    """An extension that limits the requests of a server."""

    id: RequestLimiterRef
    """Id of the extension. It must be listed in `service.extensions`."""
