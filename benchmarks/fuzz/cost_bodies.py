"""Bodies that cost much to read for their size: the corpus of `fuzz_cost`.

Each function has a random source and a size in bytes as arguments, and returns a body of about that size.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Maker = Callable[[random.Random, int], bytes]

BOMB = 24 * 2**20
"""Decompressed size in bytes of the largest bodies: more than any receiver accepts."""
HUFFMAN_BLOCKS = bytes.fromhex(
    "04c0810800000000a0fda93f0170200200000000687fea4f001c880000000000da9ffa130007220000000080f6a7fe"
)
"""Four empty deflate blocks, each with Huffman tables that the decoder must build."""

JSON_ELEMENTS = (
    b"{}", b"[]", b'""', b"1", b"null", b"1.5e300", b"99999999999", b'{"":0}', b"[[]]", b'"\\ud800"',
    b'"\xe9"', b'"ab"',
    b"[" * 50 + b"]" * 50, b'{"key":"a","value":{"intValue":1}}', b'{"key":"a","value":{"arrayValue":{"values":[]}}}',
    b'{"traceId":"1","id":"1"}', b'{"traceID":"1","spanID":"1"}', b'{"key":"","value":""}', b'{"timestamp":1}',
)  # fmt: skip
JSON_PLACES = (
    b"[%b]", b"%b", b'[{"traceId":"1","id":"1","tags":{"a":[%b]}}]', b'[{"traceId":"1","id":"1","annotations":[%b]}]',
    b'[{"traceId":"1","id":"1","tags":[%b]}]', b'[{"traceId":"1","id":"1","binaryAnnotations":[%b]}]',
    b'{"resourceSpans":[%b]}', b'{"resourceSpans":[{"scopeSpans":[%b]}]}',
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}', b'{"resourceSpans":[{"resource":{"attributes":[%b]}}]}',
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"events":[%b]}]}]}]}', b'{"resourceMetrics":[%b]}',
    b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[%b]}]}]}',
    b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}',
    b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[%b]}]}}]}]}]}',
    b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"arrayValue":{"values":[%b]}}}]}]}]}',
    b'{"data":[%b]}', b'{"data":[{"spans":[%b]}]}', b'{"data":[{"spans":[{"spanID":"1","tags":[%b]}]}]}',
    b'{"data":[{"spans":[{"spanID":"1","logs":[%b]}]}]}', b'{"data":[{"spans":[{"spanID":"1","references":[%b]}]}]}',
)  # fmt: skip


def json_body(chance: random.Random, size: int) -> bytes:
    """Return JSON that repeats a small element where lists are expected, or an object with many keys."""
    if not chance.randrange(8):
        pairs = (b'"%x":%b' % (number, chance.choice(JSON_ELEMENTS[:8])) for number in range(size // 12))
        return chance.choice(JSON_PLACES) % (b"{%b}" % b",".join(pairs))
    element = b",".join(chance.choices(JSON_ELEMENTS, k=chance.choice((1, 1, 2))))
    return chance.choice(JSON_PLACES) % b",".join([element] * (size // (len(element) + 1) + 1))


def varint(number: int) -> bytes:
    """Return a varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def protobuf_body(chance: random.Random, size: int) -> bytes:
    """Return a repeated small field, nested in fields with small numbers."""
    field = b"".join(
        chance.choice((
            bytes([chance.choice((1, 2, 3, 4, 5, 6, 9, 11, 13)) << 3 | 2, 0]),
            bytes([chance.choice((1, 2, 5, 9)) << 3 | 2, 2, chance.choice((1, 2, 5)) << 3 | 2, 0]),
            bytes([chance.randrange(1, 16) << 3, 1]),
            b"\x2a\0\x3a\0\x4a\0",
            b"\x0b\x0c" * chance.choice((1, 40)),
            b"\xf8\xff\xff\xff\x0f\1",
            b"\x0a\x04\x0a\x02\x0a\0",
            b"\x0a\6\x0a\1\1\x1a\1\1",
            b"\x12\x14\x0a\1\1\x12\1\1\x22\x0c\x0a\1\1\x1a\7service",
        ))
        for _ in range(chance.choice((1, 1, 1, 3)))
    )  # fmt: skip
    body = field * (size // len(field) + 1)
    for _ in range(chance.randrange(7)):
        body = bytes([chance.choice((1, 2, 2, 5, 9, 11)) << 3 | 2]) + varint(len(body)) + body
    return body


def thrift_list(kind: int, count: int, element: bytes) -> bytes:
    """Return a list of `count` equal elements."""
    return struct.pack(">bi", kind, count) + element * count


THRIFT_ELEMENTS = (
    (2, b"\1"), (3, b"\0"), (6, b"\0\0"), (8, bytes(4)), (10, bytes(8)), (11, bytes(4)), (12, b"\0"),
    (15, b"\2\0\0\0\0"), (13, bytes(6)), (12, b"\x02\0\1\1\0"),
    (12, b"\x0a\0\1" + bytes(7) + b"\1\x0a\0\3" + bytes(7) + b"\1\0"),
    (12, b"\x0b\0\1\0\0\0\1a\x08\0\2\0\0\0\2\x02\0\5\1\0"), (12, b"\x0b\0\1\0\0\0\0\0"),
)  # fmt: skip


def thrift_body(chance: random.Random, size: int) -> bytes:
    """Return a batch with a long list in one of the fields with lists."""
    kind, element = chance.choice(THRIFT_ELEMENTS)
    many = thrift_list(kind, size // len(element) + 1, element)
    place = chance.randrange(5)
    process = b"\x0c\0\1\0"
    if place == 0:
        return process + b"\x0f\0\2" + many + b"\0"
    if place == 1:
        return b"\x0c\0\1\x0f\0\2" + many + b"\0\x0f\0\2" + thrift_list(12, 0, b"") + b"\0"
    span = b"\x0a\0\1" + bytes(7) + b"\1\x0a\0\3" + bytes(7) + b"\1"
    field = (b"\x0f\0\x0a", b"\x0f\0\x06", b"\x0f\0\x0b")[place - 2]
    return process + b"\x0f\0\2" + thrift_list(12, 1, span + field + many + b"\0") + b"\0"


def gzip_body(chance: random.Random, size: int) -> bytes:
    """Return empty members, blocks and headers, or a decompression bomb."""
    return chance.choice((
        lambda: gzip.compress(b"") * (size // 20 + 1),
        lambda: gzip.compress(gzip.compress(b"") * min(size * 20, BOMB // 20), 1),
        lambda: gzip.compress(gzip.compress(bytes(BOMB), 1), 1),
        lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * size,
        lambda: gzip.compress(bytes(min(size * 1000, BOMB)), 1),
        lambda: gzip.compress(chance.randbytes(200)) * (size // 220 + 1),
        lambda: gzip.compress(b"x") + chance.randbytes(size),
        lambda: gzip_member(deflate_body(chance, size)),
        lambda: gzip.compress(gzip_member(deflate_body(chance, min(size * 10, BOMB // 50)))),
    ))()  # fmt: skip


def gzip_member(deflated: bytes) -> bytes:
    """Return a gzip member with these deflate blocks; its checksum and size are those of no data."""
    return b"\x1f\x8b\x08\0" + bytes(6) + deflated + bytes(8)


def deflate_body(chance: random.Random, size: int) -> bytes:
    """Return empty or small blocks of raw deflate, without a zlib header."""
    if not chance.randrange(3):
        return HUFFMAN_BLOCKS * (size // len(HUFFMAN_BLOCKS)) + b"\1\0\0\xff\xff"
    if chance.randrange(2):
        return b"\0\0\0\xff\xff" * (size // 5) + b"\1\0\0\xff\xff"
    deflater = zlib.compressobj(9, wbits=-15)
    parts = []
    for _ in range(size // 16):
        parts += [deflater.compress(chance.randbytes(chance.randrange(1, 9))), deflater.flush(zlib.Z_FULL_FLUSH)]
    return b"".join([*parts, deflater.flush()])


def zlib_body(chance: random.Random, size: int) -> bytes:
    """Return several streams, or a decompression bomb."""
    return chance.choice((
        lambda: zlib.compress(b"") * (size // 8 + 1),
        lambda: zlib.compress(bytes(min(size * 1000, BOMB)), 1),
        lambda: zlib.compress(zlib.compress(bytes(BOMB), 1), 1),
        lambda: zlib.compress(b"\x78\x01" + deflate_body(chance, min(size * 10, BOMB // 50)) + b"\0\0\0\1"),
    ))()  # fmt: skip


def zstd_body(chance: random.Random, size: int) -> bytes:
    """Return empty frames and blocks, or a decompression bomb."""
    head = b"\x28\xb5\x2f\xfd\0\x48"
    compressor = zstandard.ZstdCompressor()
    return chance.choice((
        lambda: compressor.compress(b"") * (size // 9 + 1),
        lambda: (b"\x50\x2a\x4d\x18" + bytes(4)) * (size // 8 + 1),
        lambda: head + bytes(size // 3 * 3) + b"\1\0\0",
        lambda: head + b"\2\0\x10\0" * (size // 4) + b"\3\0\0\0",
        lambda: head + b"\2\0\0\0" * (size // 4) + b"\3\0\0\0",
        lambda: compressor.compress(bytes(min(size * 1000, BOMB))),
        lambda: compressor.compress(compressor.compress(b"") * min(size * 10, BOMB // 9)),
        lambda: b"".join(compressor.compress(chance.randbytes(3)) for _ in range(size // 12)),
        lambda: compressor.compress(b"x") + chance.randbytes(size),
    ))()  # fmt: skip
