"""Serve OpAMP over HTTP and WebSocket (aiohttp)."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.admin.server import SHUTDOWN_GRACE, ApplicationServer, read_body
from otelwp_agent.codecs.opamp.framing import frame, unframe
from otelwp_agent.codecs.opamp.replies import error_reply
from otelwp_agent.errors import ConsumeError, InternalError, MalformedError, PermanentError, TooLargeError
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.compression import compress, decompress
from otelwp_agent.transport.gate import http_certificate
from otelwp_agent.transport.http_messages import PROTOBUF

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.admin.settings import ApplicationServerSettings
    from otelwp_agent.extensions.opamp_server.exchange import AgentKey, OpampExchange, OpampReply
    from otelwp_agent.transport.gate import Caller, Gate

PATHS = ("/v1/opamp", "/api/v1/opamp")
"""Paths that are served; the first one is that of the specification."""
PING_INTERVAL = 30.0
"""Seconds between two pings of an idle WebSocket; without an answer, it is closed after half of this time."""
MAX_INVALID = 10
"""Messages of one WebSocket that may be refused as invalid; then it is closed."""
_ENCODINGS = frozenset({"", "gzip", "zstd", "deflate", "zlib"})
_WORTH = 1024
"""Bytes from which on a reply is compressed."""
_INTERNAL = "internal error; the log of the collector has the details"


class OpampServer(ApplicationServer):
    """Answers agents. It calls `count(transport)` for accepted messages, `refused(transport, reason)` for others."""

    def __init__(  # noqa: PLR0913 - the parts
        self,
        settings: ApplicationServerSettings,
        exchange: OpampExchange,
        gate: Gate,
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        count: Callable[[str], None],
        refused: Callable[[str, str], None],
    ) -> None:
        """Serve OpAMP: `gate` authenticates each agent, and `exchange` makes the replies to its messages."""
        super().__init__(settings, self._serve, name=name, log=log)
        self._exchange = exchange
        self._gate = gate
        self._count = count
        self._refused = refused
        self.connected: dict[AgentKey, web.WebSocketResponse] = {}
        """The WebSockets of agents that have reported."""
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport | None] = {}

    async def shutdown(self) -> None:
        """Stop listening, close the WebSockets, and finish the requests in progress."""
        self._listeners.close()
        closing = [
            socket.close(code=WSCloseCode.GOING_AWAY, message=b"the collector is stopping")
            for socket in tuple(self._sockets)
        ]
        await asyncio.gather(*closing, return_exceptions=True)
        await super().shutdown()
        await self._exchange.drain()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        is_socket = request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"
        try:
            if request.path not in PATHS:
                text = f"nothing is served at this path: send to {PATHS[0]}\n"
                self._refused("http", "not_found")
                return web.Response(status=404, text=text)
            if request.method != "POST" and not is_socket:
                self._refused("http", "method")
                text = "send a POST request with a message of OpAMP, or open a WebSocket\n"
                return web.Response(status=405, text=text, headers={"Allow": "GET, POST"})
            return await (self._serve_socket(request) if is_socket else self._serve_post(request))
        except ConsumeError as error:
            self._refused("websocket" if is_socket else "http", error.reason)
            return _refusal(error)

    # -- HTTP

    async def _serve_post(self, request: web.BaseRequest) -> web.StreamResponse:
        caller = self._enter(request)
        tenant = self._exchange.admit(caller.client)
        if request.content_type != PROTOBUF:
            raise PermanentError(f"`Content-Type` must be {PROTOBUF}", reason="media_type")
        try:
            body = await read_body(request, self.settings)
        except ProblemError as error:
            kind = TooLargeError if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else MalformedError
            raise kind(error.detail) from None
        encoding = request.headers.get("Content-Encoding", "")
        if encoding:
            body = decompress(encoding, body, self.settings.max_request_body_size, _ENCODINGS)
        message = await self._answer(caller, tenant, body, "http")
        headers = {"Content-Type": PROTOBUF}
        if "gzip" in request.headers.get("Accept-Encoding", "").lower() and len(message.message) > _WORTH:
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=compress("gzip", message.message), headers=headers)
        return web.Response(body=message.message, headers=headers)

    # -- WebSocket

    async def _serve_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        tenant = self._exchange.admit(self._enter(request).client)
        socket = web.WebSocketResponse(
            timeout=SHUTDOWN_GRACE,
            heartbeat=PING_INTERVAL,
            max_msg_size=self.settings.max_request_body_size,
            compress=False,
        )
        await socket.prepare(request)
        self._sockets[socket] = request.transport
        agent: AgentKey | None = None
        invalid = 0
        try:
            async for received in socket:
                if received.type is not WSMsgType.BINARY:
                    error: ConsumeError = MalformedError("send binary messages: a header and an AgentToServer message")
                else:
                    try:
                        agent = await self._answer_socket(request, socket, tenant, received.data, agent)
                        continue
                    except ConsumeError as raised:
                        error = raised
                invalid += 1
                self._refused("websocket", error.reason)
                await socket.send_bytes(frame(_error_reply(error)))
                if statuses.retry_after(error) is not None:
                    await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
                elif invalid >= MAX_INVALID or not isinstance(error, MalformedError):
                    await socket.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            self._sockets.pop(socket, None)
            if agent is not None and self.connected.get(agent) is socket:
                del self.connected[agent]
        return socket

    async def _answer_socket(
        self,
        request: web.BaseRequest,
        socket: web.WebSocketResponse,
        tenant: str,
        data: bytes,
        agent: AgentKey | None,
    ) -> AgentKey | None:
        """Answer a message of a WebSocket; return its agent. The credential is checked again: it may be revoked."""
        caller = self._enter(request)
        if self._exchange.admit(caller.client) != tenant:
            raise PermanentError("the tenant of this credential has changed: connect again", reason="tenant")
        found = await self._answer(caller, tenant, unframe(data), "websocket")
        if agent is not None and agent != found.agent and self.connected.get(agent) is socket:
            del self.connected[agent]
        self._replace(self.connected.get(found.agent), socket)
        self.connected[found.agent] = socket
        await socket.send_bytes(frame(found.message))
        return found.agent

    def _replace(self, other: web.WebSocketResponse | None, socket: web.WebSocketResponse) -> None:
        """Close another WebSocket of the same agent: its connection may be lost, which the ping finds out later."""
        transport = None if other is None or other is socket else self._sockets.get(other)
        if transport is not None:
            transport.abort()

    # -- both

    def _enter(self, request: web.BaseRequest) -> Caller:
        """Return the sender of a request; raise `ConsumeError`."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        transport = request.transport
        certificate = None if transport is None else transport.get_extra_info("ssl_object")
        return self._gate.enter_call(headers, request.remote or "", lambda: http_certificate(certificate), PATHS[0])

    async def _answer(self, caller: Caller, tenant: str, body: bytes, transport: str) -> OpampReply:
        """Answer one message within the limits of its sender; raise `ConsumeError`."""
        allowance = caller.allowance
        if allowance is not None and (refusal := self._gate.begin(allowance)) is not None:
            raise refusal
        try:
            found = await self._exchange.answer(tenant, body)
        except ConsumeError:
            raise
        except Exception as error:
            self.log.exception("report of an agent failed", server=self.name)
            raise InternalError(_INTERNAL) from error
        finally:
            if allowance is not None:
                allowance.end()
        self._count(transport)
        return found


def _error_reply(error: ConsumeError) -> bytes:
    return error_reply(statuses.http_status(error), str(error), statuses.retry_after(error))


def _refusal(error: ConsumeError) -> web.Response:
    """Return the HTTP response to a message that is refused."""
    status = statuses.http_status(error)
    response = web.Response(status=status, body=_error_reply(error), headers={"Content-Type": PROTOBUF})
    for name, value in statuses.response_headers(error):
        response.headers[name] = value
    return response
