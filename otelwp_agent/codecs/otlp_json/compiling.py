"""Compile the tables of messages for the extension module, which converts usual values without Python code.

The C code (`native/convert.c`) follows the same tables: for each message type, its fields by their names. Values that
it does not convert (numbers with a fraction in a string, names of enums, base64, lists of numbers) are converted by the
field's Python function. If any value is invalid, the C code gives up, and Python converts the whole document again and
raises the error.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from otelwp_agent.codecs.otlp_json import schema
from otelwp_agent.codecs.otlp_json.scalars import REQUIRED_IDS, WIRE_TYPES
from otelwp_agent.model import native
from otelwp_agent.model.wire import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import Descriptor

    Encode = Callable[[Any, int], bytes]
    """Converts a JSON value, and the depth of the message that contains it, to a serialized field."""


class FieldKind(IntEnum):
    """How C converts a field; the names and numbers are those of native/convert.h."""

    CALLED = 0
    TEXT = 1
    BOOLEAN = 2
    VARIED = 3
    FIXED_32 = 4
    FIXED_64 = 5
    SIGNED_64 = 6
    DOUBLE = 7
    ENUM = 8
    IDENTIFIER = 9
    MESSAGE = 10
    MESSAGES = 11


_KINDS = {
    FieldDescriptor.TYPE_STRING: FieldKind.TEXT,
    FieldDescriptor.TYPE_BOOL: FieldKind.BOOLEAN,
    FieldDescriptor.TYPE_FIXED32: FieldKind.FIXED_32,
    FieldDescriptor.TYPE_FIXED64: FieldKind.FIXED_64,
    FieldDescriptor.TYPE_SFIXED64: FieldKind.SIGNED_64,
    FieldDescriptor.TYPE_DOUBLE: FieldKind.DOUBLE,
    FieldDescriptor.TYPE_ENUM: FieldKind.ENUM,
}
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 63) - 1),
}
"""The varints that C converts; Python converts greater ones."""


class Converter:
    """Converts documents of one message type."""

    __slots__ = ("_convert", "_indexes", "messages")

    def __init__(self, convert: Callable[[object, int, int], bytes | None], indexes: Mapping[str, int]) -> None:
        """Use `convert` of the extension module; `indexes` has the index of each message type's table."""
        self._convert = convert
        self._indexes = indexes
        self.messages = tuple(indexes)
        """The full names of all message types that documents can contain."""

    def message(self, document: object) -> bytes | None:
        """Return the serialized fields of a document, or `None` if Python must convert it."""
        return self._convert(document, 0, 1)

    def list_of(self, message: str, name: str, values: list[Any], depth: int) -> bytes | None:
        """Return `values` as the field `name` of a message type, as `message` does."""
        return self._convert({name: values}, self._indexes[message], depth)


def compiled(request: Descriptor, tables: Mapping[str, Mapping[str, Encode]]) -> Converter | None:
    """Return a converter of a request; `None` if the extension module is not available.

    `tables` has for each message type, by its full name, the Python function of each field.
    """
    if native.extension is None:
        return None
    types = [request]
    compiled_tables = []
    for each in types:  # `_field` appends to it
        repeated = schema.repeated(each)
        fields = tuple(
            _field(field, types, tables[each.full_name][field.name], repeated=field.name in repeated)
            for field in each.fields
        )
        names = {name: place for place, field in enumerate(each.fields) for name in (field.name, field.json_name)}
        compiled_tables.append((names, fields))
    convert = native.extension.converter(tuple(compiled_tables)).convert
    return Converter(convert, {each.full_name: place for place, each in enumerate(types)})


def _field(field: FieldDescriptor, types: list[Descriptor], encode: Encode, *, repeated: bool) -> tuple[Any, ...]:
    """Return a field in the order in which native/convert_plan.c reads it."""
    kind, child, optional, (low, high) = FieldKind.CALLED, 0, False, (0, 0)
    if field.message_type is not None:
        kind = FieldKind.MESSAGES if repeated else FieldKind.MESSAGE
        if field.message_type not in types:
            types.append(field.message_type)
        child = types.index(field.message_type)
    elif not repeated and field.type == FieldDescriptor.TYPE_BYTES and field.name in schema.ID_LENGTHS:
        kind, child = FieldKind.IDENTIFIER, schema.ID_LENGTHS[field.name]
        optional = field.full_name not in REQUIRED_IDS
    elif not repeated and field.type in _RANGES:
        kind, (low, high) = FieldKind.VARIED, _RANGES[field.type]
    elif not repeated:
        kind = _KINDS.get(field.type, FieldKind.CALLED)
    tag = varint(field.number << 3 | WIRE_TYPES.get(field.type, 0))
    return kind, tag, child, optional, low, high, encode
