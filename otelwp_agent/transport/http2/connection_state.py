"""The state of one connection, and its end: by GOAWAY after the open streams, or by an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2 import floods, frames
from otelwp_agent.transport.http2.floods import FloodLimit
from otelwp_agent.transport.http2.frames import (
    MAX_STREAM,
    ConnectionViolationError,
    ErrorCode,
    StreamViolationError,
)
from otelwp_agent.transport.http2.outbox import Outbox
from otelwp_agent.transport.http2.peer_settings import MAX_CONCURRENT_STREAMS
from otelwp_agent.transport.http2.pings import DRAIN, KEEPALIVE, PingRules

if TYPE_CHECKING:
    from collections.abc import Callable


class ConnectionState(Outbox):
    """Which streams a peer may open, and how the connection ends."""

    def __init__(self, clock: Callable[[], float], *, max_streams: int, pings: PingRules) -> None:
        """Accept at most `max_streams` requests at a time; `clock` returns seconds."""
        super().__init__()
        self.max_streams = max_streams
        self.pings = pings
        self.floods = FloodLimit(clock)
        self.last = 0
        """The highest stream that the peer has opened."""
        self.draining = False
        """Whether one side has said that no more streams are opened."""
        self.final: int | None = None
        """The highest stream that is served, if the connection ends."""
        self.skipped = (0, 0)
        """First and last identifier that the peer has skipped most recently."""

    @property
    def finished(self) -> bool:
        """Whether the connection is drained and can be closed."""
        return self.final is not None and not self.streams

    def allow(self, max_streams: int) -> None:
        """Change the number of requests at a time."""
        if max_streams != self.max_streams:
            self.max_streams = max_streams
            self.out.append(frames.settings({MAX_CONCURRENT_STREAMS: max_streams}))

    def drain(self) -> None:
        """Ask the peer to open no more streams; `finished` is set after the responses to those that are open.

        Streams that the peer opens before it reads this are served, too. The last one is named after a round trip.
        """
        if not self.draining and not self.closed:
            self.draining = True
            self.out.append(frames.goaway(MAX_STREAM, ErrorCode.NO_ERROR))
            self.out.append(frames.ping(DRAIN))

    def finish_drain(self) -> None:
        """Serve no streams that the peer opens from now on."""
        if self.final is None and not self.closed:
            self.draining = True
            self.final = self.last
            self.out.append(frames.goaway(self.last, ErrorCode.NO_ERROR))

    def fail(self, code: ErrorCode, message: str) -> None:
        """Close the connection because of an error."""
        if not self.closed:
            last = self.last if self.final is None else self.final
            self.out.append(frames.goaway(last, code, message))
            self.error = code, message
            self.close()

    def check_alive(self) -> None:
        """Send a ping, which the peer must answer."""
        if not self.closed:
            self.out.append(frames.ping(KEEPALIVE))

    def answered(self) -> None:
        """Give the peer points for a request."""
        self.floods.earn()

    def end_wrong(self, error: StreamViolationError) -> None:
        """End the stream of a violation."""
        self.floods.spend(floods.ANSWERED)
        stream = self.streams.pop(error.stream, None)
        self.blocked.pop(error.stream, None)
        self.send_reset(error.stream, error.code)
        if stream is not None:
            stream.aborted()

    def check_late_data(self, number: int) -> None:
        """Check DATA on a stream that is not open: it is expected only if we have reset the stream."""
        if not number or number > self.last:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was not opened")
        if number not in self.recent and self.final is None:
            raise StreamViolationError(number, ErrorCode.STREAM_CLOSED)
        self.floods.spend(floods.CHEAP)

    def check_late_headers(self, number: int) -> None:
        """Check HEADERS with an identifier that is not new: trailers of a stream that we have reset."""
        first, last = self.skipped
        if not number & 1 or first <= number <= last:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "the identifier of a stream is not new")
        if number not in self.recent and self.final is None:
            raise ConnectionViolationError(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        self.floods.spend(floods.CHEAP)
