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

import asyncio
import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.references import Capability
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it
from otelwp_agent.errors import RetryableError, StartError, UnauthenticatedError
from otelwp_agent.transport.authentication import Client, ClientAuthenticator, ServerAuthenticator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import Headers, PeerCertificate

CHECK = 0.5
"""Seconds between two checks whether the file with the tokens has changed."""
MAX_FILE = 2**20
"""Maximum size in bytes of the file with the tokens."""


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
        self._file = Path(config.filename) if config.filename else None
        self.secret_headers = frozenset({config.header})
        self.version = 0
        self._key = hashlib.blake2b(digest_size=32).digest()
        self._clients: dict[bytes, Client] = {}
        self._tokens: Sequence[str] = ()
        self._seen = (0, 0, 0)
        self._problem = ""
        self._timer: asyncio.TimerHandle | None = None
        secrets = [config.token] if config.token is not None else config.tokens
        self._use([secret.get_secret_value() for secret in secrets])

    async def start(self) -> None:
        """Read the file with the tokens, and watch it; raise `StartError`."""
        if self._file is not None:
            self._read(self._file)
            self._watch()

    async def shutdown(self) -> None:
        """Stop watching the file."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refresh(self) -> None:
        """Read the file again; if it is invalid, raise `StartError` and keep the tokens."""
        if self._file is not None:
            self._read(self._file)

    def health(self) -> ComponentHealth:
        """Report a file that cannot be read."""
        return ComponentHealth(self.context.kind, str(self.context.id), not self._problem, self._problem)

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of the token in the header."""
        del peer, certificate
        token = self._token_in(headers.get(self._header, ""))
        client = self._clients.get(self._digest(token)) if token else None
        if client is None:
            raise UnauthenticatedError(self._scheme or "Bearer")
        return client

    def headers(self, origin: Origin | None) -> Headers:
        """Return the header with the first token."""
        del origin
        if not self._tokens:
            raise RetryableError(f"extension {self.context.id} has no token yet", reason="no_credential")
        return ((self._header, f"{self._scheme} {self._tokens[0]}".strip()),)

    def rejected(self, headers: Headers) -> bool:
        """Read the file again; return whether there is another token now."""
        if self._file is not None:
            self._look_once(self._file)
        return tuple(headers) != tuple(self.headers(None))

    def _token_in(self, value: str) -> str:
        """Return the token of a header's value, "" if it has another scheme."""
        if not self._scheme:
            return value.strip()
        scheme, _, token = value.strip().partition(" ")
        return token.strip() if scheme.lower() == self._scheme.lower() else ""

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode("utf-8", "backslashreplace"), "sha256")

    def _use(self, tokens: Sequence[str]) -> None:
        """Accept these tokens from now on."""
        self._key = hashlib.sha256("\0".join(tokens).encode()).digest()
        self._tokens = tuple(tokens)
        self._clients = {
            self._digest(token): Client(credential=f"{self.context.id}#{number}")
            for number, token in enumerate(tokens, 1)
        }
        self.version += 1

    def _read(self, file: Path) -> None:
        """Read the file; if it is invalid, raise `StartError` and keep the tokens."""
        self._seen = _state_of(file)  # before it is read: a later change is then found
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_FILE + 1)
        except OSError as error:
            raise self._failed(f"{file} cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE:
            raise self._failed(f"{file} is larger than {MAX_FILE} bytes")
        tokens = [line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
        if not tokens:
            raise self._failed(f"{file} contains no token: write one in each line")
        for number, token in enumerate(tokens, 1):
            if problem := _problem(self._scheme, token):
                raise self._failed(f"{file}: token {number}: {problem}")
        self._problem = ""
        if tuple(tokens) != self._tokens:
            self._use(tokens)

    def _failed(self, problem: str) -> StartError:
        self._problem = problem
        return StartError(f"{self.context.kind.value}/{self.context.id}: {problem}")

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK, self._look)

    def _look(self) -> None:
        if self._file is not None:
            self._look_once(self._file)
        self._watch()

    def _look_once(self, file: Path) -> None:
        """Read the file if it has changed; after a failure, keep the tokens and log the failure once."""
        if _state_of(file) == self._seen:
            return
        before = self._tokens
        try:
            self._read(file)
        except StartError as error:
            self.context.log.warning("tokens not reloaded; the old ones stay in use", error=str(error))
            return
        if self._tokens != before:
            self.context.log.info("tokens reloaded", tokens=len(self._tokens))


def _state_of(file: Path) -> tuple[int, int, int]:
    """Return what changes when the file is changed or replaced; zeros if there is none."""
    try:
        stat = file.stat()
    except OSError:
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


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
