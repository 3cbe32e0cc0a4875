"""The server side of one HTTP/2 connection, without I/O: `receive` reads what arrives, `out` has what is to be sent.

Invariants:

* Every byte that the peer has sent as DATA is given back to its connection window, even if its stream has ended.
* A stream is in `streams` from its head until its response is complete, or until it is reset.
* After `closed` is set, nothing is read and nothing more is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2 import control_frames, floods, frames
from otelwp_agent.transport.http2.connection_state import ConnectionState
from otelwp_agent.transport.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD_SIZE,
    HEADERS,
    MAX_STREAM,
    PADDED,
    PREFACE,
    PRIORITIZED,
    SETTINGS,
    ConnectionViolationError,
    ErrorCode,
    StreamViolationError,
)
from otelwp_agent.transport.http2.header_memory import HeaderMemory, HeaderReader, too_long
from otelwp_agent.transport.http2.peer_settings import (
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
)
from otelwp_agent.transport.http2.streams import STREAM_WINDOW, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.transport.http2.pings import PingRules
    from otelwp_agent.transport.http2.request_heads import RequestHead

CONNECTION_WINDOW = 2**20
"""Bytes that a peer may send ahead over all streams."""
MAX_FRAME = 64 * 1024
"""Maximum size of a frame's payload. An incomplete frame is kept until the rest of it arrives."""
MAX_BLOCK = 64 * 1024
"""Maximum size of a header block, in all its frames."""
MAX_CONTINUATIONS = 32
"""Maximum number of CONTINUATION frames of one header block."""

_WINDOW_STEP = CONNECTION_WINDOW // 2
_STREAM_STEP = STREAM_WINDOW // 2
_EXTRA = PADDED | PRIORITIZED


class Http2Connection(ConnectionState):
    """The connection of one client. `open_stream` makes the server's own stream for each request."""

    def __init__(
        self,
        open_stream: Callable[[int, RequestHead], Stream],
        memory: HeaderMemory,
        clock: Callable[[], float],
        *,
        max_streams: int,
        pings: PingRules,
    ) -> None:
        """Accept at most `max_streams` requests at a time; `clock` returns seconds."""
        super().__init__(clock, max_streams=max_streams, pings=pings)
        self.ready = False
        """Whether the preface and the first settings have arrived."""
        self.turn = 0
        """Requests that `receive` still begins before it returns, so that other connections are served."""
        self._open_stream = open_stream
        self._reader = HeaderReader(memory)
        self._prefaced = False
        self._left = DEFAULT_WINDOW  # bytes that the peer may send
        self._unacknowledged = 0
        self._block: list[bytes] | None = None  # the parts of an incomplete header block
        self._block_stream = 0
        self._block_ends = False
        self._block_size = 0

    @property
    def in_block(self) -> bool:
        """Whether a header block is incomplete."""
        return self._block is not None

    def open(self) -> None:
        """Send our settings, which every connection begins with."""
        settings = {
            MAX_CONCURRENT_STREAMS: self.max_streams,
            INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            MAX_FRAME_SIZE: MAX_FRAME,
            MAX_HEADER_LIST_SIZE: MAX_BLOCK,
        }
        self.out.append(frames.settings(settings))
        self.out.append(frames.window_update(0, CONNECTION_WINDOW - self._left))
        self._left = CONNECTION_WINDOW

    def receive(self, data: bytes, turn: int) -> int:
        """Read the complete frames in `data`, but at most `turn` requests; return the position after them.

        If the peer breaks a rule, the connection is closed after what is in `out`.
        """
        self.turn = turn
        at, end = 0, len(data)
        try:
            if not self._prefaced:
                at = self._read_preface(data)
                if not at:
                    return 0
            while end - at >= HEAD_SIZE and self.turn > 0 and not self.closed:
                high, low, kind, flags, number = frames.HEAD.unpack_from(data, at)
                start = at + HEAD_SIZE
                stop = start + (high << 8 | low)
                if stop - start > MAX_FRAME:
                    self.fail(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than allowed")
                    break
                if stop > end:
                    break
                at = stop
                if self._block is not None or not self.ready:
                    self._check_order(kind, flags, number & MAX_STREAM)
                try:
                    if kind <= CONTINUATION:
                        _READERS[kind](self, flags, number & MAX_STREAM, data, start, stop)
                    else:
                        self.floods.spend(floods.CHEAP)  # RFC 9113, 4.1: unknown frames are ignored
                except StreamViolationError as error:
                    self.end_wrong(error)
        except ConnectionViolationError as error:
            self.fail(error.code, str(error))
        return at

    def grant(self, stream: Stream) -> None:
        """Let the peer send more of a body, unless the stream is paused."""
        size = stream.unacknowledged
        if size and not stream.paused and not stream.ended and stream.id in self.streams:
            self.out.append(frames.window_update(stream.id, size))
            stream.left += size
            stream.unacknowledged = 0

    def _read_preface(self, data: bytes) -> int:
        """Return the position after the preface, 0 if it is incomplete."""
        size = min(len(data), len(PREFACE))
        if data[:size] != PREFACE[:size]:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 only")
        if size < len(PREFACE):
            return 0
        self._prefaced = True
        return size

    def _check_order(self, kind: int, flags: int, number: int) -> None:
        """Check the first frame of a connection, or a frame after an incomplete header block."""
        if not self.ready:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.ready = True
        elif kind != CONTINUATION or number != self._block_stream:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")

    def _read_data(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        size = stop - start
        self._left -= size
        if self._left < 0:
            raise ConnectionViolationError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._unacknowledged += size
        if self._unacknowledged >= _WINDOW_STEP:
            self.out.append(frames.window_update(0, self._unacknowledged))
            self._left += self._unacknowledged
            self._unacknowledged = 0
        stream = self.streams.get(number)
        if stream is None:
            self.check_late_data(number)
            return
        if stream.ended:
            raise StreamViolationError(number, ErrorCode.STREAM_CLOSED)
        stream.left -= size
        if stream.left < 0:
            raise StreamViolationError(number, ErrorCode.FLOW_CONTROL_ERROR)
        if flags & PADDED:
            start, stop = frames.without_padding(DATA, flags, data, start, stop)
        if flags & END_STREAM:
            stream.ended = True
        else:
            if start == stop:
                self.floods.spend(floods.CHEAP)
            stream.unacknowledged += size
            if stream.unacknowledged >= _STREAM_STEP:
                self.grant(stream)
        self._add_body(stream, data, start, stop)

    def _add_body(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        """Give a stream the next part of its body."""
        length = stream.head.content_length
        if length is not None:
            stream.arrived += stop - start
            if stream.arrived > length or (stream.ended and stream.arrived < length):
                raise StreamViolationError(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.received(data, start, stop)

    def _read_headers(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        if not number:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & _EXTRA:
            begin = start + bool(flags & PADDED)
            start, stop = frames.without_padding(HEADERS, flags, data, start, stop)
            if flags & PRIORITIZED and int.from_bytes(data[begin : begin + 4], "big") & MAX_STREAM == number:
                raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        if flags & END_HEADERS:
            self._read_block(number, data[start:stop], ends=bool(flags & END_STREAM))
        else:
            self._block = [data[start:stop]]
            self._block_stream, self._block_size = number, stop - start
            self._block_ends = bool(flags & END_STREAM)

    def _read_continuation(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        block = self._block
        if block is None:
            raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.append(data[start:stop])
        self._block_size += stop - start
        if self._block_size > MAX_BLOCK or len(block) > MAX_CONTINUATIONS:
            raise too_long(MAX_BLOCK)
        if flags & END_HEADERS:
            self._block = None
            self._read_block(number, b"".join(block), ends=self._block_ends)

    def _read_block(self, number: int, block: bytes, *, ends: bool) -> None:
        """Begin a stream, or read its trailers."""
        if number <= self.last or not number & 1:
            self._read_trailers(number, block, ends=ends)
            return
        if number > self.last + 2:
            self.skipped = self.last + 1, number - 1
        self.last = number
        self.turn -= 1
        head = self._reader.read(block)
        if self.final is not None:
            self.floods.spend(floods.CHEAP)
            return
        if len(self.streams) >= self.max_streams:
            raise StreamViolationError(number, ErrorCode.REFUSED_STREAM)
        if head.problem or (ends and head.content_length):
            raise StreamViolationError(number, ErrorCode.PROTOCOL_ERROR)
        stream = self.streams[number] = self._open_stream(number, head)
        stream.ended = ends
        stream.opened()

    def _read_trailers(self, number: int, block: bytes, *, ends: bool) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self.check_late_headers(number)
        problem = self._reader.read_trailers(block)
        if stream is None:
            return
        if stream.ended:
            raise StreamViolationError(number, ErrorCode.STREAM_CLOSED)
        if problem or not ends:
            raise StreamViolationError(number, ErrorCode.PROTOCOL_ERROR)
        stream.ended = True
        self._add_body(stream, b"", 0, 0)


_READERS = (
    Http2Connection._read_data,  # noqa: SLF001 - of the class above
    Http2Connection._read_headers,  # noqa: SLF001
    control_frames.read_priority,
    control_frames.read_reset,
    control_frames.read_settings,
    control_frames.read_push,
    control_frames.read_ping,
    control_frames.read_goaway,
    control_frames.read_window_update,
    Http2Connection._read_continuation,  # noqa: SLF001
)
"""The function that reads each type of frame, by its number."""
