"""Frames of HTTP/2: types, flags and error codes (RFC 9113, sections 4, 6 and 7), and functions that build them."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The bytes that a client sends first."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

HEAD = struct.Struct(">HBBBI")
"""The head of a frame: the length in two parts (16 and 8 bits), type, flags, stream."""
HEAD_SIZE = HEAD.size
MIN_MAX_FRAME = 16_384
"""Maximum size of a payload, unless the receiver allows more."""
MAX_MAX_FRAME = 2**24 - 1
DEFAULT_WINDOW = 65_535
"""The first window of the connection, and of each stream unless the receiver sets another one."""
MAX_WINDOW = 2**31 - 1
MAX_STREAM = 2**31 - 1


class ErrorCode(IntEnum):
    """Reasons to end a stream or a connection (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionViolationError(Exception):
    """The peer has broken a rule, and the connection ends: GOAWAY with `code` and the message."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """`message` is sent to the peer."""
        super().__init__(message)
        self.code = code


class StreamViolationError(Exception):
    """The peer has broken a rule, and one stream ends: RST_STREAM with `code`."""

    def __init__(self, stream: int, code: ErrorCode) -> None:
        """`stream` is its identifier."""
        super().__init__(f"stream {stream}: {code.name}")
        self.stream = stream
        self.code = code


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the head of a frame whose payload has `size` bytes."""
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return head(len(payload), kind, flags, stream) + payload


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Return a frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: ErrorCode, message: str = "") -> bytes:
    """Return a frame that says: no stream above `last` was or will be processed."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + message.encode())


def window_update(stream: int, increment: int) -> bytes:
    """Return a frame that allows `increment` more bytes on a stream; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """Return a PING frame, or the answer to one; `payload` has 8 bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def without_padding(kind: int, flags: int, data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return the bounds of the content of a payload `data[start:stop]`, without padding and priority.

    Raises `ConnectionViolationError` if the padding or the priority is longer than the payload.
    """
    padding = 0
    if flags & PADDED:
        if start >= stop:
            raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding's length")
        padding = data[start]
        start += 1
    if kind == HEADERS and flags & PRIORITIZED:
        start += 5
        if start > stop:
            raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame without its priority")
    stop -= padding
    if start > stop:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return start, stop
