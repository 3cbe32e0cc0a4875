"""Send the responses of a connection, within the peer's windows.

Invariants:

* No DATA frame is larger than the window of its stream, the window of the connection or the peer's maximum.
* A response that does not fit waits in `blocked`; its stream stays in `streams`, so that a peer that gives no window
  cannot have more of them than requests at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    ConnectionViolationError,
    ErrorCode,
    StreamViolationError,
)
from otelwp_agent.transport.http2.peer_settings import PeerSettings

if TYPE_CHECKING:
    from otelwp_agent.transport.http2.streams import Stream

RECENT = 256
"""Number of streams that we have reset and whose late frames are ignored."""

_LAST = END_HEADERS | END_STREAM


class Outbox:
    """Sends the responses of one connection."""

    def __init__(self) -> None:
        """Start with the default windows."""
        self.out: list[bytes] = []
        """Frames to be sent, in this order."""
        self.peer = PeerSettings()
        self.window = DEFAULT_WINDOW
        """Bytes that may be sent over all streams."""
        self.streams: dict[int, Stream] = {}
        """The streams whose response is not complete, by identifier."""
        self.blocked: dict[int, tuple[bytes, bytes]] = {}
        """Rest of the body, and the trailers, of responses that wait for a window."""
        self.recent: dict[int, None] = {}
        """Streams that we have reset, of which frames may still arrive; the oldest first."""
        self.sent = False
        """Whether headers or data were sent since the last ping."""
        self.closed = False
        self.error: tuple[ErrorCode, str] | None = None
        """Why the connection was closed, if the peer has broken a rule."""

    def respond(self, stream: Stream, start: bytes, body: bytes, trailers: bytes) -> None:
        """Send a response: two header blocks and the body between them. Do nothing if the stream has ended.

        Without `trailers`, the body is the end.
        """
        number = stream.id
        if number not in self.streams or self.closed:
            return
        size = len(body)
        self.sent = True
        out = self.out
        if size <= self.window and size <= stream.window and size <= self.peer.max_frame:
            self.window -= size
            head = frames.head
            if trailers:
                out += (
                    head(len(start), HEADERS, END_HEADERS, number),
                    start,
                    head(size, DATA, 0, number),
                    body,
                    head(len(trailers), HEADERS, _LAST, number),
                    trailers,
                )
            else:
                out += head(len(start), HEADERS, END_HEADERS, number), start, head(size, DATA, END_STREAM, number), body
            self._complete(stream)
        else:
            out += frames.head(len(start), HEADERS, END_HEADERS, number), start
            self.blocked[number] = body, trailers
            self._send_blocked(stream)

    def respond_at_once(self, stream: Stream, block: bytes) -> None:
        """Send a response without a body: one header block. Do nothing if the stream has ended."""
        if stream.id in self.streams and not self.closed:
            self.sent = True
            self.out += frames.head(len(block), HEADERS, _LAST, stream.id), block
            self._complete(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream without a response, or after it."""
        if self.streams.pop(stream.id, None) is not None:
            self.blocked.pop(stream.id, None)
            self.send_reset(stream.id, code)

    def send_reset(self, number: int, code: ErrorCode) -> None:
        """Send RST_STREAM, and ignore frames of the stream that are on their way."""
        self.out.append(frames.rst_stream(number, code))
        recent = self.recent
        recent[number] = None
        if len(recent) > RECENT:
            del recent[next(iter(recent))]

    def widen(self, number: int, increment: int) -> None:
        """Add to a window; stream 0 is the connection. Raise an error if it was too much, or nothing."""
        if not number:
            if not increment:
                raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with 0")
            self.window += increment
            if self.window > MAX_WINDOW:
                raise ConnectionViolationError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
            if self.blocked:
                for blocked in list(self.blocked):
                    self._send_blocked(self.streams[blocked])
            return
        if not increment:
            raise StreamViolationError(number, ErrorCode.PROTOCOL_ERROR)
        stream = self.streams.get(number)
        if stream is not None:
            stream.window += increment
            if stream.window > MAX_WINDOW:
                raise StreamViolationError(number, ErrorCode.FLOW_CONTROL_ERROR)
            if number in self.blocked:
                self._send_blocked(stream)

    def widen_all(self, difference: int) -> None:
        """Change the windows of all streams, because the peer has changed the first window of its streams."""
        if not difference:
            return
        for stream in list(self.streams.values()):
            stream.window += difference
            if stream.window > MAX_WINDOW:
                raise ConnectionViolationError(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large")
            if stream.id in self.blocked:
                self._send_blocked(stream)

    def close(self) -> None:
        """Send nothing more, and give up all streams."""
        self.closed = True
        self.blocked.clear()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.aborted()

    def answered(self) -> None:
        """Note that a request was answered."""

    def _complete(self, stream: Stream) -> None:
        """Note that the response was sent; if the request is not complete, the peer need not send the rest."""
        del self.streams[stream.id]
        self.answered()
        if not stream.ended:
            self.send_reset(stream.id, ErrorCode.NO_ERROR)

    def _send_blocked(self, stream: Stream) -> None:
        """Send what fits of a response that waits."""
        number = stream.id
        body, trailers = self.blocked[number]
        at = 0
        while at < len(body):
            size = min(len(body) - at, self.window, stream.window, self.peer.max_frame)
            if size <= 0:
                self.blocked[number] = body[at:], trailers
                return
            last = not trailers and at + size == len(body)
            self.out += frames.head(size, DATA, END_STREAM if last else 0, number), body[at : at + size]
            self.window -= size
            stream.window -= size
            at += size
        del self.blocked[number]
        if trailers:
            self.out += frames.head(len(trailers), HEADERS, _LAST, number), trailers
        self._complete(stream)
