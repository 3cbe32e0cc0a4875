"""One client connection of HTTP/1.1: a request goes out, its response comes in, one at a time.

The protocol alone: `HttpClient` opens connections, keeps them and decides what is tried again.
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
"""Bytes of a response's head: as much as servers and proxies commonly send, eight times over."""

MAX_BODY = 4 * 2**20
"""Bytes of a response's body. OTLP's answers are a few bytes; the OpenTelemetry Collector reads 64 KiB of them."""

_INFORMATIONAL = range(100, 200)
_BODILESS = (204, 304)
_HTTP2_SETTINGS = b"\x04\x00"
"""Type and flags of the frame with which an HTTP/2 server begins (RFC 9113, 3.4), after its three bytes of length."""


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """What came back. Header names are lower case; the values of a repeated one are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True
    """False when the body was longer than may be read, and is cut."""


class ConnectionClosedError(RetryableError):
    """The other side closed the connection; `answered` tells whether it had begun to answer."""

    reason = "connection_closed"

    def __init__(self, message: str, *, answered: bool) -> None:
        """Say what happened."""
        super().__init__(message)
        self.answered = answered


class HttpConnection(asyncio.Protocol):
    """A connection to `address` (for messages); `on_lost(connection)` is called when it is gone."""

    def __init__(self, address: str, on_lost: Callable[[HttpConnection], None]) -> None:
        """Wait for `connection_made`."""
        self.address = address
        self.lost = False
        self.exchanges = 0
        """Requests sent so far."""
        self.idle_timer: asyncio.TimerHandle | None = None
        """Of the pool that keeps it."""
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[ClientResponse] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._begin()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing() and self._waiter is None

    async def exchange(self, head: bytes, body: bytes) -> ClientResponse:
        """Send a request and return its response; raise `RetryableError`. A cancelled exchange ends the connection."""
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
        """Close it when what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by name
        self._parser = httptools.HttpResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response if the end of the connection is its end; fail it if not."""
        self.lost = True
        self._parser = None  # it holds on to us
        if exc is None and self._ends_with_connection and self._waiter is not None:
            self._finish(complete=True, keep_alive=False)
        why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        when = "in the middle of its answer" if self._answered else "before it answered"
        self._fail(ConnectionClosedError(f"{self.address} closed the connection {when}{why}", answered=self._answered))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._waiter is None or self._waiter.done() or self._parser is None:
            self.abort()  # nobody asked: it cannot be told to which request this would belong
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
        """Notice a second response to one request."""
        if self._waiter is not None and self._waiter.done():
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; after the body they are trailers, which nobody reads."""
        if self._head_complete:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(key)
        self._headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        """Note how the body ends."""
        assert self._parser is not None  # noqa: S101 - it calls us
        self._status = self._parser.get_status_code()
        self._head_complete = True
        framed = "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "").lower()
        self._ends_with_connection = not framed and self._status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if self._waiter is None or self._waiter.done():
            return
        room = MAX_BODY - self._body_bytes
        self._body_bytes += len(body)
        self._body.append(body[:room])
        if len(body) > room:
            self._finish(complete=False, keep_alive=False)

    def on_message_complete(self) -> None:
        """Hand the response over, unless it is an informational one that another will follow."""
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
            transport.close()  # an answer before the whole request was read is the last one on a connection
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        waiter.set_result(ClientResponse(self._status, self._headers, body, complete))
        self._body = []

    def _fail(self, error: RetryableError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.abort()
