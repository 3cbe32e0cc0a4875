"""Read Thrift's binary protocol (thrift/doc/specs/thrift-binary-protocol.md) into plain values, with limits.

A struct becomes a dict by field id, a list or set becomes a list, a string or binary becomes `bytes`. A list of tags in
the usual layout becomes a list of the tags' bytes, because most tags of a span are repeated and can be cached. Data
that claim more elements than there are bytes, or are nested more deeply than Jaeger's, are refused before memory is
used.
"""

from __future__ import annotations

import struct
from typing import Any

from otelwp_agent.errors import MalformedError

MAX_DEPTH = 16
"""Maximum number of nested structs and lists: the tags of logs of spans in a list of batches have level 8."""

BYTES_PER_STRUCT = 16
"""Minimum number of bytes per struct, on average. The smallest of Jaeger, a tag of type bool, has 25."""

BYTES_PER_VALUE, FREE_VALUES = 4, 256
"""Minimum number of bytes per value, on average, above this many values.

The smallest field, a bool, has 4; Jaeger sends only lists of structs and strings, which have more.
"""

_BOOL, _BYTE, _DOUBLE, _I16, _I32, _I64, _STRING, _STRUCT, _MAP, _SET, _LIST = 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15

_FIXED = {
    _BOOL: struct.Struct(">?").unpack_from,
    _BYTE: struct.Struct(">b").unpack_from,
    _DOUBLE: struct.Struct(">d").unpack_from,
    _I16: struct.Struct(">h").unpack_from,
    _I32: struct.Struct(">i").unpack_from,
    _I64: struct.Struct(">q").unpack_from,
}
_SIZES = {_BOOL: 1, _BYTE: 1, _DOUBLE: 8, _I16: 2, _I32: 4, _I64: 8, _STRING: 4, _STRUCT: 1, _MAP: 6, _SET: 5, _LIST: 5}
"""Minimum size in bytes of a value of each type."""

_header = struct.Struct(">bh").unpack_from
_length = struct.Struct(">i").unpack_from
_elements = struct.Struct(">bi").unpack_from
_pairs = struct.Struct(">bbi").unpack_from


class Reader:
    """Reads values from `data`, from the start."""

    __slots__ = ("_data", "_elements", "_position", "_structs")

    def __init__(self, data: bytes, most: int = 1 << 31) -> None:
        """Start at the first byte; at most `most` structs may be read."""
        self._data = data
        self._position = 0
        self._structs = min(len(data) // BYTES_PER_STRUCT + 2, most)
        self._elements = len(data) // BYTES_PER_VALUE + FREE_VALUES

    def message(self) -> dict[int, Any]:
        """Return the struct in `data`, without the envelope of a message."""
        try:
            self._skip_envelope()
            return self._struct(1)
        except struct.error:
            message = f"the Thrift body is cut short: it ends within the value at byte {self._position}"
            raise MalformedError(message) from None

    def _skip_envelope(self) -> None:
        """Skip the type, name and sequence number of a message, in both encodings."""
        data = self._data
        if data[:2] == b"\x80\x01":
            (size,) = _length(data, 4)
            position = 12
        elif data[:1] == b"\0":
            (size,) = _length(data, 0)
            position = 9
        else:
            return
        self._check(size, 1)
        self._position = position + size

    def _struct(self, depth: int) -> dict[int, Any]:
        self._structs -= 1
        if depth > MAX_DEPTH or self._structs < 0:
            message = f"the Thrift body is nested too deeply, or has too many structs, at byte {self._position}"
            raise MalformedError(message)
        data, position = self._data, self._position
        fields: dict[int, Any] = {}
        while True:
            kind, number = _header(data, position) if data[position : position + 1] != b"\0" else (0, 0)
            if not kind:
                self._position = position + 1
                return fields
            fixed = _FIXED.get(kind)
            if fixed is not None:
                (fields[number],) = fixed(data, position + 3)
                position += 3 + _SIZES[kind]
            else:
                self._position = position + 3
                fields[number] = self._value(kind, depth)
                position = self._position

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401 - depends on the type
        unpack = _FIXED.get(kind)
        if unpack is not None:
            (value,) = unpack(self._data, self._position)
            self._position += _SIZES[kind]
            return value
        if kind == _STRING:
            (size,) = _length(self._data, self._position)
            self._position += 4
            self._check(size, 1)
            begin = self._position
            self._position = begin + size
            return self._data[begin : self._position]
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind in {_LIST, _SET}:
            return self._list(depth + 1)
        if kind == _MAP:
            return self._map(depth + 1)
        message = f"the Thrift body has a value of the unknown type {kind} at byte {self._position}"
        raise MalformedError(message)

    def _list(self, depth: int) -> list[Any]:
        kind, size = _elements(self._data, self._position)
        self._position += 5
        self._check(size, _SIZES.get(kind, 1))
        self._check_depth(depth)
        if kind != _STRUCT:  # structs have a budget of their own
            self._spend(size)
        tags = self._tags(size) if kind == _STRUCT else None
        return [self._value(kind, depth) for _ in range(size)] if tags is None else tags

    def _tags(self, size: int) -> list[Any] | None:
        """Return the serialized tags of a list of structs; `None` if one of them is not a tag in the usual layout."""
        data, position = self._data, self._position
        tags = []
        try:
            for _ in range(size):
                end = _end_of_tag(data, position)
                if not end:
                    return None
                tags.append(data[position:end])
                position = end
        except struct.error:
            return None
        self._position = position
        return tags

    def _map(self, depth: int) -> list[Any]:
        """Return the values of a map in their order; Jaeger sends no maps."""
        key, value, size = _pairs(self._data, self._position)
        self._position += 6
        self._check(size, _SIZES.get(key, 1) + _SIZES.get(value, 1))
        self._check_depth(depth)
        self._spend(2 * size)
        return [(self._value(key, depth), self._value(value, depth))[1] for _ in range(size)]

    def _check(self, size: int, smallest: int) -> None:
        if size < 0 or size * smallest > len(self._data) - self._position:
            message = f"the Thrift body claims more at byte {self._position} than it has"
            raise MalformedError(message)

    def _spend(self, size: int) -> None:
        """Subtract elements from the budget before they are read."""
        self._elements -= size
        if self._elements < 0:
            message = f"the Thrift body has too many elements in lists for its size, at byte {self._position}"
            raise MalformedError(message)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            message = f"the Thrift body is nested too deeply at byte {self._position}"
            raise MalformedError(message)


def _end_of_tag(data: bytes, position: int) -> int:
    """Return the end of the tag at `position`: key (1), type (2) and one value, in this order; 0 if there is none."""
    if not data.startswith(_KEY, position):
        return 0
    (size,) = _length(data, position + 3)
    middle = position + 7 + size
    if size < 0 or not data.startswith(_TYPE, middle):
        return 0
    _, kind, _ = _value_head(data, middle + 3)
    end = middle + 10
    if kind == _STRING:
        (size,) = _length(data, end)
        if size < 0:
            return 0
        end += 4 + size
    elif kind in _FIXED:
        end += _SIZES[kind]
    else:
        return 0
    return end + 1 if data.startswith(b"\0", end) else 0


_KEY, _TYPE = b"\x0b\0\1", b"\x08\0\2"
"""Headers of the fields with a tag's key and type."""
_value_head = struct.Struct(">ibh").unpack_from
