"""Admit requests before their bodies are read: authentication, then rate limits, for one HTTP or gRPC server.

A server without `auth` and `middlewares` has no gate. With one, HTTP sessions call `Gate.enter` for each head, and gRPC
calls `Gate.enter_call` before a message is read.

Invariants:

* An answer of the authenticator is used again only while its `version` is the same and the client has not expired.
* No secret header reaches a receiver: `Passage.plan` and `Caller.metadata` do not contain them. They contain the
  attributes of the client under names that no client can send (`authentication.ATTRIBUTE_PREFIX`).
* The tenant is the client's. A header `X-Customer-ID` is compared with it and never used.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from otelwp_agent.errors import ConsumeError, ForbiddenError, InternalError, StartError, UnauthenticatedError
from otelwp_agent.model.batch import Origin
from otelwp_agent.transport.authentication import ATTRIBUTE_PREFIX, TENANT_HEADER, PeerCertificate
from otelwp_agent.transport.http_heads import Passage
from otelwp_agent.transport.limiting import CombinedAllowance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.config.blocks import Middleware, ServerAuth
    from otelwp_agent.transport.authentication import Client, ServerAuthenticator
    from otelwp_agent.transport.http_heads import RequestPlan
    from otelwp_agent.transport.limiting import RequestAllowance, RequestLimiter

MAX_KNOWN = 4096
"""Maximum number of credentials whose client is kept; above it, all are forgotten. Only valid ones are kept, so that
wrong credentials cannot fill it."""
_BUG = "request not admitted: an extension has a bug"
_INTERNAL = "internal error; the agent's log has the details"


class HttpConnectionState(Protocol):
    """The part of an HTTP connection that a gate uses."""

    peer: str
    passage: Passage | None
    """Kept for the gate: the last passage, if it is valid for this connection only."""

    def certificate(self) -> PeerCertificate | None:
        """Return the verified certificate of the client, or `None`."""


class GatedServer(Protocol):
    """The settings of a server that decide about its gate."""

    @property
    def auth(self) -> ServerAuth | None:
        """The authenticator's id."""

    @property
    def middlewares(self) -> Sequence[Middleware] | None:
        """The ids of the limiters."""


class Caller:
    """The sender of a gRPC message: its metadata, without secrets, and the client if it was authenticated."""

    __slots__ = ("allowance", "client", "metadata")

    def __init__(
        self,
        metadata: Mapping[str, str],
        client: Client | None = None,
        allowance: RequestAllowance | None = None,
    ) -> None:
        """Keep the parts; names of metadata are lower case."""
        self.metadata = metadata
        self.client = client
        self.allowance = allowance

    @property
    def tenant(self) -> str:
        """The tenant of the client, "" if there is none."""
        return "" if self.client is None else self.client.tenant

    def origin(self, receiver: str) -> Origin:
        """Return the origin of a batch that `receiver` makes of the message."""
        return Origin(receiver, "grpc", self.tenant, self.metadata, self.allowance)


class Gate:
    """Authenticates and limits the requests of one server."""

    def __init__(
        self,
        authenticator: ServerAuthenticator | None,
        limiters: Sequence[RequestLimiter] = (),
        *,
        log: structlog.typing.FilteringBoundLogger,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Admit the clients of `authenticator` within the limits of all `limiters`; `now` is in seconds since 1970."""
        self._authenticator = authenticator
        self._limiters = tuple(limiters)
        self._log = log
        self._now = now
        self._secrets = tuple(sorted(authenticator.secret_headers)) if authenticator is not None else ()
        self._keeps = authenticator is not None and authenticator.by_headers and bool(self._secrets)
        self._per_connection = bool(limiters) or not (authenticator is None or self._keeps)
        self._known: dict[tuple[str | None, ...], tuple[Client, int]] = {}

    def enter(self, plan: RequestPlan, connection: HttpConnectionState) -> Passage:
        """Return the passage for a request with the head of `plan`; raise `ConsumeError` to refuse it."""
        holder = connection if self._per_connection else plan
        passage, authenticator = holder.passage, self._authenticator
        if (
            passage is None
            or passage.head is not plan.head
            or (
                authenticator is not None
                and (passage.version != authenticator.version or passage.expires_at <= self._now())
            )
        ):
            passage = holder.passage = self._guarded(self._new_passage, plan, connection)
        return passage

    def begin(self, allowance: RequestAllowance) -> ConsumeError | None:
        """Count a request in `allowance`; return the error that refuses it, or `None`."""
        try:
            return allowance.begin()
        except ConsumeError as error:
            return error
        except Exception:  # noqa: BLE001 - it is logged, and refuses the request
            self._log.exception(_BUG)
            return InternalError(_INTERNAL)

    def enter_call(
        self, metadata: Mapping[str, str], peer: str, certificate: Callable[[], PeerCertificate | None], method: str
    ) -> Caller:
        """Return the sender of a gRPC call of `method`; raise `ConsumeError` to refuse the call."""
        return cast("Caller", self._guarded(self._new_caller, metadata, peer, certificate, method))

    def _version(self) -> int:
        return 0 if self._authenticator is None else self._authenticator.version

    def _new_passage(self, plan: RequestPlan, connection: HttpConnectionState) -> Passage:
        head, peer, version = plan.head, connection.peer, self._version()
        client = self._client(head.headers, peer, connection.certificate)
        allowance = self._allowance(client, peer, head.path)
        admitted = plan.with_head(head.of_client(client, self._visible(head.headers, client), allowance))
        return Passage(head, admitted, version, float("inf") if client is None else client.expires_at, allowance)

    def _new_caller(
        self, metadata: Mapping[str, str], peer: str, certificate: Callable[[], PeerCertificate | None], method: str
    ) -> Caller:
        client = self._client(metadata, peer, certificate)
        return Caller(self._visible(metadata, client), client, self._allowance(client, peer, method))

    def _client(
        self, headers: Mapping[str, str], peer: str, certificate: Callable[[], PeerCertificate | None]
    ) -> Client | None:
        for limiter in self._limiters:
            limiter.check(peer)
        if self._authenticator is None:
            return None
        try:
            client = self._authenticated(self._authenticator, headers, peer, certificate)
            _check_tenant(client, headers)
        except (UnauthenticatedError, ForbiddenError) as error:
            for limiter in self._limiters:
                limiter.authentication_failed(peer, error)
            raise
        return client

    def _authenticated(
        self,
        authenticator: ServerAuthenticator,
        headers: Mapping[str, str],
        peer: str,
        certificate: Callable[[], PeerCertificate | None],
    ) -> Client:
        """Return the client of a credential, from earlier requests if the answer still holds."""
        if not self._keeps:
            return authenticator.authenticate(headers, peer, certificate())
        key = tuple([headers.get(name) for name in self._secrets])
        version = authenticator.version
        known = self._known.get(key)
        if known is not None and known[1] == version and known[0].expires_at > self._now():
            return known[0]
        client = authenticator.authenticate(headers, peer, None)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = client, version
        return client

    def _allowance(self, client: Client | None, peer: str, route: str) -> RequestAllowance | None:
        allowances = [limiter.allowance(client, peer, route) for limiter in self._limiters]
        return CombinedAllowance(allowances) if len(allowances) > 1 else allowances[0] if allowances else None

    def _visible(self, headers: Mapping[str, str], client: Client | None) -> Mapping[str, str]:
        """Return the headers for the receiver: without secrets, with the attributes of the client."""
        if client is None or not (self._secrets or client.attributes):
            return headers
        visible = {name: value for name, value in headers.items() if name not in self._secrets}
        for name, value in client.attributes.items():
            if isinstance(value, str | int | float):
                visible[ATTRIBUTE_PREFIX + name] = str(value)
        return visible

    def _guarded(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as `function`
        """Call a function of an extension. If it raises no `ConsumeError`, it has a bug, which refuses the request."""
        try:
            return function(*arguments)
        except ConsumeError:
            raise
        except Exception as error:
            self._log.exception(_BUG)
            raise InternalError(_INTERNAL) from error


def _check_tenant(client: Client, headers: Mapping[str, str]) -> None:
    """Raise `ForbiddenError` if a header says that the client belongs to another tenant."""
    claimed = headers.get(TENANT_HEADER)
    if claimed is not None and client.tenant and claimed.strip() != client.tenant:
        message = f"the header {TENANT_HEADER} contradicts the credential: remove it, or use the right credential"
        raise ForbiddenError(message, reason="tenant_mismatch")


def require_gate(settings: GatedServer, gate: Gate | None, name: str) -> None:
    """Raise `StartError` if a server would ignore its settings for authentication and limits."""
    if gate is None and (settings.auth is not None or settings.middlewares):
        message = (
            f"{name}: `auth` and `middlewares` have no effect: the component must pass `gate=context.gate(settings)`"
        )
        raise StartError(message)


def http_certificate(ssl_object: Any) -> PeerCertificate | None:  # noqa: ANN401 - an `ssl.SSLObject`, or `None`
    """Return the verified certificate of the client of a TLS connection, or `None`."""
    found = ssl_object.getpeercert() if ssl_object is not None else None
    if not found:
        return None
    names = [value for part in found.get("subject", ()) for key, value in part if key == "commonName"]
    others = tuple(value for _, value in found.get("subjectAltName", ()) if isinstance(value, str))
    return PeerCertificate(names[-1] if names else "", others)
