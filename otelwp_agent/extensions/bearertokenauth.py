"""Authenticate requests by a bearer token, and add one to the requests of exporters.

A server that names this extension in `auth` accepts the requests whose header contains one of the tokens, and answers
all others with 401 or UNAUTHENTICATED, before it reads their bodies. An exporter that names it sends the first token.
The tokens are given here (`token`, `tokens`) or in a file (`filename`), which is read again when it changes.

Example::

    extensions:
      bearertokenauth:
        tokens: ["${env:TOKEN:-s3cret}", "${env:OLD_TOKEN:-0ld}"]
    receivers:
      otlp:
        protocols:
          http:
            auth:
              authenticator: bearertokenauth
    service:
      extensions: [bearertokenauth]
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.references import Capability
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it
from otelwp_agent.errors import RetryableError, UnauthenticatedError
from otelwp_agent.transport.authentication import Client, ClientAuthenticator, ServerAuthenticator
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import Headers, PeerCertificate


def _is_sendable(name: str) -> str:
    problem = header_problem(name, "")
    if problem is not None:
        raise ValueError(problem)
    return name.lower()


class Config(ComponentConfig):
    """Settings of `bearertokenauth`."""

    scheme: str = "Bearer"
    """Text before the token in the header. With an empty text, the header contains the token alone."""
    token: Secret | None = None
    """The token."""
    tokens: list[Secret] = Field(default_factory=list)
    """The accepted tokens, to replace one while its senders still use it; exporters send the first one."""
    filename: str = ""
    """File with the accepted tokens, one in each line, instead of `token` and `tokens`. It is read again when it
    changes."""
    header: Annotated[str, AfterValidator(_is_sendable)] = "authorization"
    """Name of the header that contains the token."""

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        given = [name for name in ("token", "tokens", "filename") if getattr(self, name)]
        if not given:
            raise ValueError("no token is given: give `token`, `tokens` or `filename`")
        if len(given) > 1:
            message = f"`{given[0]}` and `{given[1]}` are given: remove one of them"
            raise ValueError(message)
        for name, secrets in (("token", [self.token] if self.token is not None else []), ("tokens", self.tokens)):
            for secret in secrets:
                if problem := _problem(self.scheme, secret.get_secret_value()):
                    message = f"{name}: {problem}"
                    raise ValueError(message)
        return self


class BearerTokenAuth(Extension, ServerAuthenticator, ClientAuthenticator):
    """Compares tokens by their digests, so that the time of a comparison says nothing about a token."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` reads the file."""
        super().__init__(context)
        self._scheme = config.scheme
        self._header = config.header
        name = f"{context.kind.value}/{context.id}"
        self._file = (
            WatchedFile(config.filename, self._use_file, name=name, log=context.log) if config.filename else None
        )
        self.secret_headers = frozenset({config.header})
        self.version = 0
        self._key = os.urandom(32)
        self._clients: dict[bytes, Client] = {}
        self._tokens: Sequence[str] = ()
        secrets = [config.token] if config.token is not None else config.tokens
        self._use([secret.get_secret_value() for secret in secrets])

    async def start(self) -> None:
        """Read the file with the tokens, and watch it; raise `StartError`."""
        if self._file is not None:
            self._file.start()

    async def shutdown(self) -> None:
        """Stop watching the file."""
        if self._file is not None:
            self._file.stop()

    def refresh(self) -> None:
        """Read the file again; if it is invalid, raise `StartError` and keep the tokens."""
        if self._file is not None:
            self._file.read()

    def health(self) -> ComponentHealth:
        """Report a file that cannot be read."""
        problem = self._file.problem if self._file is not None else ""
        return ComponentHealth(self.context.kind, str(self.context.id), not problem, problem)

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of the token in the header."""
        del peer, certificate
        token = self._token_in(headers.get(self._header, ""))
        client = self._clients.get(self._digest(token)) if token else None
        if client is None:
            raise UnauthenticatedError(self._scheme or "Bearer")
        return client

    def headers(self, origin: Origin | None, given: Mapping[str, str]) -> Headers:
        """Return the header with the first token."""
        del origin, given
        if not self._tokens:
            raise RetryableError(f"extension {self.context.id} has no token yet", reason="no_credential")
        return ((self._header, f"{self._scheme} {self._tokens[0]}".strip()),)

    def rejected(self, headers: Headers) -> bool:
        """Read the file again; return whether there is another token now."""
        if self._file is not None:
            self._file.check()
        return dict(headers).get(self._header) != self.headers(None, {})[0][1]

    def _token_in(self, value: str) -> str:
        """Return the token of a header's value, "" if it has another scheme."""
        if not self._scheme:
            return value.strip()
        scheme, _, token = value.strip().partition(" ")
        return token.strip() if scheme.lower() == self._scheme.lower() else ""

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "backslashreplace"), key=self._key, digest_size=32).digest()

    def _use(self, tokens: Sequence[str]) -> None:
        """Accept these tokens from now on."""
        self._tokens = tuple(tokens)
        self._clients = {
            self._digest(token): Client(credential=f"{self.context.id}#{number}")
            for number, token in enumerate(tokens, 1)
        }
        self.version += 1

    def _use_file(self, content: str) -> Mapping[str, object]:
        """Accept the tokens of a file, one in each line; raise `ValueError` and keep the old ones if one is invalid."""
        tokens = [line.strip() for line in content.splitlines() if line.strip()]
        if not tokens:
            raise ValueError("contains no token: write one in each line")
        for number, token in enumerate(tokens, 1):
            if problem := _problem(self._scheme, token):
                message = f"token {number}: {problem}"
                raise ValueError(message)
        if tuple(tokens) != self._tokens:
            self._use(tokens)
        return {"tokens": len(tokens)}


def _problem(scheme: str, token: str) -> str:
    """Return why a token cannot be in a header, without quoting it, or ""."""
    if not token.strip():
        return "a token must not be empty"
    if header_problem("authorization", f"{scheme} {token}") is not None or not token.isascii():
        return "a token must have only printable ASCII characters"
    return ""


FACTORY = Factory(
    Kind.EXTENSION,
    "bearertokenauth",
    Config,
    BearerTokenAuth,
    signals=frozenset(),
    tier=Tier.FREE,
    capabilities=frozenset({Capability.SERVER_AUTHENTICATOR, Capability.CLIENT_AUTHENTICATOR}),
)
