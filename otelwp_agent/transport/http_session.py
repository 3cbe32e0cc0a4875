"""One client of the HTTP/1.1 front: what has arrived, what is owed, and until when.

Two ways in. Keep-alive senders repeat the same head byte for byte, so a head that llhttp has once accepted is
remembered with what it means, and the next request that begins with these bytes goes to its handler without being
parsed again (docs/adr/0003). Everything else (chunked bodies, `Expect`, a head cut across packets) takes the parser.

Invariants:

* Responses leave in the order of their requests; while one waits for its outcome, the connection is not read.
* A session is at a message boundary, or collecting a body whose head is known, or inside the parser.
* Whatever a client sends, its own session is the only thing that ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import httptools

from otelwp_agent.errors import ConsumeError, TooLargeError
from otelwp_agent.transport.http_messages import Head, Response, Route, text_error

if TYPE_CHECKING:
    from otelwp_agent.transport.http_server import HttpServer

MAX_HEAD = 64 * 1024
"""Bytes of a request's head; more is answered 431."""
MAX_REMEMBERED_HEAD = 4096
"""Bytes of the longest head worth keeping."""
MAX_BACKLOG = 64 * 1024
"""Bytes that are read ahead of an answer that is waited for."""
LINGER = 2.0
"""Seconds for which a refused sender may go on sending, so that it gets to read why."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_END = b"\r\n"


class Plan:
    """What to do with a request, known from its head alone."""

    __slots__ = ("extra", "head", "keep_alive", "length", "route")

    def __init__(self, head: Head, route: Route | Response, length: int, *, keep_alive: bool, extra: bytes) -> None:
        self.head = head
        self.route = route
        self.length = length
        self.keep_alive = keep_alive
        self.extra = extra


class Session(asyncio.BufferedProtocol):
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
        "_paused",
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
        self._plan: Plan | None = None
        self._chunks: list[bytes] = []
        self._missing = 0  # bytes of a body whose head was remembered
        self._size = 0
        self._head_bytes = 0
        self._raw_head: bytes | None = None
        self._refused: Response | None = None
        self._waiting: asyncio.Future[Response] | None = None
        self._queue: deque[tuple[Plan, bytes | Response]] = deque()
        self._backlog = b""
        self._paused = False  # nothing is read
        self._closing = False  # nothing more is read as requests

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the server's sessions, or be turned away."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        server = self.server
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        server.sessions.add(self)
        self.deadline = server.now + server.idle_timeout
        if len(server.sessions) > server.settings.max_connections:
            server.on_refused("connections")
            # Where a page waits for the answer, nobody is told to come back.
            wait = (("Retry-After", "1"),) if server.drops is None else ()
            self._last_word(text_error(503, "too many connections", wait))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Forget everything: nobody is there to be answered."""
        self.server.session_ended(self)
        self._closing = True
        self._queue.clear()
        self._chunks = []

    def pause_writing(self) -> None:
        """Wait for a client that does not read; for no longer than `write_timeout`."""
        self._pause()
        self.deadline = self.server.now + self.server.write_timeout

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        if self._waiting is None:
            self._resume()
        self._touch()

    def eof_received(self) -> bool:
        """Go on writing if an answer is still owed: a client may close its side as soon as it has sent."""
        return self._waiting is not None and not self._closing and self.server.settings.tls is None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        """Return where to read to: all sessions share one buffer, for nothing stays in it from one read to the next."""
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived: a whole request whose head is remembered straight from the buffer, with one copy."""
        server = self.server
        buffer = server.buffer
        if not (self._in_message or self._missing or self._closing or self._waiting is not None):
            end = server.memory.find(b"\r\n\r\n", 0, nbytes) + 4
            plan = server.plans.get(bytes(buffer[:end]))
            if plan is not None and end + plan.length == nbytes:
                self._finish(plan, bytes(buffer[end:nbytes]) if self._admit(plan) else b"")
                return
        self.data_received(bytes(buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take what has arrived to where it belongs."""
        while data:
            if self._closing:
                return
            if self._missing:
                data = self._collect(data)
            elif self._waiting is not None:
                self._backlog += data
                if len(self._backlog) > MAX_BACKLOG:
                    self._pause()
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
        """Begin a message; the parser calls this, and what follows."""
        self._in_message = True
        self._target = b""
        self._fields: dict[str, str] = {}
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Add to the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields = self._fields
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        """Decide from the head what becomes of the message."""
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
        """Add to the body, up to the limit."""
        if self._closing or self._refused is not None:
            return
        self._size += len(chunk)
        if self._size > self.server.limit and self._plan is not None:
            error = TooLargeError(f"the body is larger than {self.server.limit} bytes")
            self._last_word(self.server.refusal(self._plan, error), self._plan.extra)
            return
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Answer."""
        self._in_message = False
        plan, self._plan = self._plan, None
        chunks, self._chunks = self._chunks, []
        if plan is not None and not self._closing:
            self._finish(plan, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    # -- answers

    def _admit(self, plan: Plan) -> bool:
        """Ask the route whether it takes anything now, before a body is read."""
        route = plan.route
        if isinstance(route, Route) and route.admit is not None:
            try:
                route.admit()
            except ConsumeError as error:
                self._refused = self.server.refusal(plan, error)
                return False
        return True

    def _finish(self, plan: Plan, body: bytes) -> None:
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

    def _wait(self, plan: Plan, answer: asyncio.Future[Response]) -> None:
        self._waiting = answer
        self.deadline = float("inf")
        answer.add_done_callback(lambda done: self._outcome(plan, done))

    def _pause(self) -> None:
        self._paused = True
        self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _outcome(self, plan: Plan, answer: asyncio.Future[Response]) -> None:
        """Send an answer that was waited for, then go on with what has arrived meanwhile."""
        self._waiting = None
        if self._closing:
            return
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, ConsumeError):
            self._write(plan, self.server.refusal(plan, error))
        elif answer.cancelled() or error is not None:
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
            self._resume()
            if backlog:
                self.data_received(backlog)

    def _write(self, plan: Plan, response: Response) -> None:
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
