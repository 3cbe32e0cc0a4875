"""Protobuf's wire form, written by hand: varints, and what stands before a length-delimited field.

For codecs that write messages straight from what they read, without building them first.
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """Return a base-128 varint; negative numbers are written as 64-bit two's complement."""
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
"""The varints that lengths and small numbers need, made once."""


def prefixed(tag: bytes, body: bytes) -> bytes:
    """Return a length-delimited field."""
    size = len(body)
    return b"%b%b%b" % (tag, VARINTS[size] if size < SMALL else varint(size), body)
