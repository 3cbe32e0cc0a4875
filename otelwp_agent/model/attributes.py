"""Attribute values: create, read, find and set the `KeyValue`s of projections.

A value stays serialized (`bytes` of an AnyValue) until its content is needed.
"""

from __future__ import annotations

import base64
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    Attributes = MutableSequence[pb.KeyValue]

Raw = bool | int | float | str | list["Raw"] | dict[str, "Raw"] | None
"""A value of YAML or JSON; its type determines the type of the attribute."""

INT64 = range(-(2**63), 2**63)
"""The integers that an attribute can have."""
_DEEPEST = 64
"""Deepest nesting of arrays and maps that is written as JSON; deeper values are written as null."""


def to_any(raw: Raw) -> pb.AnyValue:  # noqa: PLR0911 - one for each type
    """Return a YAML value as an attribute value; raise `ValueError` for an integer that needs more than 64 bits."""
    if isinstance(raw, bool):
        return pb.AnyValue(bool_value=raw)
    if isinstance(raw, int):
        if raw not in INT64:
            message = f"{raw} does not fit an integer attribute (64 bits, signed)"
            raise ValueError(message)
        return pb.AnyValue(int_value=raw)
    if isinstance(raw, float):
        return pb.AnyValue(double_value=raw)
    if isinstance(raw, str):
        return pb.AnyValue(string_value=raw.encode())
    if isinstance(raw, list):
        return pb.AnyValue(array_value=pb.ArrayValue(values=[to_any(item) for item in raw]))
    if isinstance(raw, dict):
        pairs = [pb.KeyValue(key=key.encode(), value=encode(item)) for key, item in raw.items()]
        return pb.AnyValue(kvlist_value=pb.KeyValueList(values=pairs))
    return pb.AnyValue()


def encode(raw: Raw) -> bytes:
    """Return a YAML value as a serialized AnyValue."""
    return to_any(raw).SerializeToString()


def decode(value: bytes) -> pb.AnyValue:
    """Parse a serialized AnyValue; return an empty one if it is invalid."""
    try:
        return pb.AnyValue.FromString(value)
    except DecodeError:
        return pb.AnyValue()


def as_string(value: pb.AnyValue) -> str:  # noqa: PLR0911 - one for each type
    """Return a value as text: JSON for arrays and maps, base64 for bytes, "" for an empty value."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value.decode(errors="replace")
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return format_float(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return ""
        case _:
            return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def format_float(number: float) -> str:
    """Return a double as Go and JavaScript write it in JSON: `1`, not `1.0`; exponents below 1e-6 and from 1e21."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if number == 0:
        return "-0" if math.copysign(1, number) < 0 else "0"
    text = repr(number)
    if 1e-6 <= abs(number) < 1e21:  # noqa: PLR2004 - as encoding/json
        return format(Decimal(text.removesuffix(".0")), "f")
    digits, _, exponent = text.partition("e")
    return f"{digits}e{int(exponent):+d}"


def find(attributes: Attributes, key: bytes) -> pb.KeyValue | None:
    """Return the first attribute with `key`, or `None`."""
    for attribute in attributes:
        if attribute.key == key:
            return attribute
    return None


def put(attributes: Attributes, key: bytes, value: bytes) -> bool:
    """Set the value of an attribute, or append the attribute if it does not exist; return whether it changed."""
    attribute = find(attributes, key)
    if attribute is None:
        attributes.append(pb.KeyValue(key=key, value=value))
        return True
    if attribute.value == value:
        return False
    attribute.value = value
    return True


def _plain(value: pb.AnyValue, depth: int = 0) -> object:  # noqa: PLR0911 - one for each type
    """Return a value as data for JSON."""
    match value.WhichOneof("value"):
        case "array_value" | "kvlist_value" if depth == _DEEPEST:
            return None
        case "array_value":
            return [_plain(item, depth + 1) for item in value.array_value.values]
        case "kvlist_value":
            pairs = value.kvlist_value.values
            return {pair.key.decode(errors="replace"): _plain(decode(pair.value), depth + 1) for pair in pairs}
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value" if math.isfinite(value.double_value):
            return value.double_value
        case None:
            return None
        case _:
            return as_string(value)
