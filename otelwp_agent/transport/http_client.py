"""An HTTP/1.1 client for one endpoint, with keep-alive connections, TLS, unix sockets and one total time limit.

It follows no redirects (OTLP has none), keeps no cookies and uses no proxy. It runs no task while it is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING

from otelwp_agent.config.types import format_duration
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.transport.http_connection import ClientResponse, ConnectionClosedError, HttpConnection
from otelwp_agent.transport.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.config.types import Endpoint
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import ClientAuthenticator

CLOSE_TIMEOUT = 1.0
"""Seconds to wait for connections to close properly."""

_PORTS = {"http": 80, "https": 443}


class HttpClient:
    """Sends requests to `endpoint`. `name` (`exporters/otlp_http`) is the component's name in error messages."""

    def __init__(
        self,
        settings: blocks.HttpClient,
        endpoint: Endpoint,
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        authenticator: ClientAuthenticator | None = None,
    ) -> None:
        """Keep the settings; no connection is opened. `endpoint` takes precedence over the endpoint in `settings`.

        `authenticator` adds a credential to each request.
        """
        self.name = name
        self.log = log
        self._unix = endpoint.unix
        self._host = endpoint.host
        self._port = endpoint.port or _PORTS.get(endpoint.scheme, 80)
        self._secure = endpoint.scheme == "https"
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self.address = f"unix://{endpoint.unix}" if endpoint.unix else f"{host}:{self._port}"
        """The address in readable form, for messages."""
        self._timeout = settings.timeout
        self._idle_timeout = settings.idle_conn_timeout
        self._keep_alive = not settings.disable_keep_alives
        self._slots = asyncio.Semaphore(settings.max_conns_per_host) if settings.max_conns_per_host else None
        self._tls_settings = settings.tls
        self._tls: ClientTls | None = None
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._empty = asyncio.Event()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        authority = "localhost" if self._unix else host if self._port == _PORTS.get(endpoint.scheme) else self.address
        configured = {name: secret.get_secret_value() for name, secret in settings.headers.items()}
        self._fixed, self._given = _fixed_headers(authority, configured, keep_alive=self._keep_alive)
        self._authority, self._configured = authority, {name.lower(): value for name, value in configured.items()}
        self._authenticator = authenticator

    async def start(self) -> None:
        """Read the certificates; raise `StartError`. Connections are made with the first requests."""
        if self._secure:
            self._tls = ClientTls(self._tls_settings, name=self.name)
            self._watch()

    async def aclose(self) -> None:
        """Close every connection; requests in progress fail."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._open):
            if connection in self._idle:
                connection.close()
            else:
                connection.abort()
        if self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._empty.wait()
        for connection in tuple(self._open):
            connection.abort()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        origin: Origin | None = None,
    ) -> ClientResponse:
        """Send a request and return its response, whatever its status.

        `path` is sent unchanged. Configured headers take precedence over `headers`, and those of the authenticator over
        both; it gets the `origin` of the batch. Do not use it for HEAD, whose responses give the length of a body that
        they do not have. Raises `RetryableError` if there is no response, or if the server has refused a credential
        that can be replaced.
        """
        if self._authenticator is None:
            return await self._send(method, path, body, self._fixed, self._given, headers)
        credential = self._authenticator.headers(origin, self._configured)
        replaced = {name for name, _ in credential}
        others = {name: value for name, value in self._configured.items() if name not in replaced}
        fixed, given = _fixed_headers(self._authority, others, keep_alive=self._keep_alive)
        fixed += "".join([f"{name}: {value}\r\n" for name, value in credential if value is not None])
        response = await self._send(method, path, body, fixed, given | replaced, headers)
        if response.status == HTTPStatus.UNAUTHORIZED and self._authenticator.rejected(credential):
            raise RetryableError(f"{self.address} has refused the credential (HTTP 401)", reason="http_401")
        return response

    async def _send(  # noqa: PLR0913, PLR0917 - a request and its headers
        self,
        method: str,
        path: str,
        body: bytes,
        fixed: str,
        given: Collection[str],
        headers: Iterable[tuple[str, str]],
    ) -> ClientResponse:
        """Send a request with the header lines `fixed`, and with those of `headers` whose names are not `given`."""
        lines = [f"{name}: {value}\r\n" for name, value in headers if name.lower() not in given]
        head = f"{method} {path} HTTP/1.1\r\n{fixed}{''.join(lines)}Content-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(self._timeout), self._slots or contextlib.nullcontext():
                return await self._exchange(head.encode("latin-1"), body)
        except TimeoutError:
            message = f"{self.address} did not answer within {format_duration(self._timeout)}"
            raise RetryableError(message, reason="timeout") from None

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections use them.

        If they are invalid, raises `StartError` and keeps the old ones.
        """
        if self._tls is not None:
            self._tls.reload()
            for connection in tuple(self._idle):
                connection.close()

    async def _exchange(self, head: bytes, body: bytes) -> ClientResponse:
        connection = self._take() or await self._connect()
        try:
            response = await connection.exchange(head, body)
        except ConnectionClosedError as error:
            # A server may close an idle connection just while we write to it. Then the request has not failed: send it
            # again.
            if error.answered or connection.exchanges == 1:
                raise
            connection = await self._connect()
            response = await connection.exchange(head, body)
        self._keep(connection)
        return response

    def _take(self) -> HttpConnection | None:
        """Return the idle connection that was used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_timer is not None:
                connection.idle_timer.cancel()
            if connection.reusable:
                return connection
        return None

    def _keep(self, connection: HttpConnection) -> None:
        """Keep a connection for the next request if it can be reused, else close it."""
        if not connection.reusable:
            return
        if not self._keep_alive or self._closed:
            connection.close()
            return
        if self._idle_timeout:
            loop = asyncio.get_running_loop()
            connection.idle_timer = loop.call_later(self._idle_timeout, connection.close)
        self._idle.append(connection)

    async def _connect(self) -> HttpConnection:
        if self._closed:
            raise RetryableError(f"the client of {self.address} is closed", reason="closed")
        if self._secure and self._tls is None:
            raise RuntimeError("the HTTP client is not started")
        loop = asyncio.get_running_loop()
        context = self._tls.context if self._tls is not None else None
        try:
            if self._unix:
                _, connection = await loop.create_unix_connection(self._protocol, self._unix)
            else:
                name = (self._tls_settings.server_name_override or self._host) if context is not None else None
                _, connection = await loop.create_connection(
                    self._protocol, self._host, self._port, ssl=context, server_hostname=name
                )
        except OSError as error:
            raise RetryableError(f"cannot connect to {self.address}: {_why(error)}", reason="connect") from error
        if not connection.lost:
            self._open.add(connection)
            self._empty.clear()
        return connection

    def _protocol(self) -> HttpConnection:
        return HttpConnection(self.address, self._on_lost)

    def _on_lost(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        if connection.idle_timer is not None:
            connection.idle_timer.cancel()
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open:
            self._empty.set()

    def _watch(self) -> None:
        """Check the certificate files for changes every `reload_interval`."""
        interval = self._tls_settings.reload_interval
        if interval:
            self._timer = asyncio.get_running_loop().call_later(interval, self._look)

    def _look(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self.reload_tls()
                self.log.info("certificate reloaded", client=self.name)
        except StartError as error:
            self.log.error(  # noqa: TRY400 - the message is complete, a traceback would hide it
                "certificate not reloaded; the old one stays", client=self.name, error=str(error)
            )
        self._watch()


def _fixed_headers(authority: str, headers: Mapping[str, str], *, keep_alive: bool) -> tuple[str, frozenset[str]]:
    """Return the header lines that all requests share, and the lower-case names of the configured headers."""
    given = frozenset(name.lower() for name in headers)
    lines = [] if "host" in given else [f"Host: {authority}\r\n"]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    return "".join(lines), given


def _why(error: OSError) -> str:
    """Return in readable form why connecting failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return f"its host name does not resolve: {error.strerror}"
    return os.strerror(error.errno).lower() if error.errno else str(error)
