"""Convert scalar fields in JSON to serialized fields: one factory for each protobuf type.

A factory gets the serialized field tag and returns a function from a JSON value (and its depth, which only messages
need) to the whole field. The package's docstring lists the valid forms of a value. An invalid value raises `Wrong`,
whose message names the valid form and never contains the value, because that is private telemetry.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf.descriptor import FieldDescriptor

from otelwp_agent.codecs.otlp_json.schema import ID_LENGTHS
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Field = Callable[[Any, int], bytes]
    """Converts a JSON value, and the depth of the message that contains it, to a serialized field."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{0,400})?([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_ID_NAMES = {16: "a trace id", 8: "a span id"}
_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class Wrong(Exception):  # noqa: N818 - never leaves the package: `decode` converts it to MalformedError
    """A value is invalid at its position; `path` collects the position from the innermost part."""

    def __init__(self, what: str) -> None:
        """Keep the message."""
        super().__init__(what)
        self.path: list[str | int] = []


def wrong(value: object, expected: str) -> Wrong:
    """Return the error for `value`, where `expected` is required."""
    return Wrong(f"{_KINDS.get(type(value), 'a value')}, where {expected} belongs")


def integer(value: object, low: int, high: int) -> int:
    """Return the integer in `value`, a number or a string; raise `Wrong` if it is not from `low` to `high`."""
    number: object = value
    if type(value) is str:
        if _INTEGER.fullmatch(value):
            number = int(value)
        elif _DECIMAL.fullmatch(value):
            number = float(value)
    if type(number) is float and number.is_integer():
        number = int(number)
    if type(number) is not int:
        raise wrong(value, f"an integer from {low} to {high}")
    if not low <= number <= high:
        message = f"out of range: an integer from {low} to {high} belongs here"
        raise Wrong(message)
    return number


def double(value: object) -> float:
    """Return the float in `value`, a number or a string; raise `Wrong` if it is not a number."""
    if type(value) is float or type(value) is int:
        return float(value)
    if type(value) is str:
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if _DECIMAL.fullmatch(value):
            return float(value)
    raise wrong(value, "a number, or NaN, Infinity or -Infinity in quotes,")


def _fixed(tag: bytes, format_: str, low: int, high: int) -> Field:
    pack = struct.Struct(f"<{len(tag)}s{format_}").pack
    loads = orjson.loads

    def encode(value: object, _depth: int = 0) -> bytes:
        try:
            # orjson reads digits faster than `int`, and accepts no underscores, inner blanks or digits of other
            # scripts.
            number = loads(value) if type(value) is str else value
            if type(number) is int:
                return pack(tag, number)
        except (ValueError, struct.error):
            pass
        return pack(tag, integer(value, low, high))

    return encode


def _varied(tag: bytes, low: int, high: int) -> Field:
    small = [tag + VARINTS[number] for number in range(128)]

    def encode(value: object, _depth: int = 0) -> bytes:
        if type(value) is int and 0 <= value < 128:  # noqa: PLR2004 - varints of one byte
            return small[value]
        return tag + varint(integer(value, low, high))

    return encode


def _zigzag(tag: bytes, bits: int) -> Field:
    limit = 1 << (bits - 1)

    def encode(value: object, _depth: int = 0) -> bytes:
        number = integer(value, -limit, limit - 1)
        return tag + varint(number << 1 if number >= 0 else (-number << 1) - 1)

    return encode


def _double(tag: bytes) -> Field:
    pack = struct.Struct(f"<{len(tag)}sd").pack

    def encode(value: object, _depth: int = 0) -> bytes:
        return pack(tag, value if type(value) is float else double(value))

    return encode


def _boolean(tag: bytes) -> Field:
    def encode(value: object, _depth: int = 0) -> bytes:
        if value is True:
            return tag + b"\1"
        if value is False:
            return tag + b"\0"
        raise wrong(value, "true or false")

    return encode


def _string(tag: bytes) -> Field:
    def encode(value: object, _depth: int = 0) -> bytes:
        if type(value) is not str:
            raise wrong(value, "a string")
        text = value.encode()
        size = len(text)
        if size < SMALL:
            return tag + VARINTS[size] + text
        return prefixed(tag, text)

    return encode


def _identifier(tag: bytes, size: int, *, optional: bool) -> Field:
    head = tag + VARINTS[size]
    unhexlify = binascii.unhexlify

    def encode(value: object, _depth: int = 0) -> bytes:
        if type(value) is not str:
            raise wrong(value, f"{_ID_NAMES[size]} of {2 * size} hex digits")
        try:
            raw = unhexlify(value)
        except ValueError:
            raw = b""
        if len(raw) == size:
            return head + raw
        if not value and optional:
            return b""
        if re.fullmatch("[0-9a-fA-F]*", value):
            message = f"{len(value)} hex digits: {_ID_NAMES[size]} has {2 * size}"
        else:
            message = f"not hex digits only: {_ID_NAMES[size]} has {2 * size} hex digits"
        raise Wrong(message)

    return encode


def _bytes(tag: bytes) -> Field:
    def encode(value: object, _depth: int = 0) -> bytes:
        if type(value) is not str:
            raise wrong(value, "base64 in a string")
        text = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return prefixed(tag, base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
        except ValueError:
            raise Wrong("not base64") from None

    return encode


def _enum(tag: bytes, names: Mapping[str, int], type_: str) -> Field:
    number = _varied(tag, -(1 << 31), (1 << 31) - 1)
    known = {name: tag + varint(value) for name, value in names.items()}

    def encode(value: object, _depth: int = 0) -> bytes:
        if type(value) is str and not _INTEGER.fullmatch(value):
            if value not in known:
                message = f"not a name of a {type_}: write one of {', '.join(known)}, or its number"
                raise Wrong(message)
            return known[value]
        return number(value, 0)

    return encode


def scalar(field: FieldDescriptor, tag: bytes) -> Field:
    """Return the encoder of a field that is not a message; `tag` is written before each value."""
    kind = field.type
    enum = field.enum_type
    if enum is not None:
        return _enum(tag, {value.name: value.number for value in enum.values}, enum.name)
    if kind == FieldDescriptor.TYPE_BYTES:
        size = ID_LENGTHS.get(field.name)
        if size is None:
            return _bytes(tag)
        return _identifier(tag, size, optional=field.full_name not in REQUIRED_IDS)
    return _MAKERS[kind](tag)


REQUIRED_IDS = {
    f"opentelemetry.proto.trace.v1.{name}"
    for name in ("Span.trace_id", "Span.span_id", "Span.Link.trace_id", "Span.Link.span_id")
}
"""Ids that must not be empty. A log record, an exemplar or a root span may have an empty id."""

_MAKERS: dict[int, Callable[[bytes], Field]] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _boolean,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FIXED32: lambda tag: _fixed(tag, "I", 0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED64: lambda tag: _fixed(tag, "Q", 0, (1 << 64) - 1),
    FieldDescriptor.TYPE_SFIXED64: lambda tag: _fixed(tag, "q", -(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_INT32: lambda tag: _varied(tag, -(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: lambda tag: _varied(tag, -(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: lambda tag: _varied(tag, 0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: lambda tag: _varied(tag, 0, (1 << 64) - 1),
    FieldDescriptor.TYPE_SINT32: lambda tag: _zigzag(tag, 32),
}
"""The factories of all scalar types that OTLP uses."""

WIRE_TYPES: dict[int, int] = {
    FieldDescriptor.TYPE_DOUBLE: 1,
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_SFIXED64: 1,
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_STRING: 2,
    FieldDescriptor.TYPE_BYTES: 2,
    FieldDescriptor.TYPE_MESSAGE: 2,
}
"""Protobuf's wire type of each field type; other types have 0 (varint)."""
