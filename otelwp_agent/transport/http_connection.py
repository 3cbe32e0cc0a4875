"""One client connection of HTTP/1.1 that sends a request and receives its response, one at a time.

This is only the protocol: `HttpClient` opens and keeps connections, and decides which requests are sent again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import httptools

from otelwp_agent.errors import RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD = 64 * 2**10
"""Maximum size in bytes of a response's head: eight times the usual limit of servers and proxies."""

MAX_BODY = 4 * 2**20
"""Maximum size in bytes of a response's body.

OTLP responses are a few bytes; the OpenTelemetry Collector reads at most 64 KiB of them.
"""

_INFORMATIONAL = range(100, 200)
_BODILESS = (204, 304)
_HTTP2_SETTINGS = b"\x04\x00"
"""Type and flags of the first frame of an HTTP/2 server (RFC 9113, 3.4), after its three bytes of length."""


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """A response. Header names are lower case; the values of a repeated header are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True
    """False if the body exceeded the limit and is truncated."""


class ConnectionClosedError(RetryableError):
    """The peer closed the connection. `answered` is True if it had begun to answer."""

    reason = "connection_closed"

    def __init__(self, message: str, *, answered: bool) -> None:
        """Keep the message and whether a part of the answer had arrived."""
        super().__init__(message)
        self.answered = answered


class HttpConnection(asyncio.Protocol):
    """A connection to `address` (for messages); `on_lost(connection)` is called after it is closed."""

    def __init__(self, address: str, on_lost: Callable[[HttpConnection], None]) -> None:
        """Create an unconnected protocol; asyncio calls `connection_made`."""
        self.address = address
        self.lost = False
        self.exchanges = 0
        """Number of requests sent so far."""
        self.idle_timer: asyncio.TimerHandle | None = None
        """Timer of the pool that keeps the idle connection."""
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[ClientResponse] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._begin()

    @property
    def reusable(self) -> bool:
        """Whether the connection can send another request."""
        return self._transport is not None and not self._transport.is_closing() and self._waiter is None

    async def exchange(self, head: bytes, body: bytes) -> ClientResponse:
        """Send a request and return its response; raise `RetryableError`. Cancelling it closes the connection."""
        transport = self._transport
        if transport is None or self.lost:
            raise ConnectionClosedError(f"{self.address} closed the connection", answered=False)
        self.exchanges += 1
        self._begin()
        waiter: asyncio.Future[ClientResponse] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        transport.writelines((head, body) if body else (head,))
        try:
            return await waiter
        except BaseException:
            transport.abort()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close the connection after the pending bytes are sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports do not inherit from asyncio's classes
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Complete the response if it ends with the connection; otherwise fail it."""
        self.lost = True
        self._parser = None  # the parser refers to this object: break the reference cycle
        if exc is None and self._ends_with_connection and self._waiter is not None:
            self._finish(complete=True, keep_alive=False)
        why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        when = "in the middle of its answer" if self._answered else "before it answered"
        self._fail(ConnectionClosedError(f"{self.address} closed the connection {when}{why}", answered=self._answered))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes of the response."""
        if self._waiter is None or self._waiter.done() or self._parser is None:
            self.abort()  # no request is waiting: these bytes cannot be assigned to a request
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(RetryableError(f"{self.address} wants to speak another protocol", reason="protocol"))
        except httptools.HttpParserError as error:
            hint = " (a gRPC port?)" if data[3:5] == _HTTP2_SETTINGS else ""
            self._fail(RetryableError(f"{self.address} does not answer in HTTP/1.1{hint}: {error}", reason="protocol"))
        if not self._head_complete:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._fail(
                    RetryableError(
                        f"{self.address} answers with more than {MAX_HEAD} bytes of headers", reason="protocol"
                    )
                )

    def on_message_begin(self) -> None:
        """Close the connection if a second response to one request begins."""
        if self._waiter is not None and self._waiter.done():
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Headers after the body are trailers and are ignored."""
        if self._head_complete:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(key)
        self._headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        """Determine how the body ends."""
        assert self._parser is not None  # noqa: S101 - it calls us
        self._status = self._parser.get_status_code()
        self._head_complete = True
        framed = "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "").lower()
        self._ends_with_connection = not framed and self._status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if self._waiter is None or self._waiter.done():
            return
        space = MAX_BODY - self._body_bytes
        self._body_bytes += len(body)
        self._body.append(body[:space])
        if len(body) > space:
            self._finish(complete=False, keep_alive=False)

    def on_message_complete(self) -> None:
        """Return the response to the caller, unless it is informational: then another one follows."""
        assert self._parser is not None  # noqa: S101 - it calls us
        if self._status in _INFORMATIONAL:
            self._begin()
            self._answered = True
            return
        self._finish(complete=True, keep_alive=self._parser.should_keep_alive())

    def _begin(self) -> None:
        self._answered = False
        self._head_complete = False
        self._ends_with_connection = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def _finish(self, *, complete: bool, keep_alive: bool) -> None:
        waiter, transport = self._waiter, self._transport
        if waiter is None or waiter.done() or transport is None:
            return
        if not complete:
            transport.abort()
        elif not keep_alive or transport.get_write_buffer_size():
            # the server answered before it had read the whole request: the connection cannot be reused
            transport.close()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        waiter.set_result(ClientResponse(self._status, self._headers, body, complete))
        self._body = []

    def _fail(self, error: RetryableError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.abort()
