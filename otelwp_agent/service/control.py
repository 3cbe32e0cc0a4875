"""The control socket: a unix socket on which the agent answers `otelwp-agent audit`, `dead-letter` and others.

HTTP/1.1 with JSON both ways. Only the user that the agent runs as may connect (mode 0600); whoever can, may ask for
anything that is served here.
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
"""Where the path is configured; messages name it."""

_MODE = "0600"
_MAX_BODY = 4 * 2**20
"""A request to resend 250 000 letters by their ids."""


class Control:
    """Serves what was added, at a unix socket. Handlers outlive reloads: have them look up what runs now."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        """Serve nothing yet."""
        self.path: str | None = None
        """Where it listens, `None` if it does not."""
        self._log = log
        self._routes: dict[str, Route] = {}
        self._server: HttpServer | None = None

    def add(self, path: str, handler: Handler, methods: tuple[str, ...] = ("POST",)) -> None:
        """Serve `handler` at `path`. It raises `ConsumeError` to refuse, `AgentError` for what cannot be now."""

        def guarded(request: Request) -> Response | asyncio.Future[Response]:
            try:
                return handler(request)
            except ConsumeError:
                raise
            except AgentError as error:
                return refusal(str(error), HTTPStatus.SERVICE_UNAVAILABLE)

        self._routes[path] = Route(guarded, methods)

    async def listen(self, path: str | None) -> None:
        """Listen at `path` and no longer where it did; `None` is nowhere. Raises `StartError`, changing nothing."""
        if path == self.path:
            return
        server = None if path is None else await self._open(path)
        before, self._server, self.path = self._server, server, path
        if before is not None:
            await before.shutdown(grace=1.0)

    async def shutdown(self) -> None:
        """Answer what is being asked, and stop listening."""
        await self.listen(None)

    async def _open(self, path: str) -> HttpServer:
        with contextlib.suppress(OSError):  # `start` says better what is wrong
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
    """Return an answer in JSON."""
    return Response(status, orjson.dumps(data), JSON)


def refusal(message: str, status: int) -> Response:
    """Return an answer that says why not."""
    return answer({"error": message}, status)


def asked(request: Request) -> dict[str, Any]:
    """Return what a request's body says; raise `MalformedError` if that is no JSON object."""
    try:
        data = orjson.loads(request.body or b"{}")
    except ValueError as error:
        raise MalformedError(f"this is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise MalformedError("this is no JSON object")
    return data
