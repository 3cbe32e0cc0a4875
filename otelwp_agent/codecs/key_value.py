"""Serialize attributes directly, for codecs that read other formats."""

from __future__ import annotations

import struct

from otelwp_agent.model.wire import SMALL, VARINTS, varint

Value = str | bool | int | float | bytes
"""Types of an attribute's value, except lists and maps."""

_INT64 = range(-(1 << 63), 1 << 63)
_double = struct.Struct("<Bd").pack


def size_of(body: bytes) -> bytes:
    """Return the length of `body` as a varint."""
    size = len(body)
    return VARINTS[size] if size < SMALL else varint(size)


def attribute(key: str, value: Value) -> bytes:
    """Return a length-prefixed `KeyValue` (common.proto: key 1, value 2)."""
    if isinstance(value, str):
        text = value.encode()
        any_value = b"\x0a%b%b" % (size_of(text), text)
    elif isinstance(value, bool):
        any_value = b"\x10\1" if value else b"\x10\0"
    elif isinstance(value, int) and value in _INT64:
        any_value = b"\x18" + varint(value)
    elif isinstance(value, bytes):
        any_value = b"\x3a%b%b" % (size_of(value), value)
    else:
        any_value = _double(0x21, float(value))
    name = key.encode()
    body = b"\x0a%b%b\x12%b%b" % (size_of(name), name, size_of(any_value), any_value)
    return size_of(body) + body


def text_attribute(key: bytes, text: bytes) -> bytes:
    """Return a length-prefixed `KeyValue` of a key and a string that are UTF-8 already."""
    value = b"\x0a%b%b" % (size_of(text), text)
    body = b"\x0a%b%b\x12%b%b" % (size_of(key), key, size_of(value), value)
    return size_of(body) + body
