"""Bodies of at most 20 MiB that are cheap to send and expensive to receive. Each is built once, at its first use."""

from __future__ import annotations

import gzip as gzip_module
import struct
import zlib
from functools import cache

import zstandard

from tests.kit.otlp import delimited

MIB = 2**20
LARGEST = 20 * MIB
"""Maximum number of bytes that a receiver accepts, before and after decompression."""

_ID = bytes(range(1, 17))
SPAN = delimited(1, delimited(2, delimited(2, delimited(1, _ID) + delimited(2, _ID[:8]) + delimited(5, b"probe"))))
"""An OTLP request with one span, as honest senders send it."""


def gzip(body: bytes, level: int = 6) -> bytes:
    return gzip_module.compress(body, level, mtime=0)


# Content encodings


@cache
def empty_members(times: int) -> bytes:
    """Return a million empty gzip members (20 MB), compressed `times` more times."""
    body = gzip(b"") * 1_000_000
    for _ in range(times):
        body = gzip(body)
    return body


@cache
def stored(codings: int) -> bytes:
    """Return 12 MiB in `codings` layers of deflate without compression: each layer costs the same to decode."""
    body = bytes(12 * MIB)
    for _ in range(codings):
        body = zlib.compress(body, 0)
    return body


@cache
def gzip_bomb() -> bytes:
    """Return 20 MiB that inflate to 20 GB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * ((LARGEST - len(head)) // len(block))


@cache
def empty_blocks(size: int = 20 * MIB - 8) -> bytes:
    """Deflate data of about `size` bytes: empty blocks with fixed codes, which inflate to nothing."""
    four = sum(1 << start + 1 for start in range(0, 40, 10)).to_bytes(5, "little")  # 10 bits each
    return four * (size // 5) + b"\3\0"


def zstd_bomb() -> bytes:
    """Return 20 MiB in many frames that inflate to hundreds of GB."""
    frame = zstandard.ZstdCompressor(level=3).compress(bytes(16 * MIB))
    return frame * (LARGEST // len(frame))


def zstd_window() -> bytes:
    """Return a frame that requires a window of 2 GiB (RFC 8878: magic number, frame header, one empty block)."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes((21 << 3,)) + b"\x01\x00\x00" + bytes(100)


@cache
def garbage_after_gzip() -> bytes:
    """Return one gzip member, followed by 20 MB that are not gzip."""
    return gzip(SPAN) + b"\x1f\x8b" * (LARGEST // 2 - 100)


# Items


def _spans(items: bytes) -> bytes:
    return delimited(1, delimited(2, items))


@cache
def empty_spans() -> bytes:
    return _spans(b"\x12\x00" * 9_900_000)


@cache
def empty_scopes() -> bytes:
    return delimited(1, b"\x12\x00" * 9_900_000)


@cache
def empty_resources() -> bytes:
    return b"\x0a\x00" * 9_900_000


@cache
def empty_attributes() -> bytes:
    return _spans(delimited(2, b"\x4a\x00" * 9_900_000))


@cache
def nested_values(depth: int = 200_000) -> bytes:
    """Return an attribute whose value is a deep nesting of arrays."""
    value = b""
    for _ in range(depth):
        value = delimited(5, delimited(1, value))
        if len(value) > LARGEST // 4:
            break
    return _spans(delimited(2, delimited(9, delimited(2, value))))


@cache
def valid_spans() -> bytes:
    """Return 200 000 valid spans with attributes."""
    attribute = delimited(9, delimited(1, b"http.route") + delimited(2, delimited(1, b"/shop/basket")))
    span = delimited(2, delimited(1, _ID) + delimited(2, _ID[:8]) + delimited(5, b"GET") + attribute * 2)
    return _spans(span * 200_000)


@cache
def packed_spans() -> bytes:
    """Return as many empty spans, with as many empty links, as are accepted."""
    return _spans(b"\x12\x00" * 240_000 + delimited(2, b"\x6a\x00" * 1_700_000))


@cache
def groups() -> bytes:
    return b"\x1b\x1c" * (LARGEST // 2 - 100)


@cache
def groups_in_a_span() -> bytes:
    return _spans(delimited(2, b"\x1b\x1c" * (LARGEST // 2 - 100)))


@cache
def nested_groups() -> bytes:
    return (b"\x1b" * 90 + b"\x1c" * 90) * (LARGEST // 180 - 100)


@cache
def wide_nested_values() -> bytes:
    """Return an attribute with arrays in arrays, which end with 1.9 million empty values."""
    value = b"\x0a\x00" * 1_900_000
    for _ in range(40):
        value = delimited(5, delimited(1, delimited(5, value)))
    return _spans(delimited(2, delimited(9, delimited(2, delimited(5, value)))))


@cache
def jaeger_spans() -> bytes:
    """Return a `PostSpansRequest` with a batch of empty spans."""
    return delimited(1, b"\x0a\x00" * 9_900_000)


# JSON


@cache
def repeated(before: str, item: str, after: str) -> bytes:
    """Return JSON of 20 MB: `item` repeated, between `before` and `after`."""
    count = (LARGEST - len(before) - len(after) - 16) // (len(item) + 1)
    return (before + ",".join([item] * count) + after).encode()


@cache
def nested(opening: str, closing: str, depth: int = 5_000_000) -> bytes:
    return (opening * depth + closing * depth).encode()[:LARGEST]


@cache
def long_number(before: str, after: str) -> bytes:
    return (before + "1" * (LARGEST - 1000) + after).encode()


# Thrift (binary protocol: type, id, value; lists have an element type and a size)

_STRUCT, _LIST, _BOOL, _STOP = 12, 15, 2, b"\x00"


def _field(kind: int, number: int) -> bytes:
    return struct.pack(">bh", kind, number)


def _process() -> bytes:
    return _field(_STRUCT, 1) + _field(11, 1) + struct.pack(">i", 4) + b"shop" + _STOP


@cache
def thrift_bools() -> bytes:
    """Return a Jaeger batch with an undeclared field of 20 M booleans."""
    count = LARGEST - 100
    return _process() + _field(_LIST, 99) + struct.pack(">bi", _BOOL, count) + bytes(count) + _STOP


@cache
def thrift_spans() -> bytes:
    """Return a Jaeger batch of 20 M empty spans."""
    count = LARGEST - 100
    return _process() + _field(_LIST, 2) + struct.pack(">bi", _STRUCT, count) + bytes(count) + _STOP


@cache
def thrift_nested() -> bytes:
    """Return deeply nested structures."""
    return _process() + _field(_STRUCT, 99) * 5_000_000
