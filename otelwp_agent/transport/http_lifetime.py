"""The lifetime of one client connection of an HTTP/1.1 server: its start, its deadline, its responses and its end.

Invariants:

* A connection is counted when it starts, and removed from its server exactly once.
* After CLOSING is set, no request is processed; what still arrives is dropped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otelwp_agent.transport.connections import peer_of
from otelwp_agent.transport.http_flow import (
    BACKLOG_FULL,
    BLOCKED,
    BODY,
    BUDGET,
    CLOSING,
    HEAD,
    UNWRITABLE,
    WAITING,
    Flow,
)
from otelwp_agent.transport.http_messages import Response, text_error

if TYPE_CHECKING:
    import asyncio
    import ssl

    from otelwp_agent.transport.connections import Trust
    from otelwp_agent.transport.http_heads import RequestPlan
    from otelwp_agent.transport.http_session_owner import HttpSessionOwner

MAX_REFUSED = 64
"""Maximum number of refused connections that are answered; more are closed without an answer."""
LINGER = 2.0
"""Seconds for which a refused client may continue to send, so that it can read the reason."""

_CLOSE = b"Connection: close\r\n\r\n"
_END = b"\r\n"


class ConnectionLifetime(Flow):
    """A connection that its server counts, writes responses to and closes."""

    __slots__ = ("deadline", "old", "old_at", "peer", "server")

    def __init__(self, server: HttpSessionOwner) -> None:
        """Belong to `server`; a reload replaces it."""
        super().__init__(server.arrivals.in_flight)
        self.server = server
        self.deadline = math.inf
        self.old_at = math.inf
        self.old = False  # whether the connection is closed after the next response
        self.peer = ""

    def ssl_object(self) -> ssl.SSLObject | None:
        """Return the state of TLS, or `None`."""
        return self.transport.get_extra_info("ssl_object")  # type: ignore[no-any-return]

    def _drop_input(self) -> None:
        """Drop what has arrived and release its memory."""
        self._take_backlog()

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; answer 503 if there are too many."""
        server = self.server
        self.begin(transport, peer_of(transport))
        reason = server.sessions.add(self)
        if reason:
            server.on_refused(reason)
            if server.sessions.excess() > MAX_REFUSED:
                self._busy |= CLOSING
                self.transport.abort()
                return
            # With `accept_and_drop`, a web page waits for the response: the client should not retry.
            wait = (("Retry-After", "1"),) if server.drops is None else ()
            self._respond_and_close(text_error(503, "too many connections", wait))

    def begin(self, transport: asyncio.BaseTransport, peer: str) -> None:
        """Use `transport`, whose connection is already counted."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        self.peer = peer
        timeouts, now = self.server.timeouts, self.server.now
        self.deadline = now + timeouts.idle
        self.old_at = now + timeouts.age()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Release everything: the client no longer reads."""
        self._busy |= CLOSING
        self._drop_input()
        self.server.session_ended(self)

    def pause_writing(self) -> None:
        """Process no more requests while the client does not read, for at most `write_timeout`."""
        self._busy |= UNWRITABLE
        self.deadline = self.server.now + self.server.timeouts.write

    def resume_writing(self) -> None:
        """Continue: the client reads again."""
        busy, server = self._busy, self.server
        if busy & CLOSING:
            self._busy &= ~UNWRITABLE
            return
        if busy & WAITING:
            self.deadline = math.inf
        else:
            timeouts = server.timeouts
            limit = timeouts.body if busy & BODY else timeouts.header if busy & HEAD else timeouts.idle
            self.deadline = server.now + limit
        self._unblock(UNWRITABLE)

    def eof_received(self) -> bool:
        """Keep the connection open while a response is pending: a client may close its side after sending."""
        self._eof = True
        return bool(self._busy & BLOCKED) and not self._busy & CLOSING and self.server.settings.tls is None

    # -- responses

    def _write(self, plan: RequestPlan, response: Response) -> None:
        """Send the response to a complete request, and close the connection if it is the last one."""
        server = self.server
        bodiless = plan.head.method == "HEAD"
        if plan.keep_alive and not (self.old or server.draining):
            self.deadline = server.now + server.timeouts.idle
            if not (bodiless or plan.extra):
                self.transport.write(response.message(server.prefix))
                return
            end = _END
        else:
            end = _CLOSE
        body = b"" if bodiless else response.body
        self.transport.write(b"".join((response.start, server.prefix, plan.extra, response.rest, end, body)))
        if end is _CLOSE:
            self._close()

    def _respond_and_close(self, response: Response, extra: bytes = b"") -> None:
        """Answer before the request is complete, and close after the client has had time to read the response."""
        self._busy |= CLOSING
        self._drop_input()
        transport, server = self.transport, self.server
        if transport.is_closing():
            return
        transport.write(b"".join((response.start, server.prefix, extra, response.rest, _CLOSE, response.body)))
        if transport.can_write_eof():
            transport.write_eof()
        self.deadline = server.now + LINGER
        self._unpause(BACKLOG_FULL | BUDGET)  # bytes that still arrive are read and dropped

    # -- the end

    def time_is_up(self) -> None:
        """Close a connection that was idle or slow for too long."""
        if self._busy & CLOSING or self.transport.get_write_buffer_size():
            self.abort()
        elif self._busy & (HEAD | BODY):
            self.server.on_refused("timeout")
            what = "body" if self._busy & BODY else "headers"
            self._respond_and_close(text_error(408, f"the request's {what} did not arrive in time"))
        else:
            self._close()

    def grow_old(self) -> None:
        """Close after the next response; when called again, close even if no request arrives."""
        if not self.old:
            self.old = True
            self.old_at = self.server.now + self.server.timeouts.age_grace
            return
        self.old_at = math.inf
        if not (self._busy or self._backlog):
            self._close()

    def verify_again(self, trusts: Trust) -> None:
        """End the connection after the work in progress if the client's certificate is not trusted any more."""
        if not trusts(self.ssl_object()):
            self.drain()

    def drain(self) -> None:
        """Close now if no request is in progress; otherwise after the response."""
        self.old = True
        if self._busy & CLOSING or not (self._busy & ~UNWRITABLE or self._backlog):
            self._close()

    def abort(self) -> None:
        """Close at once, without a response."""
        self.transport.abort()
