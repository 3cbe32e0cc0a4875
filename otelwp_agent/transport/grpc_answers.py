"""The header blocks of a gRPC server's answers (gRPC over HTTP/2, "Responses"), without entries in a dynamic table.

A block is the same for every connection, so the usual ones are prepared once.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote

from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.status import GrpcCode

if TYPE_CHECKING:
    from otelwp_agent.errors import ConsumeError

ENCODINGS = ("gzip", "deflate", "zstd")
"""Encodings of messages that are accepted."""

_STATUS_200 = b"\x88"
_STATUS = b"\x08"
_CONTENT_TYPE = b"\x0f\x10"
_MAX_PREFIX = 0x7F
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""Characters that are not escaped in `grpc-message`."""


def text(value: bytes) -> bytes:
    """Return a string of a header block without Huffman code (RFC 7541, 5.2)."""
    size = len(value)
    if size < _MAX_PREFIX:
        return bytes((size,)) + value
    size -= _MAX_PREFIX
    prefix = bytearray((_MAX_PREFIX,))
    while size >= 0x80:  # noqa: PLR2004 - more bytes follow
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + value


def field(name: bytes, value: bytes) -> bytes:
    """Return a field that is in no table (RFC 7541, 6.2.2)."""
    return b"\x00" + text(name) + text(value)


START = _STATUS_200 + _CONTENT_TYPE + text(b"application/grpc")
"""The head of each answer."""
OK = field(b"grpc-status", b"0")
"""The trailers of an answer with a message."""
ACCEPTED = field(b"grpc-accept-encoding", ", ".join(("identity", *ENCODINGS)).encode())


def http_start(status: int) -> bytes:
    """Return the head of an answer in plain text to a request that is not gRPC."""
    return _STATUS + text(str(status).encode()) + _CONTENT_TYPE + text(b"text/plain; charset=utf-8")


def failure(code: GrpcCode, message: str, details: bytes = b"") -> bytes:
    """Return the only block of an answer without a message. `details` is a serialized `google.rpc.Status`."""
    block = START + field(b"grpc-status", b"%d" % code)
    if message:
        block += field(b"grpc-message", quote(message, safe=_PLAIN).encode())
    if details:
        block += field(b"grpc-status-details-bin", b64encode(details).rstrip(b"="))
    return block


def refusal(error: ConsumeError) -> bytes:
    """Return the only block of the answer to a call that is refused with `error`."""
    status = statuses.status_message(error)
    return failure(GrpcCode(status.code), status.message, status.SerializeToString())
