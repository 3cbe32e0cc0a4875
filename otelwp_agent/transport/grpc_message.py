"""The message of a gRPC call: its prefix, its parts as they arrive, and its inflation, within the limits.

Invariant: the bytes of an unfinished message are reserved in `Arrivals`, and released exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import (
    ConsumeError,
    InternalError,
    MalformedError,
    Overloaded,
    PermanentError,
    TooLargeError,
)
from otelwp_agent.transport import grpc_answers
from otelwp_agent.transport.compression import INFLATE_OFF_LOOP, decompress
from otelwp_agent.transport.decoding import OBJECTS, in_one_step
from otelwp_agent.transport.http2.streams import Stream
from otelwp_agent.transport.status import GrpcCode

if TYPE_CHECKING:
    import asyncio

    from otelwp_agent.transport.grpc_owner import CallSession
    from otelwp_agent.transport.http2.request_heads import RequestHead

RETRY_AFTER = 1.0
"""Seconds after which a refused sender should try again."""
SMALL = 4096
"""Size in bytes below which two parts of a message become one; an object for each byte would take 40 bytes."""
PREFIX = 5
"""Bytes before a message: whether it is compressed, and its length in 4 bytes."""


class IncomingMessage(Stream):
    """A stream with one message. The class that inherits it handles the message, and answers errors."""

    __slots__ = ("_need", "_parts", "_size", "encoding", "session")

    def __init__(self, session: CallSession, number: int, head: RequestHead) -> None:
        """Belong to `session`."""
        super().__init__(session.connection, number, head)
        self.session = session
        self.encoding = ""
        """Encoding of the message, if its prefix says that it is compressed."""
        self._parts: list[bytes] = []
        self._size = 0
        self._need = 0  # bytes of the message with its prefix, 0 if unknown

    @property
    def missing(self) -> int:
        """Maximum number of bytes of the message that have not arrived yet."""
        return (self._need or self.session.server.limit) - self._size

    def handle(self, message: bytes) -> None:
        """Process the complete message."""
        raise NotImplementedError

    def refuse(self, error: ConsumeError, *, code: GrpcCode | None = None) -> None:
        """Count and answer an error that the server itself has found; `code` replaces the code of the error."""
        raise NotImplementedError

    def received(self, data: bytes, start: int, stop: int) -> None:
        """Read a part of the message; most messages arrive in one."""
        if self.ended and not self._size and stop - start >= PREFIX:
            begin = start + PREFIX
            size = int.from_bytes(data[start + 1 : begin], "big")
            if begin + size == stop and size <= self.session.server.limit:
                if data[start]:
                    self._inflate(data[start], data[begin:stop])
                else:
                    self.handle(data[begin:stop])
                return
        self.collect(data[start:stop])

    def collect(self, part: bytes) -> None:
        """Keep a part of the message; handle the message if it is the last one."""
        server = self.session.server
        if part:
            parts = self._parts
            if parts and len(part) < SMALL and len(parts[-1]) < SMALL:
                parts[-1] += part
            else:
                parts.append(part)
            self._size += len(part)
        if not self._need and self._size >= PREFIX:
            prefix = part if len(part) == self._size else b"".join(self._parts)
            size = int.from_bytes(prefix[1:PREFIX], "big")
            if size > server.limit:
                self._refuse_size(f"received message larger than max ({size} vs. {server.limit})")
                return
            self._need = PREFIX + size
        if self._need and self._size > self._need:
            self.refuse(
                PermanentError("the call has more than one message", reason="malformed"), code=GrpcCode.INTERNAL
            )
        elif not self.ended:
            server.arrivals.add(self, self, len(part))
        elif self._size < self._need or not self._need:
            what = "the message is cut short" if self._size else "the call has no message"
            self.refuse(PermanentError(what, reason="malformed"), code=GrpcCode.INTERNAL)
        else:
            body = b"".join(self._parts)
            self.drop()
            if body[0]:
                self._inflate(body[0], body[PREFIX:])
            else:
                self.handle(body[PREFIX:])

    def drop(self) -> None:
        """Drop the parts of an unfinished message."""
        if self._parts:
            self._parts = []
            self.session.server.arrivals.end(self)

    # -- called by `Arrivals`

    def pause_body(self) -> None:
        """Give the client no more window: `Arrivals` reads other messages first."""
        self.paused = True

    def resume_body(self) -> None:
        """Let the client send more."""
        if self.paused:
            self.paused = False
            self.session.connection.grant(self)
            self.session.flush_soon()

    def refuse_body(self) -> None:
        """Refuse the call before its message has arrived, and drop the message."""
        message = "the message arrived too slowly while too many bytes of requests were in flight"
        self.refuse(Overloaded(message, retry_after=RETRY_AFTER, reason="in_flight"))
        self.session.flush_soon()

    # -- compressed messages

    def _inflate(self, flag: int, message: bytes) -> None:
        """Inflate a message and handle it; a large one is inflated in a thread."""
        server = self.session.server
        encoding, limit = self.encoding, server.limit
        if flag > 1 or not encoding:
            text = "the message is compressed, but grpc-encoding names no encoding"
            self.refuse(PermanentError(text, reason="malformed"), code=GrpcCode.INTERNAL)
            return
        if len(message) > INFLATE_OFF_LOOP:
            self._inflate_in_thread(message)
            return
        try:
            inflated = decompress(encoding, message, limit, grpc_answers.ENCODINGS)
        except ConsumeError as error:
            self._refuse_message(error)
        else:
            self.handle(inflated)

    def _inflate_in_thread(self, message: bytes) -> None:
        server, size = self.session.server, len(message)
        in_flight = server.in_flight
        steps = in_one_step(decompress, self.encoding, message, server.limit, grpc_answers.ENCODINGS)
        try:
            inflated = server.inflating.run(
                steps, size, self._inflated, in_thread=True, reserve=min(server.limit, OBJECTS * size)
            )
        except ConsumeError as error:
            self.refuse(error)
            return
        in_flight.reserve(size)

        def done(answer: asyncio.Future[bytes]) -> None:
            in_flight.release(size)
            error = None if answer.cancelled() else answer.exception()
            if isinstance(error, ConsumeError):
                self._refuse_message(error)
            elif error is not None:
                self.refuse(InternalError("internal error; the agent's log has the details"))
            self.session.flush_soon()

        inflated.add_done_callback(done)

    def _inflated(self, message: bytes) -> bytes:
        """Handle a message that was inflated in a thread, unless its client has gone."""
        if self.id in self.connection.streams:
            self.handle(message)
        return b""

    def _refuse_message(self, error: ConsumeError) -> None:
        """Refuse a message that cannot be inflated."""
        if isinstance(error, TooLargeError):
            self._refuse_size(f"received message larger than max: {error}")
        else:
            self.refuse(error, code=GrpcCode.INTERNAL if isinstance(error, MalformedError) else None)

    def _refuse_size(self, message: str) -> None:
        self.refuse(TooLargeError(message), code=GrpcCode.RESOURCE_EXHAUSTED)
