"""Add an access token of an OAuth 2.0 authorization server to the requests of exporters (client credentials grant).

The token is requested in the background (RFC 6749, 4.4) and replaced before it expires, so that no request waits for
it. While there is none, batches stay in the exporter's queue. If a backend refuses the token with 401, another one is
requested.

Example::

    extensions:
      oauth2client:
        client_id: agent
        client_secret: ${env:CLIENT_SECRET:-s3cret}
        token_url: https://login.example/oauth2/token
        scopes: [telemetry.write]
    exporters:
      otlp_http:
        endpoint: https://collector.example:4318
        auth:
          authenticator: oauth2client
    service:
      tier: pro
      extensions: [oauth2client]
"""

from __future__ import annotations

import asyncio
import base64
import math
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import orjson
from pydantic import AfterValidator, Field, model_validator

from otelwp_agent import __version__
from otelwp_agent.component import ComponentConfig, ComponentHealth, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.references import Capability
from otelwp_agent.config.types import Duration, Endpoint, PositiveDuration, Secret
from otelwp_agent.errors import ConsumeError, MalformedError, PermanentError, RetryableError, StartError
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.authentication import ClientAuthenticator
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import Headers

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds to wait after the first failed request for a token, and at most; the wait doubles with each failure."""
SHORTEST_LIFE = 10.0
"""Seconds for which a token is not replaced, whatever the servers answer."""
SHORTEST_WAIT = 1.0
"""Seconds between two requests for a token, at least."""
DEFAULT_LIFE = 3600.0
"""Seconds after which a token is replaced whose lifetime the server does not give."""

_SUCCESS = range(200, 300)
_OTHER_STYLE = frozenset({400, 401})
"""Statuses of servers that refuse the secret in the `Authorization` header; it is then sent in the body."""


def _is_token_url(value: str) -> str:
    url = Endpoint(value)
    if not url.scheme or not url.host:
        message = f"{url.redacted} is not a URL: write one like `https://login.example/oauth2/token`"
        raise ValueError(message)
    if "@" in urlsplit(value).netloc:
        raise ValueError("a URL must not contain a password: give `client_secret`")
    return value.strip()


class Config(ComponentConfig):
    """Settings of `oauth2client`."""

    client_id: str = ""
    """Id of the agent at the authorization server."""
    client_id_file: str = ""
    """File that contains the id, instead of `client_id`. It is read again when it changes."""
    client_secret: Secret | None = None
    """Secret of the agent."""
    client_secret_file: str = ""
    """File that contains the secret, instead of `client_secret`. It is read again when it changes."""
    token_url: Annotated[str, AfterValidator(_is_token_url)]
    """URL at which tokens are requested."""
    scopes: list[str] = Field(default_factory=list)
    """Scopes to request."""
    endpoint_params: dict[str, str | list[str]] = Field(default_factory=dict)
    """More parameters of the request, such as `audience`."""
    timeout: PositiveDuration = 10.0
    """Maximum time of one request for a token."""
    tls: blocks.TlsClient = blocks.TlsClient()
    """TLS settings of the connection to the authorization server."""
    expiry_buffer: Duration = 300.0
    """Time before its expiry at which a token is replaced; at most half of its lifetime."""

    @model_validator(mode="after")
    def _is_complete(self) -> Config:
        if bool(self.client_id) is bool(self.client_id_file):
            raise ValueError("give either `client_id` or `client_id_file`")
        if (self.client_secret is not None) is bool(self.client_secret_file):
            raise ValueError("give either `client_secret` or `client_secret_file`")
        reserved = {"grant_type", "scope", "client_id", "client_secret"} & {*self.endpoint_params}
        if reserved:
            message = f"endpoint_params: {min(reserved)!r} is set by the agent itself: remove it"
            raise ValueError(message)
        return self


class OAuth2Client(Extension, ClientAuthenticator):
    """Keeps one valid access token."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` requests the first token."""
        super().__init__(context)
        name = f"{context.kind.value}/{context.id}"
        secret = config.client_secret.get_secret_value() if config.client_secret is not None else ""
        self._credential = [config.client_id, secret]
        self._files = [
            WatchedFile(path, self._use(place), name=name, log=context.log)
            for place, path in enumerate((config.client_id_file, config.client_secret_file))
            if path
        ]
        self._form = [("grant_type", "client_credentials")]
        if config.scopes:
            self._form.append(("scope", " ".join(config.scopes)))
        for key, value in config.endpoint_params.items():
            self._form += [(key, each) for each in ([value] if isinstance(value, str) else value)]
        self._buffer = config.expiry_buffer
        url = urlsplit(config.token_url)
        self._path = quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{url.query}" if url.query else "")
        settings = blocks.HttpClient.model_validate({"tls": config.tls.model_dump(exclude_unset=True)})
        settings = settings.model_copy(update={"timeout": config.timeout})
        self._client = HttpClient(settings, Endpoint(config.token_url), name=name, log=context.log)
        self._in_body = False
        self._token = ""
        self._since = -math.inf
        self._expires = -math.inf
        self._problem = "no token was requested yet"
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the files and start to request tokens; raise `StartError`. It does not wait for the first token."""
        try:
            for file in self._files:
                file.start()
            await self._client.start()
        except StartError:
            await self.shutdown()
            raise
        self._task = spawn(self._run(), name=f"{self.context.id}: request tokens")

    async def shutdown(self) -> None:
        """Stop requesting tokens, and close the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for file in self._files:
            file.stop()
        await self._client.aclose()

    def refresh(self) -> None:
        """Read the certificates and files again."""
        self._client.reload_tls()
        for file in self._files:
            file.read()

    def health(self) -> ComponentHealth:
        """Report that there is no valid token."""
        valid = self._is_valid()
        return ComponentHealth(self.context.kind, str(self.context.id), valid, "" if valid else self._problem)

    def headers(self, origin: Origin | None, given: Mapping[str, str]) -> Headers:
        """Return the header with the token; raise `RetryableError` while there is none."""
        del origin, given
        if not self._is_valid():
            message = f"extension {self.context.id} has no access token yet: {self._problem}"
            raise RetryableError(message, reason="no_credential")
        return (("authorization", f"Bearer {self._token}"),)

    def rejected(self, headers: Headers) -> bool:
        """Request another token, unless the refused one is new; return whether a later request may succeed."""
        if dict(headers).get("authorization") != f"Bearer {self._token}" or not self._is_valid():
            return True  # it has been replaced
        if self.context.clock() - self._since < SHORTEST_LIFE:
            return False  # another one would be refused too
        self._expires = -math.inf
        self._problem = "the backend has refused the token, and another one is being requested"
        self._wake.set()
        return True

    def _is_valid(self) -> bool:
        return self.context.clock() < self._expires

    async def _run(self) -> None:
        """Request a token whenever it is time for one."""
        retry = FIRST_RETRY
        while True:
            self._wake.clear()
            try:
                wait = await self._request()
                retry = FIRST_RETRY
            except ConsumeError as error:
                self._problem = str(error)
                self.context.log.warning("no access token", error=str(error), retry_seconds=retry)
                wait, retry = retry, min(2 * retry, LONGEST_RETRY)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _request(self) -> float:
        """Request a token; return the seconds after which it is to be replaced."""
        status, answer = await self._post()
        if status in _OTHER_STYLE:
            self._in_body = not self._in_body
            first = status, answer
            status, answer = await self._post()
            if status not in _SUCCESS:
                self._in_body = not self._in_body
                status, answer = first
        if status not in _SUCCESS:
            raise _refusal(status, answer)
        token, life = _token_in(answer)
        now = self.context.clock()
        self._token, self._since, self._expires = token, now, now + life
        self._problem = "the token has expired"
        return max(life - min(self._buffer, life / 2), SHORTEST_WAIT)

    async def _post(self) -> tuple[int, bytes]:
        """Send the request, with the client's secret in a header or in the body; return status and body."""
        identifier, secret = self._credential
        form, headers = (
            self._form,
            [
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Accept", "application/json"),
                ("User-Agent", f"otelwp-agent/{__version__}"),
            ],
        )
        if self._in_body:
            form = [*form, ("client_id", identifier), ("client_secret", secret)]
        else:  # RFC 6749, 2.3.1
            pair = f"{quote_plus(identifier)}:{quote_plus(secret)}"
            headers.append(("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"))
        response = await self._client.request("POST", self._path, urlencode(form).encode(), headers)
        return response.status, response.body

    def _use(self, place: int) -> Callable[[str], Mapping[str, object]]:
        """Return the function that uses the content of a file as id (0) or secret (1)."""

        def use(content: str) -> Mapping[str, object]:
            text = content.strip("\r\n")
            if not text:
                raise ValueError("is empty")
            changed, self._credential[place] = self._credential[place] != text, text
            if changed and not self._is_valid():
                self._wake.set()
            return {}

        return use


def _refusal(status: int, answer: bytes) -> ConsumeError:
    """Return the error for an answer without a token, with the error code of RFC 6749, 5.2, if it has one."""
    code = _parsed(answer).get("error")
    if isinstance(code, str) and code.isascii() and code.isprintable():
        return PermanentError(f"the authorization server answered HTTP {status}: {code[:100]}")
    return from_http(status, {}, b"")


def _token_in(answer: bytes) -> tuple[str, float]:
    """Return the token and its lifetime in seconds; raise `MalformedError` for an invalid answer."""
    found = _parsed(answer)
    token, kind, life = found.get("access_token"), found.get("token_type", "bearer"), found.get("expires_in")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise MalformedError("the authorization server answered without a usable `access_token`")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise MalformedError("the authorization server answered with a token that is no bearer token")
    try:
        seconds = float(life) if isinstance(life, str | int | float) else DEFAULT_LIFE
    except ValueError:
        seconds = DEFAULT_LIFE
    return token, seconds if math.isfinite(seconds) and seconds > 0 else DEFAULT_LIFE


def _parsed(answer: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(answer)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


FACTORY = Factory(
    Kind.EXTENSION,
    "oauth2client",
    Config,
    OAuth2Client,
    signals=frozenset(),
    tier=Tier.FREE,
    capabilities=frozenset({Capability.CLIENT_AUTHENTICATOR}),
)
