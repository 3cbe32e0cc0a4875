"""Collect the body of one request while it arrives, with a known length or chunked (RFC 9112, section 7.1).

Trailer fields are checked, counted and ignored: they never change the headers that a handler gets.
"""

from __future__ import annotations

import re

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.transport.http_heads import MAX_HEAD

MAX_CHUNK_LINE = 1024
"""Maximum size in bytes of the line with a chunk's size, including extensions."""
CHUNKS_PER_TURN = 256
"""Chunks decoded in one call. Sixteen times as many are decoded before other connections are served."""
_SMALL = 4096
"""Pieces smaller than this are copied into blocks, because a bytes object costs 33 bytes besides its content."""
_BLOCK = 64 * 1024
"""Size of such a block in bytes."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_END_OF_LINE = b"\r\n"
_AT_SIZE, _AT_END, _AT_TRAILER = range(3)
"""Kind of the next line of a chunked body: a chunk's size, the end of a chunk's data, or a trailer field."""


class TrailersTooLargeError(TooLargeError):
    """The trailer fields are larger than `MAX_HEAD` bytes."""

    reason = "head_too_large"


class BodyBlocks:
    """Bytes that arrive in pieces. Many small pieces use about as much memory as their content."""

    __slots__ = ("_blocks", "size")

    def __init__(self) -> None:
        """Start empty; `size` is the number of bytes."""
        self._blocks: list[bytes | bytearray] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Append `piece`."""
        self.size += len(piece)
        if len(piece) >= _SMALL:
            self._blocks.append(piece)
            return
        last = self._blocks[-1] if self._blocks else None
        if isinstance(last, bytearray) and len(last) < _BLOCK:
            last += piece
        else:
            self._blocks.append(bytearray(piece))

    def join(self) -> bytes:
        """Return everything as one bytes object."""
        return b"".join(self._blocks)


class LengthBody(BodyBlocks):
    """A body of `length` bytes. If `keep` is False, the bytes are read and dropped."""

    __slots__ = ("_keep", "done", "missing")

    def __init__(self, length: int, *, keep: bool) -> None:
        """Expect `length` bytes, at least 1."""
        super().__init__()
        self.missing = length
        self.done = False
        self._keep = keep

    def feed(self, data: bytes, at: int) -> int:
        """Read from `data[at:]`; return the position after the bytes that were read."""
        end = min(at + self.missing, len(data))
        self.missing -= end - at
        self.done = not self.missing
        if self._keep:
            self.add(data[at:end])
        return end


class ChunkedBody(BodyBlocks):
    """A chunked body of at most `limit` bytes. If `keep` is False, the bytes are read and dropped."""

    __slots__ = ("_announced", "_keep", "_left", "_limit", "_line", "_state", "_trailers", "done")

    def __init__(self, limit: int, *, keep: bool) -> None:
        """Start before the first chunk's size."""
        super().__init__()
        self.done = False
        self._keep = keep
        self._limit = limit
        self._announced = 0  # sum of the sizes of all chunks so far
        self._left = 0  # bytes of the current chunk that have not arrived
        self._state = _AT_SIZE
        self._line = bytearray()  # the beginning of a line that is not complete
        self._trailers = 0

    @property
    def missing(self) -> int:
        """Maximum number of bytes that may still arrive."""
        return self._limit - self._announced + self._left

    def feed(self, data: bytes, at: int) -> int:
        """Read from `data[at:]`, at most `CHUNKS_PER_TURN` chunks; return the position after the bytes that were read.

        Raises `MalformedError`, `TooLargeError` for a body above the limit, or `TrailersTooLargeError`.
        """
        size = len(data)
        lines = 2 * CHUNKS_PER_TURN
        while at < size and lines and not self.done:
            if self._left:
                end = min(at + self._left, size)
                self._left -= end - at
                if self._keep:
                    self.add(data[at:end])
            else:
                lines -= 1
                end = self._feed_line(data, at)
            at = end
        return at

    def _feed_line(self, data: bytes, at: int) -> int:
        newline = data.find(b"\n", at) + 1
        end = newline or len(data)
        length = len(self._line) + end - at
        if self._state == _AT_TRAILER:
            if self._trailers + length > MAX_HEAD:
                raise TrailersTooLargeError(f"the request's trailer fields are larger than {MAX_HEAD} bytes")
        elif length > MAX_CHUNK_LINE:
            raise _malformed("a chunk does not begin with its size")
        self._line += data[at:end]
        if newline:
            line = bytes(self._line)
            self._line.clear()
            self._read_line(line)
        return end

    def _read_line(self, line: bytes) -> None:
        if self._state == _AT_SIZE:
            self._read_size(line)
        elif self._state == _AT_TRAILER:
            self._read_trailer(line)
        elif line == _END_OF_LINE:
            self._state = _AT_SIZE
        else:
            raise _malformed("a chunk is longer than its size")

    def _read_size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise _malformed("a chunk does not begin with its size")
        size = int(found[1], 16)
        if not size:
            self._state = _AT_TRAILER
            return
        self._announced += size
        if self._announced > self._limit:
            message = f"the body is larger than {self._limit} bytes"
            raise TooLargeError(message)
        self._left = size
        self._state = _AT_END

    def _read_trailer(self, line: bytes) -> None:
        if line == _END_OF_LINE:
            self.done = True
            return
        self._trailers += len(line)
        if _TRAILER_LINE.fullmatch(line) is None:
            raise _malformed("a trailer field is invalid")


def _malformed(reason: str) -> MalformedError:
    return MalformedError(f"this is not HTTP/1.1: {reason}", reason="malformed_http")
