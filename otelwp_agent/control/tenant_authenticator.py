"""Add what the control store knows about a tenant to the clients of another authenticator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import ForbiddenError
from otelwp_agent.transport.authentication import Client, ServerAuthenticator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.control.access import ControlAccess
    from otelwp_agent.transport.authentication import PeerCertificate


class TenantAuthenticator(ServerAuthenticator):
    """Gives clients the limits of their tenant's plan, and refuses those of suspended tenants.

    Clients without a tenant, or with one that is not in the store, stay as they are.
    """

    def __init__(self, inner: ServerAuthenticator, access: ControlAccess) -> None:
        """Use the clients of `inner`; `access` has started when the first of them is authenticated."""
        self._inner = inner
        self._access = access
        self.secret_headers = inner.secret_headers
        self.by_headers = inner.by_headers

    @property
    def version(self) -> int:  # type: ignore[override] # a value that is computed
        """Changes when either of the two changes; both only increase."""
        return self._inner.version + self._access.directory.version

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client with its limits."""
        client = self._inner.authenticate(headers, peer, certificate)
        directory = self._access.directory.current
        tenant = directory.tenant(client.tenant)
        if tenant is None:
            return client
        if not tenant.active:
            raise ForbiddenError("this tenant is suspended", reason="suspended")
        return Client(
            tenant=client.tenant,
            credential=client.credential,
            scopes=client.scopes,
            attributes=client.attributes,
            expires_at=client.expires_at,
            limits=directory.plan(tenant.plan).limits,
        )
