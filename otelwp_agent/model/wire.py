"""Write the protobuf wire format: varints and length-delimited fields.

For codecs that write messages directly, without building message objects.
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """Return a number as base-128 varint; negative numbers as 64-bit two's complement."""
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


SMALL = 2048
VARINTS = [varint(number) for number in range(SMALL)]
"""Varints of small numbers, calculated once."""


def prefixed(tag: bytes, body: bytes) -> bytes:
    """Return a length-delimited field: `tag`, the length of `body` as varint, and `body`."""
    size = len(body)
    return b"%b%b%b" % (tag, VARINTS[size] if size < SMALL else varint(size), body)
