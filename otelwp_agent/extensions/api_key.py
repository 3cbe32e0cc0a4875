"""Authenticate requests by the API keys of tenants, which are in the control store.

A client sends its key in the header `X-API-Key`, or as a bearer token: `Authorization: Bearer wpo_live_…`. The tenant
of its telemetry is the tenant of the key. Requests without a valid key are answered with 401 or UNAUTHENTICATED; if the
tenant is suspended, or the key has not the scope that is needed, with 403 or PERMISSION_DENIED. Keys are created with
`otelwp-agent api-keys create`. A revoked key is refused within a second.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      api_key:
        store: control_store
    receivers:
      otlp:
        protocols:
          http:
            auth:
              authenticator: api_key
    service:
      extensions: [control_store, api_key]
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import AfterValidator

from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind, Tier
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.references import Capability, ControlStoreRef
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.last_used import EVERY
from otelwp_agent.errors import ForbiddenError, UnauthenticatedError
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.transport.authentication import Client, ServerAuthenticator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.component import Context
    from otelwp_agent.control.directory import KeyEntry, TenantDirectory
    from otelwp_agent.transport.authentication import PeerCertificate

REFUSALS = Instrument(
    "otelwp_api_key_refusals",
    "Requests refused because of their API key: missing, malformed, unknown (or revoked), wrong, expired, suspended "
    "(tenant) or scope.",
    labels=("extension", "reason"),
)
_REASONS = ("missing", "malformed", "unknown", "wrong", "expired", "suspended", "scope")
_AUTHORIZATION = "authorization"
_SCHEME = "bearer"


def _is_header(name: str) -> str:
    problem = header_problem(name, "")
    if problem is not None:
        raise ValueError(problem)
    return name.lower()


class Config(ComponentConfig):
    """Settings of `api_key`."""

    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    header: Annotated[str, AfterValidator(_is_header)] = "x-api-key"
    """Name of the header that contains the key. If a request does not have it, the key must be a bearer token."""
    scope: Scope = Scope.INGEST
    """Scope that a key needs."""


class ApiKeyAuthenticator(Extension, ServerAuthenticator):
    """Checks API keys in the directory of tenants, without I/O."""

    def __init__(self, config: Config, context: Context, *, now: Callable[[], float] = time.time) -> None:
        """Copy the settings; `now` returns the time in seconds since 1970."""
        super().__init__(context)
        self._access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self._header = config.header
        self._scope = config.scope.value
        self._now = now
        self._challenges = ("Bearer", f'ApiKey header="{config.header}"')
        self.secret_headers = frozenset({config.header, _AUTHORIZATION})
        name = str(context.id)
        self._refusals = {
            reason: context.registry.counter(REFUSALS, extension=name, reason=reason) for reason in _REASONS
        }

    @property
    def version(self) -> int:  # type: ignore[override] # a value that is computed
        """Changes at each change of the control store."""
        return self._access.directory.version

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of the API key in the headers."""
        del peer, certificate
        text = headers.get(self._header)
        if text is None:
            scheme, _, text = headers.get(_AUTHORIZATION, "").partition(" ")
            if scheme.lower() != _SCHEME:
                self._refuse("missing")
        directory, now = self._access.directory, self._now()
        id_, key, refusal = directory.check(text.strip(), now)
        if key is None:
            self._refuse(refusal)
        client = self._client(directory, id_, key, now)
        self._access.used.note(id_, now)
        return client

    def _client(self, directory: TenantDirectory, id_: str, key: KeyEntry, now: float) -> Client:
        """Return the client of a valid key; raise `ForbiddenError` if it may not send requests."""
        tenant = key.tenant
        if not tenant.active:
            self._refusals["suspended"].add()
            raise ForbiddenError("this tenant is suspended", reason="suspended")
        if self._scope not in key.scopes:
            self._refusals["scope"].add()
            raise ForbiddenError(f"this API key does not have the scope `{self._scope}`", reason="scope")
        return Client(
            tenant=tenant.id,
            credential=id_,
            scopes=key.scopes,
            attributes=tenant.attributes,
            # Servers keep the client until it expires. So a key in use is noted about once a minute.
            expires_at=min(key.expires_at, now + EVERY),
            limits=directory.current.plan(tenant.plan).limits,
        )

    def _refuse(self, reason: str) -> NoReturn:
        """Count a refusal, and raise an error that does not contain the reason."""
        self._refusals[reason].add()
        raise UnauthenticatedError(*self._challenges)


FACTORY = Factory(
    Kind.EXTENSION,
    "api_key",
    Config,
    ApiKeyAuthenticator,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    capabilities=frozenset({Capability.SERVER_AUTHENTICATOR}),
    instruments=(REFUSALS,),
)
