"""Control socket: a unix socket on which the agent answers `otelwp-agent audit`, `dead-letter` and other commands.

The protocol is HTTP/1.1 with JSON requests and answers. Only the user that the agent runs as can connect (mode 0600);
a client that can connect may use everything that is served.
"""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.config.blocks import HttpServer as Settings
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import AgentError, ConsumeError, MalformedError, StartError
from otelwp_agent.transport.http_messages import JSON, Request, Response, Route
from otelwp_agent.transport.http_server import HttpServer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import structlog

    Handler = Callable[[Request], Response | asyncio.Future[Response]]

SETTING = "service.control_socket"
"""Setting with the path, named in messages."""

_MODE = "0600"
_MAX_BODY = 4 * 2**20
"""Largest request body in bytes: enough for a request to resend 250,000 letters by their ids."""


class Control:
    """Serves handlers on a unix socket. Handlers are kept across reloads: they must look up the current graph."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        """Create it without handlers; `listen` opens the socket."""
        self.path: str | None = None
        """Path that it listens on; `None` if it does not listen."""
        self._log = log
        self._routes: dict[str, Route] = {}
        self._server: HttpServer | None = None

    def add(self, path: str, handler: Handler, methods: tuple[str, ...] = ("POST",)) -> None:
        """Serve `handler` at `path`. It raises `ConsumeError` to refuse a request, `AgentError` if it fails."""

        def guarded(request: Request) -> Response | asyncio.Future[Response]:
            try:
                return handler(request)
            except ConsumeError:
                raise
            except AgentError as error:
                return refusal(str(error), HTTPStatus.SERVICE_UNAVAILABLE)

        self._routes[path] = Route(guarded, methods)

    def handler(self, path: str) -> Handler | None:
        """Return the handler that was added for `path`, or `None`."""
        route = self._routes.get(path)
        return None if route is None else route.handler

    async def listen(self, path: str | None) -> None:
        """Listen at `path` instead of the previous path; `None` stops listening.

        Raises `StartError` if that fails; then nothing has changed.
        """
        if path == self.path:
            return
        server = None if path is None else await self._open(path)
        before, self._server, self.path = self._server, server, path
        if before is not None:
            await before.shutdown(grace=1.0)

    async def shutdown(self) -> None:
        """Finish current requests and stop listening."""
        await self.listen(None)

    async def _open(self, path: str) -> HttpServer:
        with contextlib.suppress(OSError):  # `start` reports the problem better
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = Settings(
            endpoint=Endpoint(f"unix://{path}"),
            unix_mode=_MODE,
            max_request_body_size=_MAX_BODY,
            max_connections=16,
        )
        server = HttpServer(settings, self._routes, name="control", log=self._log)
        try:
            await server.start()
        except StartError as error:
            raise StartError(f"{error}. Change {SETTING}, or set it to `none`") from error
        return server


def answer(data: Any, status: int = HTTPStatus.OK) -> Response:  # noqa: ANN401 - plain data
    """Return `data` as a JSON response."""
    return Response(status, orjson.dumps(data), JSON)


def refusal(message: str, status: int) -> Response:
    """Return a JSON response with an error message."""
    return answer({"error": message}, status)


def json_body(request: Request) -> dict[str, Any]:
    """Return the body of a request as a JSON object; raise `MalformedError` if it is none."""
    try:
        data = orjson.loads(request.body or b"{}")
    except ValueError as error:
        raise MalformedError(f"the body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise MalformedError("the body is not a JSON object")
    return data
