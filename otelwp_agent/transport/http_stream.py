"""A response that does not end: server-sent events (`text/event-stream`), for pages that show live data.

A handler returns an `EventStream` as the result of a future. The session then writes the head, and the stream lasts
until the client disconnects, the server drains, or `close` is called. Events that a slow client has not read yet are
not queued without limit: `send` drops an event, so only send events that replace earlier ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http_messages import Response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MAX_UNSENT = 256 * 1024
"""Bytes that a client may leave unread before events are dropped."""

_NO_LENGTH = b"Content-Length: 0\r\n"


class EventStream(Response):
    """A stream of server-sent events to one client.

    `on_open(stream)` is called when the head has been written, `on_end(stream)` when the connection is closed after
    that. If the client disconnects earlier, neither is called.
    """

    __slots__ = ("_on_end", "_on_open", "_transport")

    def __init__(
        self,
        on_open: Callable[[EventStream], None],
        on_end: Callable[[EventStream], None],
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Prepare the head, with additional `headers`."""
        super().__init__(200, content_type="text/event-stream", headers=(("Cache-Control", "no-store"), *headers))
        self.rest = self.rest.removesuffix(_NO_LENGTH)
        self._on_open = on_open
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None

    def open(self, transport: asyncio.Transport, prefix: bytes) -> None:
        """Write the head, with the server's own headers `prefix`. The connection ends with the stream."""
        self._transport = transport
        transport.write(b"".join((self.start, prefix, self.rest, b"Connection: close\r\n\r\n")))
        self._on_open(self)

    def send(self, event: str, data: bytes) -> bool:
        """Send `data` (one line) as an event of the type `event`; return False if it was dropped."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT:
            return False
        transport.write(b"event: %b\ndata: %b\n\n" % (event.encode(), data))
        return True

    def close(self) -> None:
        """End the stream, and the connection with it."""
        if self._transport is not None:
            self._transport.close()

    def ended(self) -> None:
        """Forget the connection, which is closed."""
        self._transport = None
        self._on_end(self)
