r"""Authenticate clients by their TLS certificate, and derive the tenant from its name.

A server that names this extension in `auth` needs `tls` with `client_ca_file`: only certificates of these authorities
count. The name is the common name of the certificate's subject, or one of its alternative names. It is looked up in
`tenants`; if it is not there, the group `tenant` of `pattern` is the tenant. A client whose certificate has no known
name is answered with 401 or UNAUTHENTICATED.

Example::

    extensions:
      client_certificate:
        pattern: '(?P<tenant>[a-z0-9-]+)\.agents\.example'
        tenants:
          legacy-host: shop
    receivers:
      otlp:
        protocols:
          grpc:
            auth:
              authenticator: client_certificate
            tls:
              cert_file: /etc/otelwp/server.crt
              key_file: /etc/otelwp/server.key
              client_ca_file: /etc/otelwp/clients.crt
    service:
      extensions: [client_certificate]
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import ComponentConfig, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config.references import Capability, ControlStoreRef
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.tenant_authenticator import TenantAuthenticator
from otelwp_agent.errors import UnauthenticatedError
from otelwp_agent.transport.authentication import Client, ServerAuthenticator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.transport.authentication import PeerCertificate

MAX_KNOWN = 4096
"""Maximum number of certificates whose client is kept; above it, all are forgotten."""
MAX_NAMES = 64
"""Maximum number of alternative names of a certificate that are looked up."""
MAX_NAME = 1024
"""Maximum number of characters of a name; a longer one is unknown."""


def _is_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        message = f"this is not a regular expression: {error}"
        raise ValueError(message) from None
    if "tenant" not in groups:
        raise ValueError("a group `(?P<tenant>…)` is missing, which names the tenant")
    return pattern


class Config(ComponentConfig):
    """Settings of `client_certificate`."""

    name: Literal["common_name", "alternative_name"] = "common_name"
    """The name that identifies a client: the common name (CN) of the subject, or the first alternative name (SAN) that
    is known."""
    tenants: dict[str, str] = Field(default_factory=dict)
    """The tenant of each name. An empty text accepts a client without a tenant."""
    pattern: Annotated[str, AfterValidator(_is_pattern)] | None = None
    """Regular expression for a whole name; its group `tenant` is the tenant."""
    store: ControlStoreRef | None = None
    """Id of the extension that opens the control store, `control_store`. Clients get the limits of their tenant's plan,
    which `rate_limiter` applies, and are refused with 403 while the tenant is suspended. A tenant that is not in the
    store is accepted without a plan. Default: no plans."""

    @model_validator(mode="after")
    def _knows_a_name(self) -> Config:
        if not self.tenants and self.pattern is None:
            raise ValueError("no client would be accepted: give `tenants` or `pattern`")
        return self


class ClientCertificate(Extension, ServerAuthenticator):
    """Maps names of certificates to tenants."""

    by_headers = False

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        self._store = None if config.store is None else context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self._by_common_name = config.name == "common_name"
        self._tenants = dict(config.tenants)
        self._pattern = re.compile(config.pattern) if config.pattern is not None else None
        self._clients: dict[PeerCertificate, Client] = {}

    def of_servers(self) -> ServerAuthenticator:
        """Return an authenticator that adds the limits of plans, if there is a control store."""
        return self if self._store is None else TenantAuthenticator(self, self._store)

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of the first known name."""
        del headers, peer
        if certificate is None:
            raise UnauthenticatedError
        client = self._clients.get(certificate)
        if client is None:
            client = self._find(certificate)
            if len(self._clients) >= MAX_KNOWN:
                self._clients.clear()
            self._clients[certificate] = client
        return client

    def _find(self, certificate: PeerCertificate) -> Client:
        names = (certificate.common_name,) if self._by_common_name else certificate.alternative_names
        for name in names[:MAX_NAMES]:
            tenant = self._tenant(name) if name and len(name) <= MAX_NAME else None
            if tenant is not None:
                return Client(tenant, name, attributes={"subject": name})
        raise UnauthenticatedError

    def _tenant(self, name: str) -> str | None:
        """Return the tenant of a name, or `None` if the name is unknown."""
        if name in self._tenants:
            return self._tenants[name]
        found = self._pattern.fullmatch(name) if self._pattern is not None else None
        return (found["tenant"] or None) if found is not None else None


FACTORY = Factory(
    Kind.EXTENSION,
    "client_certificate",
    Config,
    ClientCertificate,
    signals=frozenset(),
    tier=Tier.FREE,
    capabilities=frozenset({Capability.SERVER_AUTHENTICATOR}),
)
