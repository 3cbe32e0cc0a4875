"""Authenticate requests by user and password, and add them to the requests of exporters.

With `htpasswd`, a server that names this extension in `auth` accepts the users of an htpasswd file, and answers all
other requests with 401 or UNAUTHENTICATED before it reads their bodies. With `client_auth`, exporters that name it send
a user and password. Passwords may be plain text or hashes: bcrypt, apr1, md5, sha256 and sha512 (install
`otelwp-agent[basicauth]`), SHA and SSHA. Use TLS: the header contains the password.

A checked password is remembered, because a check takes milliseconds by design. Hashes that take longer are checked in a
thread: the first request with a password is then answered with 503 or UNAVAILABLE, and its sender retries.

Example::

    extensions:
      basicauth/server:
        htpasswd:
          inline: |
            shop:s3cret
      basicauth:
        client_auth:
          username: shop
          password: ${env:PASSWORD:-s3cret}
    receivers:
      otlp:
        protocols:
          http:
            auth:
              authenticator: basicauth/server
    exporters:
      otlp_http:
        endpoint: https://collector.example:4318
        auth:
          authenticator: basicauth
    service:
      tier: pro
      extensions: [basicauth, basicauth/server]
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import model_validator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.references import Capability
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it
from otelwp_agent.errors import RetryableError, StartError, UnauthenticatedError
from otelwp_agent.transport.authentication import Client, ClientAuthenticator, ServerAuthenticator
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.extensions.basicauth.passwords import StoredPassword
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import Headers, PeerCertificate

Verify = Callable[[bytes], bool]
"""Returns whether a password is the right one."""

MAX_KNOWN = 4096
"""Maximum number of checked credentials of each result; above it, all of this result are forgotten."""
MAX_CHECKS = 16
"""Maximum number of checks that wait for the thread; senders with other passwords retry later."""
MAX_CREDENTIAL = 1024
"""Maximum length of user and password together, encoded."""
RETRY_AFTER = 1.0
"""Seconds after which a sender should try again whose password is being checked."""
SHARE = 10
"""Checks on the event loop may take one part in this number of the time."""

_CHALLENGE = 'Basic realm="otelwp-agent", charset="UTF-8"'


class Htpasswd(Block):
    """Users that a server accepts."""

    file: str = ""
    """File with lines `user:password`, as written by `htpasswd`. It is read again when it changes."""
    inline: Secret | None = None
    """The same lines, written here. They take precedence over the file's."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Htpasswd:
        if not self.file and self.inline is None:
            raise ValueError("no user is given: give `file` or `inline`")
        return self


class ClientCredential(Block):
    """The user and password that exporters send."""

    username: str = ""
    """The user."""
    username_file: str = ""
    """File that contains the user, instead of `username`. It is read again when it changes."""
    password: Secret | None = None
    """The password."""
    password_file: str = ""
    """File that contains the password, instead of `password`. It is read again when it changes."""

    @model_validator(mode="after")
    def _is_complete(self) -> ClientCredential:
        if bool(self.username) is bool(self.username_file):
            raise ValueError("give either `username` or `username_file`")
        if (self.password is not None) is bool(self.password_file):
            raise ValueError("give either `password` or `password_file`")
        if ":" in self.username:
            raise ValueError("`username` must not contain a colon")
        return self


class Config(ComponentConfig):
    """Settings of `basicauth`."""

    htpasswd: Htpasswd | None = None
    """The users that servers accept."""
    client_auth: ClientCredential | None = None
    """The user and password that exporters send."""

    @model_validator(mode="after")
    def _has_one_side(self) -> Config:
        if (self.htpasswd is None) is (self.client_auth is None):
            raise ValueError("give either `htpasswd`, for servers, or `client_auth`, for exporters")
        return self

    def lack(self, capability: Capability) -> str:
        """Return what is missing for one of the two sides."""
        if capability is Capability.SERVER_AUTHENTICATOR and self.htpasswd is None:
            return "it has no `htpasswd`, which lists the users that a server accepts"
        if capability is Capability.CLIENT_AUTHENTICATOR and self.client_auth is None:
            return "it has no `client_auth`, which gives the user and password that exporters send"
        return ""


class BasicAuth(Extension, ServerAuthenticator, ClientAuthenticator):
    """Checks users and passwords, or sends them."""

    secret_headers = frozenset({"authorization"})

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and read the users in them (`inline`); `start` reads the files."""
        super().__init__(context)
        self.version = 0
        self._users: Mapping[str, StoredPassword] = {}
        self._inline: Mapping[str, StoredPassword] = {}
        self._sent = ["", ""]
        self._files: list[WatchedFile] = []
        self._key = os.urandom(32)
        self._right: dict[bytes, Client] = {}
        self._wrong: set[bytes] = set()
        self._checks: set[bytes] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._pause_until = float("-inf")
        if config.htpasswd is not None:
            self._accept(config.htpasswd)
        if config.client_auth is not None:
            self._send(config.client_auth)

    async def start(self) -> None:
        """Read and watch the files; raise `StartError`."""
        for file in self._files:
            file.start()

    async def shutdown(self) -> None:
        """Stop watching the files and checking passwords."""
        for file in self._files:
            file.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)

    def refresh(self) -> None:
        """Read the files again; if one is invalid, raise `StartError` and keep what it contained before."""
        for file in self._files:
            file.read()

    def health(self) -> ComponentHealth:
        """Report files that cannot be read."""
        problem = "; ".join(file.problem for file in self._files if file.problem)
        return ComponentHealth(self.context.kind, str(self.context.id), not problem, problem)

    # -- servers

    def authenticate(self, headers: Mapping[str, str], peer: str, certificate: PeerCertificate | None) -> Client:
        """Return the client of a right user and password."""
        del peer, certificate
        scheme, _, encoded = headers.get("authorization", "").strip().partition(" ")
        encoded = encoded.strip()
        if scheme.lower() != "basic" or not encoded or len(encoded) > MAX_CREDENTIAL:
            raise UnauthenticatedError(_CHALLENGE)
        key = hashlib.blake2b(encoded.encode(), key=self._key, digest_size=16).digest()
        client = self._right.get(key)
        if client is not None:
            return client
        if key not in self._wrong and self._is_right(encoded, key):
            return self._right[key]
        raise UnauthenticatedError(_CHALLENGE)

    def _is_right(self, encoded: str, key: bytes) -> bool:
        """Check a user and password, or have them checked and raise `RetryableError`."""
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
            name = user.decode()
        except (binascii.Error, ValueError):
            return False
        if not colon:
            return False
        # An unknown user is checked too, so that the time of an answer does not show which users exist.
        stored = self._users.get(name) or next(iter(self._users.values()), None)
        if stored is None:
            return False
        now = self.context.clock()
        if stored.immediate or (stored.quick and now >= self._pause_until):
            right = stored.verify(password) and name in self._users
            if not stored.immediate:
                end = self.context.clock()
                self._pause_until = end + (end - now) * (SHARE - 1)
            self._checked(key, name, right=right)
            return right
        self._check_later(key, name, stored, password)
        raise RetryableError("the password is being checked", retry_after=RETRY_AFTER, reason="checking_credential")

    def _check_later(self, key: bytes, name: str, stored: StoredPassword, password: bytes) -> None:
        if key in self._checks or len(self._checks) >= MAX_CHECKS:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=str(self.context.id))
        self._checks.add(key)
        version = self.version
        check = asyncio.get_running_loop().run_in_executor(self._thread, stored.verify, password)

        def done(answer: asyncio.Future[bool]) -> None:
            self._checks.discard(key)
            if not answer.cancelled() and answer.exception() is None and version == self.version:
                self._checked(key, name, right=answer.result() and name in self._users)

        check.add_done_callback(done)

    def _checked(self, key: bytes, name: str, *, right: bool) -> None:
        """Remember the result of a check."""
        known = self._right if right else self._wrong
        if len(known) >= MAX_KNOWN:
            known.clear()
        if right:
            self._right[key] = Client(credential=name, attributes={"username": name})
        else:
            self._wrong.add(key)

    def _accept(self, settings: Htpasswd) -> None:
        from otelwp_agent.extensions.basicauth.passwords import read_htpasswd  # noqa: PLC0415 - only servers need it

        def use(content: str) -> Mapping[str, object]:
            self._users = {**read_htpasswd(content), **self._inline}
            self._right.clear()
            self._wrong.clear()
            self.version += 1
            return {"users": len(self._users)}

        if settings.inline is not None:
            try:
                self._inline = self._users = read_htpasswd(settings.inline.get_secret_value())
            except ValueError as error:
                raise StartError(f"{self._name}: htpasswd.inline: {error}") from None
        if settings.file:
            self._files.append(WatchedFile(settings.file, use, name=self._name, log=self.context.log))

    # -- clients

    def headers(self, origin: Origin | None, given: Mapping[str, str]) -> Headers:
        """Return the header with user and password."""
        del origin, given
        if not all(self._sent):
            raise RetryableError(f"extension {self.context.id} has no password yet", reason="no_credential")
        return (("authorization", "Basic " + base64.b64encode(":".join(self._sent).encode()).decode()),)

    def rejected(self, headers: Headers) -> bool:
        """Read the files again; return whether there is another password now."""
        for file in self._files:
            file.check()
        return dict(headers).get("authorization") != self.headers(None, {})[0][1]

    def _send(self, settings: ClientCredential) -> None:
        password = settings.password.get_secret_value() if settings.password is not None else ""
        self._sent = [settings.username, password]
        for place, path in enumerate((settings.username_file, settings.password_file)):
            if path:
                self._files.append(WatchedFile(path, self._user(place), name=self._name, log=self.context.log))

    def _user(self, place: int) -> Callable[[str], Mapping[str, object]]:
        """Return the function that uses the content of a file as user (0) or password (1)."""

        def use(content: str) -> Mapping[str, object]:
            text = content.strip("\r\n")
            if not text or (place == 0 and ":" in text):
                raise ValueError("is empty" if not text else "a user must not contain a colon")
            self._sent[place] = text
            return {}

        return use

    @property
    def _name(self) -> str:
        return f"{self.context.kind.value}/{self.context.id}"


FACTORY = Factory(
    Kind.EXTENSION,
    "basicauth",
    Config,
    BasicAuth,
    signals=frozenset(),
    tier=Tier.FREE,
    capabilities=frozenset({Capability.SERVER_AUTHENTICATOR, Capability.CLIENT_AUTHENTICATOR}),
)
