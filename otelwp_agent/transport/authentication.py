"""Contracts of authentication: who sent a request, and which credential a request is sent with.

Extensions implement `ServerAuthenticator` and `ClientAuthenticator`; `transport.gate` and the clients call them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping  # noqa: TC003 - a field's annotation
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Origin

    Headers = Sequence[tuple[str, str | None]]
    """Header names in lower case with their values; `None` removes a header."""

TENANT_HEADER = "x-customer-id"
"""Header in which a client may repeat its tenant; it is checked, never used."""

ATTRIBUTE_PREFIX = "auth:"
"""Beginning of the names under which the attributes of a client are in the headers of an origin. No client can send a
header with such a name, because neither HTTP nor gRPC allows the colon."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """The sender of a request, as its credential identifies it. Immutable, and compared by identity."""

    tenant: str = ""
    """The tenant that the data belong to; "" if the credential belongs to none."""
    credential: str = ""
    """Public id of the key, or the subject; never a secret. It may be logged."""
    scopes: frozenset[str] = frozenset()
    """The purposes of the credential, such as `ingest`."""
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """More properties, such as the claims of a JWT."""
    expires_at: float = math.inf
    """Time from which on the credential is invalid, in seconds since 1970."""
    limits: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    """Limits of the tenant's plan by name, for rate limiters."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified certificate of a TLS client."""

    common_name: str = ""
    """The common name (CN) of its subject."""
    alternative_names: tuple[str, ...] = ()
    """Its subject alternative names (SAN): DNS names, URIs, e-mail and IP addresses."""


class ServerAuthenticator(ABC):
    """Authenticates the requests of servers."""

    secret_headers: frozenset[str] = frozenset()
    """Names, in lower case, of the headers that contain the credential. They are removed before a request reaches its
    receiver, so that no secret is in a batch's origin, in the journal or in a log."""
    by_headers: bool = True
    """Whether the secret headers alone decide. Then the answer is kept for later requests with the same secret headers,
    until `version` changes or the client expires. If it is False, the address and certificate of the connection decide
    too, and the answer is kept for one connection."""
    version: int = 0
    """Changes whenever an earlier answer may no longer be right, for example because a key was revoked."""

    @abstractmethod
    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client that sent a request.

        `headers` have lower-case names, `peer` is an IP address ("" on a unix socket), `certificate` the verified
        certificate of a TLS client. Called on the event loop before a body is read: it must do no I/O. Raises
        `UnauthenticatedError`, `ForbiddenError`, or `RetryableError` if it cannot decide now.
        """

    def of_servers(self) -> ServerAuthenticator:
        """Return the authenticator that servers use: this one, or one that adds to its clients."""
        return self


class ClientAuthenticator(ABC):
    """Adds credentials to the requests of clients."""

    reads: Sequence[str] = ()
    """Names, in lower case, of the headers of the batch's origin that it reads. A journal stores no other headers."""

    @abstractmethod
    def headers(self, origin: Origin | None, given: Mapping[str, str]) -> Headers:
        """Return the headers for a request with a batch of `origin` (`None`: not known).

        They replace those of the same name in `given`, the configured headers (names in lower case). Raises
        `RetryableError` if there is no credential yet.
        """

    def rejected(self, headers: Headers) -> bool:  # noqa: ARG002 - for those that can get another credential
        """Note that a backend answered 401 to a request with `headers`.

        Returns whether a later request may succeed, because there is another credential or one is being requested. Then
        the batch is retried, else it is refused permanently.
        """
        return False
