"""The HTTP/1.1 front that every HTTP receiver stands on: httptools parses, uvloop carries, routes decide.

Two ways in. Keep-alive senders repeat the same head byte for byte, so a head that llhttp has once accepted is
remembered with what it means, and the next request that begins with these bytes goes to its handler without being
parsed again (docs/adr/0003). Everything else (chunked bodies, `Expect`, a head cut across packets) takes the parser.

Invariants:

* Responses leave in the order of their requests; while one waits for its outcome, the connection is not read.
* A connection is at a message boundary, or collecting a body whose head is known, or inside the parser.
* Whatever a client sends, its own connection is the only thing that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import deque
from typing import TYPE_CHECKING

import httptools

from otelwp_agent.errors import ConsumeError, StartError, TooLargeError
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.http_messages import Head, Request, Response, Route, text_error
from otelwp_agent.transport.listen import listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.tls import ServerTls

MAX_HEAD = 64 * 1024
"""Bytes of a request's head; more is answered 431."""
REMEMBERED_HEADS = 1024
"""Heads kept per server; then the memory starts anew."""
MAX_REMEMBERED_HEAD = 4096
"""Bytes of the longest head worth keeping."""
SWEEP = 0.5
"""Seconds between looks for connections whose time is up; also the precision of every timeout."""
LINGER = 2.0
"""Seconds for which a refused sender may go on sending, so that it gets to read why."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_END = b"\r\n"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Plan:
    """What to do with a request, known from its head alone."""

    __slots__ = ("extra", "head", "keep_alive", "length", "route")

    def __init__(self, head: Head, route: Route | Response, length: int, *, keep_alive: bool, extra: bytes) -> None:
        self.head = head
        self.route = route
        self.length = length
        self.keep_alive = keep_alive
        self.extra = extra


class HttpServer:
    """Serves `routes` (path → `Route`) as `settings` say. `on_refused(reason)` is told of every request refused here.

    `name` is the component's, for messages. A server that starts on an address which a server of the same name already
    serves in this process shares its socket, and inherits its connections when that one shuts down: so a reload refuses
    nobody.
    """

    _serving: dict[str, HttpServer] = {}  # noqa: RUF012 - by address, for the whole process, on purpose

    def __init__(
        self,
        settings: blocks.HttpServer,
        routes: Mapping[str, Route],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        on_refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.settings = settings
        self.routes = routes
        self.name = name
        self.log = log
        self.on_refused = on_refused
        self.port = 0
        self.plans: dict[bytes, _Plan] = {}
        self.connections: set[_Connection] = set()
        self.limit = settings.max_request_body_size
        self.encodings = frozenset(settings.compression_algorithms)
        self.header_timeout = settings.read_header_timeout or settings.read_timeout or float("inf")
        self.body_timeout = settings.read_timeout or float("inf")
        self.write_timeout = settings.write_timeout or float("inf")
        self.idle_timeout = settings.idle_timeout or settings.read_timeout or float("inf")
        self.now = time.monotonic()
        self.draining = False
        self.prefix = b""
        self._extra = "".join(f"{name}: {value}\r\n" for name, value in settings.response_headers.items())
        self._origins = _origin_pattern(settings.cors)
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._tls: ServerTls | None = None
        self._successor: HttpServer | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls_checked = self.now

    @property
    def address(self) -> str:
        """What it listens on: `host:port` with the port it got, or the unix path."""
        endpoint = self.settings.endpoint
        return f"unix://{endpoint.unix}" if endpoint.unix else f"{endpoint.host or '*'}:{self.port}"

    async def start(self) -> None:
        """Listen; raise `StartError` with nothing left open."""
        settings, key = self.settings, str(self.settings.endpoint)
        if settings.endpoint.port == 0:
            key = f"{key}#{self.name}"  # any port will do: no two components mean the same one
        if settings.tls is not None:
            from otelwp_agent.transport.tls import ServerTls  # noqa: PLC0415 - only who serves TLS pays for it

            self._tls = ServerTls(settings.tls)
        before = self._serving.get(key)
        if before is not None and before._socket is not None:
            if before.name != self.name:
                raise StartError(f"{self.name}: cannot listen on {key}: {before.name} already does; give one another")
            self._socket = before._socket.dup()
            before._successor = self
        else:
            self._socket = listen(
                settings.endpoint,
                name=self.name,
                backlog=settings.backlog,
                unix_mode=settings.unix_mode,
                unix_group=settings.unix_group,
            )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self),
            sock=self._socket.dup(),
            backlog=settings.backlog,
            ssl=self._tls.context if self._tls is not None else None,
        )
        if not settings.endpoint.unix:
            self.port = self._socket.getsockname()[1]
        self._serving[key] = self
        self._sweep()

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop listening, answer what has begun to arrive for at most `grace` seconds, and close every connection.

        When a successor has taken over the address, connections go to it instead, open as they are.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for key in [key for key, value in self._serving.items() if value is self]:
            del self._serving[key]
        endpoint, successor = self.settings.endpoint, self._successor
        if self._socket is not None:
            self._socket.close()
        if successor is not None and successor._server is not None:  # noqa: SLF001 - the same class
            for connection in self.connections:
                connection.server = successor
            successor.connections |= self.connections
            self.connections.clear()
            return
        if endpoint.unix:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(endpoint.unix)  # noqa: PTH108 - beside the bind that made it
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        deadline = time.monotonic() + grace
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate."""
        if self._tls is not None:
            self._tls.reload()

    def plan(self, method: str, target: str, headers: dict[str, str], *, keep_alive: bool) -> _Plan:
        """Work out what a head means."""
        head = Head(method, target, headers)
        found = self.routes.get(head.path)
        extra = b"" if self._origins is None else self._cors(headers)
        route: Route | Response
        if found is None:
            route = text_error(404, f"nothing is served at this path; there is: {', '.join(sorted(self.routes))}")
        elif method == "OPTIONS" and extra:
            route = Response(204, headers=self._preflight(headers, found))
        elif method not in found.methods:
            allow = ", ".join(found.methods)
            message = f"this path takes {allow}, not {method}"
            route = text_error(405, message, (("Allow", allow),))
        else:
            route = found
        length = int(headers.get("content-length", "0"))
        return _Plan(
            head,
            route,
            length,
            keep_alive=keep_alive and self.settings.keep_alives_enabled,
            extra=extra,
        )

    def remember(self, raw: bytes, plan: _Plan) -> None:
        """Keep what a head means, for the next request that begins with it."""
        if len(self.plans) >= REMEMBERED_HEADS:
            self.plans.clear()
        self.plans[raw] = plan

    def respond(self, plan: _Plan, body: bytes, peer: str) -> Response | asyncio.Future[Response]:
        """Return the answer to a whole request, or its future."""
        route = plan.route
        if isinstance(route, Response):
            self.on_refused("not_found" if route.status == 404 else "method")  # noqa: PLR2004
            return route
        head = plan.head
        try:
            if head.encoding:
                body = decompress(head.encoding, body, self.limit, self.encodings)
            return route.handler(Request(head, body, peer))
        except ConsumeError as error:
            return self.refusal(plan, error)
        except Exception:
            self.log.exception("request failed", server=self.name, path=head.path)
            self.on_refused("internal")
            return text_error(500, "internal error; the agent's log has the details")

    def refusal(self, plan: _Plan, error: ConsumeError, status: int = 0) -> Response:
        """Return the answer that says `error`, in the route's own way."""
        self.on_refused(error.reason)
        status = status or statuses.http_status(error)
        if isinstance(plan.route, Route) and plan.route.render_error is not None:
            return plan.route.render_error(plan.head, status, error)
        wait = statuses.retry_after(error)
        headers = (("Retry-After", statuses.retry_after_header(wait)),) if wait is not None else ()
        return text_error(status, str(error), headers)

    def _sweep(self) -> None:
        """Tell the time, refresh the Date header, close connections whose time is up, look at the certificate."""
        self.now = now = time.monotonic()
        self.prefix = f"Date: {_imf_date(time.gmtime())}\r\n{self._extra}".encode("latin-1")
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.time_is_up()
        tls = self.settings.tls
        if tls is not None and tls.reload_interval and now - self._tls_checked >= tls.reload_interval:
            self._tls_checked = now
            self._reload_tls_if_changed()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _reload_tls_if_changed(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self._tls.reload()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.error("certificate not reloaded; the old one stays", server=self.name, error=str(error))

    def _cors(self, headers: Mapping[str, str]) -> bytes:
        """Return the CORS headers for a request's origin, or nothing if it is not allowed."""
        origin, cors = headers.get("origin", ""), self.settings.cors
        if cors is None or self._origins is None or not origin or not self._origins.fullmatch(origin):
            return b""
        lines = f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n"
        if cors.exposed_headers:
            lines += f"Access-Control-Expose-Headers: {', '.join(cors.exposed_headers)}\r\n"
        return lines.encode("latin-1")

    def _preflight(self, headers: Mapping[str, str], route: Route) -> tuple[tuple[str, str], ...]:
        """Return what a browser wants to know before it sends (Fetch standard, CORS preflight)."""
        cors = self.settings.cors
        allowed = ["Accept", "Content-Type", "Content-Encoding", "X-Requested-With"]
        if cors is not None:
            allowed += cors.allowed_headers
            if "*" in cors.allowed_headers:
                allowed = [headers.get("access-control-request-headers", "*")]
        answer = [("Access-Control-Allow-Methods", ", ".join(route.methods))]
        answer.append(("Access-Control-Allow-Headers", ", ".join(allowed)))
        if cors is not None and cors.max_age:
            answer.append(("Access-Control-Max-Age", str(cors.max_age)))
        return tuple(answer)


class _Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_backlog",
        "_chunks",
        "_closing",
        "_fields",
        "_head_bytes",
        "_in_message",
        "_missing",
        "_parser",
        "_plan",
        "_queue",
        "_raw_head",
        "_refused",
        "_size",
        "_target",
        "_waiting",
        "deadline",
        "peer",
        "server",
        "transport",
    )

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.deadline = float("inf")
        self.peer = ""
        self._parser: httptools.HttpRequestParser | None = None
        self._in_message = False  # inside the parser's message
        self._plan: _Plan | None = None
        self._chunks: list[bytes] = []
        self._missing = 0  # bytes of a body whose head was remembered
        self._size = 0
        self._head_bytes = 0
        self._raw_head: bytes | None = None
        self._refused: Response | None = None
        self._waiting: asyncio.Future[Response] | None = None
        self._queue: deque[tuple[_Plan, bytes | Response]] = deque()
        self._backlog = b""
        self._closing = False  # nothing more is read as requests

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        server = self.server
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        server.connections.add(self)
        self.deadline = server.now + server.idle_timeout
        if len(server.connections) > server.settings.max_connections:
            server.on_refused("connections")
            self._last_word(text_error(503, "too many connections", (("Retry-After", "1"),)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self.server.connections.discard(self)
        self._closing = True
        self._queue.clear()
        self._chunks = []

    def pause_writing(self) -> None:
        """Wait for a client that does not read; for no longer than `write_timeout`."""
        self.transport.pause_reading()
        self.deadline = self.server.now + self.server.write_timeout

    def resume_writing(self) -> None:
        if self._waiting is None:
            self.transport.resume_reading()
        self._touch()

    def eof_received(self) -> bool:
        """Go on writing if an answer is still owed: a client may close its side as soon as it has sent."""
        return self._waiting is not None and not self._closing and self.server.settings.tls is None

    def data_received(self, data: bytes) -> None:
        while data:
            if self._closing:
                return
            if self._missing:
                data = self._collect(data)
            elif self._waiting is not None:
                self._backlog += data
                return
            elif self._in_message:
                self._feed(data)
                return
            else:
                data = self._begin(data)

    # -- a request whose head may be remembered

    def _begin(self, data: bytes) -> bytes:
        """Begin a request at a message boundary; return what is left of `data`."""
        end = data.find(b"\r\n\r\n") + 4
        server = self.server
        if end < 4:  # noqa: PLR2004 - not found
            self._raw_head = None
            self._feed(data)
            return b""
        head = data[:end]
        plan = server.plans.get(head)
        if plan is None:
            self._raw_head = head if end <= MAX_REMEMBERED_HEAD else None
            self._feed(data)
            return b""
        if not self._admit(plan):
            if not plan.length:
                self._finish(plan, b"")
                return data[end:]
            self._plan, self._missing, self._chunks = plan, plan.length, []
            self.deadline = server.now + server.body_timeout
            return self._collect(data[end:])
        stop = end + plan.length
        if len(data) >= stop:
            self._finish(plan, data[end:stop])
            return data[stop:]
        self._plan, self._missing = plan, stop - len(data)
        self._chunks = [data[end:]]
        self.deadline = server.now + server.body_timeout
        return b""

    def _collect(self, data: bytes) -> bytes:
        """Add to a body whose length is known; return what is left of `data`."""
        missing, plan = self._missing, self._plan
        assert plan is not None  # noqa: S101 - a length is known from a head
        if len(data) < missing:
            self._missing = missing - len(data)
            if self._refused is None:
                self._chunks.append(data)
            return b""
        self._missing = 0
        if self._refused is None:
            self._chunks.append(data if len(data) == missing else data[:missing])
        chunks, self._chunks, self._plan = self._chunks, [], None
        self._finish(plan, b"".join(chunks))
        return data[missing:]

    # -- a request that goes through the parser

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        if not self._in_message:
            self._head_bytes = 0
            self.deadline = self.server.now + self.server.header_timeout
        if self._plan is None:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._expect_no_more()
        except httptools.HttpParserCallbackError:
            self.server.log.exception("request failed", server=self.server.name)
            self._last_word(text_error(500, "internal error; the agent's log has the details"))
        except httptools.HttpParserError as error:
            if not self._closing:
                self.server.on_refused("malformed_http")
                self._last_word(text_error(400, f"this is not HTTP/1.1: {error}"))
        else:
            if self._in_message and self._plan is None and self._head_bytes > MAX_HEAD:
                self.server.on_refused("head_too_large")
                self._last_word(text_error(431, f"the request's head is larger than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        self._in_message = True
        self._target = b""
        self._fields: dict[str, str] = {}
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields = self._fields
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        parser, server = self._parser, self.server
        if parser is None or self._closing:
            return
        fields = self._fields
        plan = server.plan(
            parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            fields,
            keep_alive=parser.should_keep_alive(),
        )
        self._plan = plan
        self.deadline = server.now + server.body_timeout
        expects = "expect" in fields
        if plan.length > server.limit:
            error = TooLargeError(f"the body has {plan.length} bytes; {server.limit} are taken at most")
            self._last_word(server.refusal(plan, error), plan.extra)
            return
        admitted = self._admit(plan)
        if expects:
            if fields["expect"].lower() != "100-continue":
                self._last_word(text_error(417, "the only expectation known here is 100-continue"))
            elif admitted and isinstance(plan.route, Route):
                self.transport.write(_CONTINUE)
            else:
                refused = self._refused or server.respond(plan, b"", self.peer)
                assert isinstance(refused, Response)  # noqa: S101 - a plan without a route is a Response
                self._last_word(refused, plan.extra)
            return
        raw, self._raw_head = self._raw_head, None
        if raw is not None and not {"transfer-encoding", "upgrade"} & fields.keys():
            server.remember(raw, plan)

    def on_body(self, chunk: bytes) -> None:
        if self._closing or self._refused is not None:
            return
        self._size += len(chunk)
        if self._size > self.server.limit and self._plan is not None:
            error = TooLargeError(f"the body is larger than {self.server.limit} bytes")
            self._last_word(self.server.refusal(self._plan, error), self._plan.extra)
            return
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self._in_message = False
        plan, self._plan = self._plan, None
        chunks, self._chunks = self._chunks, []
        if plan is not None and not self._closing:
            self._finish(plan, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    # -- answers

    def _admit(self, plan: _Plan) -> bool:
        """Ask the route whether it takes anything now, before a body is read."""
        route = plan.route
        if isinstance(route, Route) and route.admit is not None:
            try:
                route.admit()
            except ConsumeError as error:
                self._refused = self.server.refusal(plan, error)
                return False
        return True

    def _finish(self, plan: _Plan, body: bytes) -> None:
        """Answer a request that has arrived whole, or put it behind the one that waits."""
        refused, self._refused = self._refused, None
        if self._waiting is not None:
            self._queue.append((plan, body if refused is None else refused))
            return
        answer = refused or self.server.respond(plan, body, self.peer)
        if isinstance(answer, Response):
            self._write(plan, answer)
        else:
            self._wait(plan, answer)

    def _wait(self, plan: _Plan, answer: asyncio.Future[Response]) -> None:
        self._waiting = answer
        self.deadline = float("inf")
        self.transport.pause_reading()
        answer.add_done_callback(lambda done: self._outcome(plan, done))

    def _outcome(self, plan: _Plan, answer: asyncio.Future[Response]) -> None:
        """Send an answer that was waited for, then go on with what has arrived meanwhile."""
        self._waiting = None
        if self._closing:
            return
        if answer.cancelled() or answer.exception() is not None:
            self._write(plan, text_error(500, "internal error; the agent's log has the details"))
        else:
            self._write(plan, answer.result())
        while self._queue and self._waiting is None and not self._closing:
            next_plan, body = self._queue.popleft()
            reply = body if isinstance(body, Response) else self.server.respond(next_plan, body, self.peer)
            if isinstance(reply, Response):
                self._write(next_plan, reply)
            else:
                self._wait(next_plan, reply)
        if self._waiting is None and not self._closing:
            backlog, self._backlog = self._backlog, b""
            self.transport.resume_reading()
            if backlog:
                self.data_received(backlog)

    def _write(self, plan: _Plan, response: Response) -> None:
        server = self.server
        body = b"" if plan.head.method == "HEAD" else response.body
        if plan.keep_alive and not server.draining:
            self.transport.write(b"".join((response.start, server.prefix, plan.extra, response.rest, _END, body)))
            self.deadline = server.now + server.idle_timeout
        else:
            self.transport.write(b"".join((response.start, server.prefix, plan.extra, response.rest, _CLOSE, body)))
            self._closing = True
            self.transport.close()

    def _last_word(self, response: Response, extra: bytes = b"") -> None:
        """Answer before the request has arrived whole, and close once the client has had time to read it."""
        self._closing = True
        self._chunks = []
        transport, server = self.transport, self.server
        transport.write(b"".join((response.start, server.prefix, extra, response.rest, _CLOSE, response.body)))
        if transport.can_write_eof():
            transport.write_eof()
        self.deadline = server.now + LINGER

    def _expect_no_more(self) -> None:
        """Close after the answer to a request that wants another protocol: there is none."""
        if not self._closing:
            self._closing = True
            self.transport.close()

    def _touch(self) -> None:
        if not self._in_message and not self._missing:
            self.deadline = self.server.now + self.server.idle_timeout

    def time_is_up(self) -> None:
        """Close a connection that was silent, or slow, for too long."""
        if self._closing or self.transport.get_write_buffer_size():
            self.abort()
            return
        if not (self._in_message or self._missing):
            self.transport.close()
            return
        self.server.on_refused("timeout")
        what = "body" if self._plan is not None else "headers"
        self._last_word(text_error(408, f"the request's {what} did not arrive in time"))

    def drain(self) -> None:
        """Close now if nothing is under way; otherwise after the answer."""
        if not (self._in_message or self._missing or self._waiting is not None or self._queue):
            self._closing = True
            self.transport.close()

    def abort(self) -> None:
        """Close without another word."""
        self.transport.abort()


def _imf_date(at: time.struct_time) -> str:
    """Return a date as RFC 9110, 5.6.7 has it: in English, whatever the locale."""
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


def _origin_pattern(cors: blocks.Cors | None) -> re.Pattern[str] | None:
    if cors is None or not cors.allowed_origins:
        return None
    return re.compile("|".join(re.escape(origin).replace(r"\*", ".*") for origin in cors.allowed_origins))
