"""Parse the text of an annotation into an event: its name and, in the conventions of exporters, its attributes.

* `"name": {attributes}`, of the OpenTelemetry specification (the name is not always escaped);
* `name|{attributes}|dropped`, of the Collector;
* anything else is a name.
"""

from __future__ import annotations

import struct
from typing import Any

import orjson

from otelwp_agent.codecs.zipkin.fragments import DROPPED_ATTRIBUTES
from otelwp_agent.model.wire import prefixed, varint

_DEEPEST = 32
"""Maximum depth of lists and objects in attributes; deeper values are dropped."""

_INT64 = range(-(1 << 63), 1 << 63)
_UINT32 = range(1, 1 << 32)
_double = struct.Struct("<Bd").pack


def read(text: str) -> tuple[str, dict[str, Any], int]:
    """Return an event's name, its attributes and the number of dropped attributes."""
    try:
        if text.startswith('"'):
            return _specified(text)
        if text.endswith(tuple("0123456789")) and "|{" in text:
            return _collectors(text)
    except (ValueError, TypeError):
        pass
    return text, {}, 0


def _specified(text: str) -> tuple[str, dict[str, Any], int]:
    if not text.endswith("}"):
        name = orjson.loads(text)
        return name, {}, 0
    try:
        ((name, pairs),) = orjson.loads(f"{{{text}}}").items()
    except orjson.JSONDecodeError:
        quoted, _, rest = text.partition('":')  # a name that was not escaped
        name, pairs = quoted[1:], orjson.loads(rest)
    if type(pairs) is not dict:
        raise TypeError
    dropped = pairs.pop(DROPPED_ATTRIBUTES, 0)
    if type(dropped) is not int or dropped not in _UINT32:
        dropped = 0
    return name, pairs, dropped


def _collectors(text: str) -> tuple[str, dict[str, Any], int]:
    head, _, count = text.rpartition("|")
    name, _, members = head.partition("|")
    pairs = orjson.loads(members)
    if type(pairs) is not dict:
        raise TypeError
    return name, pairs, int(count) if len(count) < 10 else 0  # noqa: PLR2004 - at most 9 digits fit in 32 bits


def key_value(key: str, raw: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return a serialized `KeyValue` (common.proto: key 1, value 2) of a JSON value."""
    return prefixed(b"\x0a", key.encode()) + prefixed(b"\x12", _any_value(raw, 0))


def _any_value(raw: Any, depth: int) -> bytes:  # noqa: ANN401, PLR0911 - any JSON value; one return for each type
    if type(raw) is str:
        return prefixed(b"\x0a", raw.encode())
    if type(raw) is bool:
        return b"\x10\1" if raw else b"\x10\0"
    if type(raw) is int and raw in _INT64:
        return b"\x18" + varint(raw)
    if type(raw) is int or type(raw) is float:
        return _double(0x21, float(raw))
    if depth == _DEEPEST:
        return b""
    if type(raw) is list:
        return prefixed(b"\x2a", b"".join([prefixed(b"\x0a", _any_value(each, depth + 1)) for each in raw]))
    if type(raw) is dict:
        members = [
            prefixed(b"\x0a", prefixed(b"\x0a", key.encode()) + prefixed(b"\x12", _any_value(each, depth + 1)))
            for key, each in raw.items()
        ]
        return prefixed(b"\x32", b"".join(members))
    return b""
