"""Authenticate requests by tokens of an OpenID Connect issuer, such as Keycloak, Entra ID, Auth0 or Okta.

A client sends a JSON Web Token that the issuer has signed: `Authorization: Bearer <token>`. The extension finds the
issuer's public keys by discovery, fetches them regularly in the background, and checks signature, issuer, audience and
times of each token. The tenant of the telemetry is in the claim `tenant_claim`. Requests without a valid token are
answered with 401 or UNAUTHENTICATED; while keys are being fetched, with 503 or UNAVAILABLE, so that clients send them
again. Tokens must have a key id (`kid`) and be signed with RSA, ECDSA or Ed25519.

It needs the extra `oidc`: `pip install 'otelwp-agent[oidc]'`.

Example::

    extensions:
      oidc:
        providers:
          - issuer_url: https://login.example/realms/shop
            audience: telemetry
            tenant_claim: tenant
    receivers:
      otlp:
        protocols:
          http:
            auth:
              authenticator: oidc
    service:
      extensions: [oidc]
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Tier
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.references import Capability, ControlStoreRef
from otelwp_agent.config.types import Duration, PositiveDuration, format_duration
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.tenant_authenticator import TenantAuthenticator
from otelwp_agent.errors import ForbiddenError, RetryableError, StartError, UnauthenticatedError
from otelwp_agent.extensions.oidc.provider import FetchTimes, IssuerKeys
from otelwp_agent.extensions.oidc.settings import OidcProvider, OidcProviderSettings
from otelwp_agent.extensions.oidc.tokens import BadTokenError, read_token, verify_token
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.transport.authentication import Client, ServerAuthenticator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.component import Context
    from otelwp_agent.transport.authentication import PeerCertificate

REFUSALS = Instrument(
    "otelwp_oidc_refusals",
    "Requests refused because of their token: missing, malformed, algorithm, key (unknown id), issuer, signature, "
    "expired, not_yet_valid, audience, claims, tenant (none in the token) or unavailable (keys are being fetched).",
    labels=("extension", "reason"),
)
FAILURES = Instrument(
    "otelwp_oidc_fetch_failures",
    "Failed attempts to fetch the keys of an issuer; known keys stay in use.",
    labels=("extension", "issuer"),
)
KEYS = Instrument("otelwp_oidc_keys", "Public keys of an issuer.", InstrumentKind.GAUGE, ("extension", "issuer"))
AGE = Instrument(
    "otelwp_oidc_keys_age_seconds",
    "Seconds since the keys of an issuer were last fetched.",
    InstrumentKind.GAUGE,
    ("extension", "issuer"),
)
_REASONS = (
    "missing",
    "malformed",
    "algorithm",
    "key",
    "issuer",
    "signature",
    "expired",
    "not_yet_valid",
    "audience",
    "claims",
    "tenant",
    "unavailable",
)
_SCHEME = "bearer"
_MAX_NAME = 256
"""Maximum length of a tenant and of a client's name."""


def _is_header(name: str) -> str:
    problem = header_problem(name, "")
    if problem is not None:
        raise ValueError(problem)
    return name.lower()


class Config(OidcProviderSettings, ComponentConfig):
    """Settings of `oidc`. The settings of one issuer can be given here, or those of several in `providers`."""

    providers: list[OidcProvider] = Field(default_factory=list)
    """The issuers. A token is checked with the settings of the issuer in its claim `iss`."""
    store: ControlStoreRef | None = None
    """Id of the extension that opens the control store, `control_store`. Clients get the limits of their tenant's plan,
    which `rate_limiter` applies, and are refused with 403 while the tenant is suspended. A tenant that is not in the
    store is accepted without a plan. Default: no plans."""
    attribute: Annotated[str, AfterValidator(_is_header)] = "authorization"
    """Name of the header that contains the token, as `Bearer <token>`."""
    refresh_interval: PositiveDuration = 60.0
    """How often the keys are fetched. A key that the issuer has removed is refused from the next fetch on."""
    keys_max_age: PositiveDuration = 86400.0
    """How long keys stay valid while the issuer cannot be reached. After it, requests are answered with 503 until the
    keys have been fetched again."""
    timeout: PositiveDuration = 10.0
    """Maximum time of one request to the issuer."""
    clock_skew: Annotated[Duration, Field(le=300)] = 30.0
    """Difference of the clocks of issuer and agent that is accepted: a token is valid that much earlier and longer."""

    @model_validator(mode="after")
    def _is_complete(self) -> Config:
        own = sorted(self.model_fields_set & OidcProviderSettings.model_fields.keys())
        if own and not self.issuer_url and self.providers:
            message = f"`{own[0]}` has no effect beside `providers`: move it into their entries"
            raise ValueError(message)
        if (self.issuer_url or not self.providers) and (problem := self.problem()):
            raise ValueError(problem)
        issuers = [provider.issuer_url for provider in self.every_provider]
        if twice := next((issuer for issuer in issuers if issuers.count(issuer) > 1), ""):
            message = f"the issuer {twice} is given twice: remove one of them"
            raise ValueError(message)
        if self.keys_max_age < self.refresh_interval:
            limit = format_duration(self.refresh_interval)
            message = f"keys_max_age must be at least refresh_interval ({limit}), or keys expire between two fetches"
            raise ValueError(message)
        return self

    @property
    def every_provider(self) -> list[OidcProviderSettings]:
        """All issuers: the one whose settings are given directly, if there is one, and those in `providers`."""
        return [*([self] if self.issuer_url else []), *self.providers]


class OidcAuthenticator(Extension, ServerAuthenticator):
    """Checks tokens with the keys of their issuers, without I/O."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` begins to fetch the keys."""
        super().__init__(context)
        self._store = None if config.store is None else context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self._header = config.attribute
        self._clock_skew = config.clock_skew
        self.secret_headers = frozenset({config.attribute})
        self.version = 0
        name, registry = str(context.id), context.registry
        self._refusals = {reason: registry.counter(REFUSALS, extension=name, reason=reason) for reason in _REASONS}
        self._issuers = {each.issuer_url: self._keys_of(each, config) for each in config.every_provider}

    async def start(self) -> None:
        """Start to fetch the keys in the background; raise `StartError` if a file is invalid."""
        try:
            import jwt  # noqa: F401, PLC0415 - the packages may be missing
            from cryptography import x509  # noqa: F401, PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"extensions/{self.context.id}: {error.name} is not installed: install it with `pip install "
                f"'otelwp-agent[oidc]'`"
            ) from error
        try:
            for keys in self._issuers.values():
                await keys.start()
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop fetching."""
        for keys in self._issuers.values():
            await keys.stop()

    def refresh(self) -> None:
        """Read the files again, and fetch the keys."""
        for keys in self._issuers.values():
            keys.refresh()

    def health(self) -> ComponentHealth:
        """Report issuers whose keys are not up to date."""
        problems = [f"{issuer}: {keys.reason}" for issuer, keys in self._issuers.items() if keys.reason]
        details = {issuer: keys.count for issuer, keys in self._issuers.items()}
        message = "; ".join(problems)
        return ComponentHealth(self.context.kind, str(self.context.id), not problems, message, {"keys": details})

    def of_servers(self) -> ServerAuthenticator:
        """Return an authenticator that adds the limits of plans, if there is a control store."""
        return self if self._store is None else TenantAuthenticator(self, self._store)

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of the token in the header."""
        del peer, certificate
        try:
            return self._verified(headers.get(self._header, ""))
        except BadTokenError as error:
            self._refusals[error.reason].add()
            raise UnauthenticatedError("Bearer") from None
        except ForbiddenError:
            self._refusals["tenant"].add()
            raise
        except RetryableError:
            self._refusals["unavailable"].add()
            raise

    def _verified(self, value: str) -> Client:
        """Return the client of the token in a header's value."""
        scheme, _, text = value.partition(" ")
        text = text.strip()
        if scheme.lower() != _SCHEME or not text:
            raise BadTokenError("missing")
        token = read_token(text)
        issuer = self._issuers.get(token.issuer)
        if issuer is None:
            raise BadTokenError("issuer")
        key = issuer.find(token.kid, token.algorithm)
        if key is None:
            raise BadTokenError("key")
        settings = issuer.settings
        audience = None if settings.ignore_audience else settings.audience
        verify_token(token, key, audience=audience, clock_skew=self._clock_skew)
        return self._client(token.claims, settings)

    def _client(self, claims: Mapping[str, Any], settings: OidcProviderSettings) -> Client:
        """Return the client that verified claims describe."""
        name = _name_in(claims, settings.username_claim)
        if not name:
            raise BadTokenError("claims")
        attributes: dict[str, Any] = {"subject": name}
        for claim, value in claims.items():
            if isinstance(value, str | int | float):
                attributes[f"claims.{claim}"] = value
        if settings.groups_claim:
            attributes["membership"] = _words_in(claims, settings.groups_claim)
        tenant = ""
        if settings.tenant_claim:
            tenant = _name_in(claims, settings.tenant_claim)
            if not tenant:
                raise ForbiddenError("the token names no tenant", reason="tenant_missing")
        return Client(
            tenant=tenant,
            credential=name,
            scopes=frozenset(_words_in(claims, "scope")),
            attributes=MappingProxyType(attributes),
            expires_at=int(claims["exp"]) + self._clock_skew,
        )

    def _keys_of(self, settings: OidcProviderSettings, config: Config) -> IssuerKeys:
        """Return the keys of an issuer, with their metrics."""
        name, issuer, registry = str(self.context.id), settings.issuer_url, self.context.registry
        failures = registry.counter(FAILURES, extension=name, issuer=issuer)
        times = FetchTimes(config.refresh_interval, config.keys_max_age, config.timeout)
        keys = IssuerKeys(settings, times, self.context, changed=self._forget, failed=failures.add)
        registry.gauge(KEYS, lambda: keys.count, extension=name, issuer=issuer)
        registry.gauge(AGE, lambda: keys.age, extension=name, issuer=issuer)
        return keys

    def _forget(self) -> None:
        """Make servers check all tokens again."""
        self.version += 1


def _name_in(claims: Mapping[str, Any], claim: str) -> str:
    """Return the text of a claim, "" if it is not a text of a usable length with printable characters."""
    value = claims.get(claim)
    usable = isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable() and value == value.strip()
    return value if isinstance(value, str) and usable else ""


def _words_in(claims: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """Return the words of a claim: a list of texts, or a text with words separated by spaces (RFC 8693, 4.2)."""
    value = claims.get(claim)
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


FACTORY = Factory(
    Kind.EXTENSION,
    "oidc",
    Config,
    OidcAuthenticator,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    capabilities=frozenset({Capability.SERVER_AUTHENTICATOR}),
    instruments=(REFUSALS, FAILURES, KEYS, AGE),
)
