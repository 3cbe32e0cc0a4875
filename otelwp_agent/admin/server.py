"""The HTTP servers of the control plane (aiohttp): what they share, and that of the admin API."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from otelwp_agent.admin import problems
from otelwp_agent.admin.exchange import ApiRequest
from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.transport.http_listeners import Listeners
from otelwp_agent.transport.tls import ServerTls

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    import structlog

    from otelwp_agent.admin.exchange import ApiAnswer
    from otelwp_agent.admin.settings import AdminServerSettings, ApplicationServerSettings
    from otelwp_agent.transport.http_listeners import Acceptor

LINGERING = 1.0
"""Seconds in which a body that was not read may arrive, so that the client reads the answer."""
SHUTDOWN_GRACE = 2.0
"""Seconds in which requests in progress may end when the server stops."""


class AdminConnection(web.RequestHandler):
    """One connection. Requests that are not HTTP are answered with problem details too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that cannot be read."""
        del request, message
        detail = exc.message if isinstance(exc, HttpProcessingError) else "this request cannot be read"
        return _response(status, ProblemError(status, detail).body(""), problems.MEDIA_TYPE, ())


class AdminConnections(web.Server):
    """All connections of the server; more than `max_connections` are closed."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limit: int,
        idle_timeout: float,
    ) -> None:
        """Answer requests with `handler`; close connections that are idle for `idle_timeout` seconds."""
        super().__init__(handler)
        self._limit = limit
        self._idle_timeout = idle_timeout

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return AdminConnection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_timeout,
            access_log=None,  # type: ignore[arg-type] # means no access log
            auto_decompress=False,
            lingering_time=LINGERING,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection, or close it if there are too many."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._limit:
            transport.abort()


class ApplicationServer:
    """Listens, and answers requests with `handle`."""

    def __init__(
        self,
        settings: ApplicationServerSettings,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Keep the settings; `name` is the component's name for messages."""
        self.settings = settings
        self.name = name
        self.log = log
        self._handle = handle
        self._listeners = Listeners(self)
        self._server: AdminConnections | None = None
        self._tls: ServerTls | None = None

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._listeners.port if self._listeners else 0

    @property
    def url(self) -> str:
        """The URL that it serves, "" before `start`."""
        if not self._listeners:
            return ""
        address = self._listeners.addresses[0]
        if address.startswith("unix:"):
            return address
        return f"http{'' if self._tls is None else 's'}://{address}"

    async def start(self) -> None:
        """Begin to listen; raise `StartError` if the address cannot be used."""
        settings = self.settings
        if settings.tls is not None:
            self._tls = ServerTls(settings.tls, name=self.name)
        self._server = AdminConnections(self._handle, settings.max_connections, settings.idle_timeout)
        await self._listeners.open(self._accept)

    async def shutdown(self) -> None:
        """Stop listening, and finish the requests in progress."""
        self._listeners.close()
        if self._server is not None:
            server, self._server = self._server, None
            server.pre_shutdown()
            await server.shutdown(SHUTDOWN_GRACE)

    def reload_tls(self) -> None:
        """Read the certificate files again."""
        if self._tls is not None:
            self._tls.reload()

    async def _accept(self, sock: socket.socket) -> Acceptor:
        assert self._server is not None  # noqa: S101 - set by `start`
        context = None if self._tls is None else self._tls.context
        timeout = self.settings.idle_timeout if context is not None else None
        return await asyncio.get_running_loop().create_server(
            self._server, sock=sock, ssl=context, ssl_handshake_timeout=timeout, backlog=self.settings.backlog
        )


class AdminServer(ApplicationServer):
    """An HTTP server of the admin API: passes each request to `answer` and sends what it returns."""

    def __init__(
        self,
        settings: AdminServerSettings,
        answer: Callable[[ApiRequest], Awaitable[ApiAnswer]],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Keep the settings; `name` is the component's name for messages."""
        super().__init__(settings, self._respond, name=name, log=log)
        self._answer = answer

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = request.remote or ""
        answer = await self._answer(
            ApiRequest(request.method, request.raw_path, headers, peer, lambda: read_body(request, self.settings))
        )
        return _response(answer.status, answer.body, answer.content_type, answer.headers)


async def read_body(request: web.BaseRequest, settings: ApplicationServerSettings) -> bytes:
    """Return the body; raise `ProblemError` if it is too large or arrives too slowly."""
    limit = settings.max_request_body_size
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.read_timeout or math.inf):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ProblemError(408, "the body did not arrive in time", headers=(("Connection", "close"),)) from None
    except web.PayloadAccessError as error:
        raise ProblemError(400, f"the body cannot be read: {error}") from None
    return bytes(body)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {limit} bytes", headers=(("Connection", "close"),))


def _response(status: int, body: bytes, content_type: str, headers: tuple[tuple[str, str], ...]) -> web.Response:
    response = web.Response(status=status, body=body or None, headers={"Server": "otelwp-agent"})
    if body:
        response.headers["Content-Type"] = content_type
    for name, value in headers:
        response.headers[name] = value
    return response
