"""Convert serialized OTLP to OTLP/JSON on one line.

upb parses, and each message's table (field descriptor → function from value to `"name":value`) writes JSON text. The
messages are clones of the official ones in which attributes stay `bytes`. Attributes are most of a span and are usually
repeated, so the JSON of each is cached by its bytes, and only a new one is parsed.
"""

from __future__ import annotations

import base64
import binascii
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from otelwp_agent.codecs.otlp_json import schema
from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.message import Message

    from otelwp_agent.model.signal import Signal

    Value = Callable[[Any], bytes]
    """Converts the value of a field to JSON text."""
    Table = dict[FieldDescriptor, Value]

_MEMORY_ENTRIES = 8192
"""Maximum number of cached attributes, about 2 MB; when it is reached, all are removed."""

_MEMORY_SIZE = 127
"""Maximum size in bytes of a cached attribute."""

_pool = DescriptorPool()
_tables: dict[str, Table] = {}
_memory: dict[bytes, bytes] = {}


def encode(signal: Signal, body: bytes) -> bytes:
    """Convert a serialized request to JSON, without a line end; raise `MalformedError` if it is invalid."""
    try:
        return _text(_request(signal), body)
    except DecodeError as error:
        message = "the body is not a serialized OTLP export request"
        raise MalformedError(message) from error


def _text(kind: type[Message], body: bytes) -> bytes:
    """Parse `body` as a message of `kind` and return it as JSON."""
    message = kind.FromString(body)
    return _object(message, _tables[message.DESCRIPTOR.full_name])


def _object(message: Message, table: Table) -> bytes:
    """Return a message as a JSON object."""
    return b"{%b}" % b",".join([table[field](value) for field, value in message.ListFields()])


@cache
def _request(signal: Signal) -> type[Message]:
    """Return the class of a signal's request, in which attributes are bytes."""
    descriptor = schema.request(signal)
    _clone(descriptor.file)
    return _class(descriptor.full_name)


def _class(name: str) -> type[Message]:
    """Return the class of a message in our pool, after building its table."""
    descriptor = _pool.FindMessageTypeByName(name)
    _table(descriptor)
    return GetMessageClass(descriptor)


def _clone(file: FileDescriptor) -> None:
    """Add a file and its imports to our pool, in which every list of attributes is a list of bytes."""
    try:
        _pool.FindFileByName(file.name)
    except KeyError:
        for imported in file.dependencies:
            _clone(imported)
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        for message in proto.message_type:
            _leave_attributes(message, proto.package)
        _pool.AddSerializedFile(proto.SerializeToString())


def _leave_attributes(message: DescriptorProto, package: str) -> None:
    for nested in message.nested_type:
        _leave_attributes(nested, package)
    if f"{package}.{message.name}" == schema.KEY_VALUE_LIST:
        return  # so that upb's limit on nesting holds for an attribute as a whole
    for field in message.field:
        if field.type_name == f".{schema.KEY_VALUE}":
            field.ClearField("type_name")
            field.type = FieldDescriptorProto.TYPE_BYTES


def _table(descriptor: Descriptor) -> Table:
    """Return a message type's table: field descriptor → function from the field's value to `"name":value`."""
    table = _tables.get(descriptor.full_name)
    if table is None:
        # Added before it is complete, because an AnyValue can contain AnyValues.
        table = _tables[descriptor.full_name] = {}
        repeated = schema.repeated(descriptor)
        for field in descriptor.fields:
            table[field] = _field(field, repeated=field.name in repeated)
    return table


def _field(field: FieldDescriptor, *, repeated: bool) -> Value:
    name = b'"%b":' % field.json_name.encode()
    if field.message_type is not None:
        table = _table(field.message_type)
        if repeated:
            return lambda values: b"%b[%b]" % (name, b",".join([_object(value, table) for value in values]))
        return lambda value: name + _object(value, table)
    if repeated and field.type == FieldDescriptor.TYPE_BYTES:
        return _attributes(name)
    if repeated:
        text = _scalar(field, b"")
        return lambda values: b"%b[%b]" % (name, b",".join([text(value) for value in values]))
    return _scalar(field, name)


def _attributes(name: bytes) -> Value:
    def encode(values: list[bytes]) -> bytes:
        known = _memory.get
        return b"%b[%b]" % (name, b",".join([known(value) or _attribute(value) for value in values]))

    return encode


def _attribute(value: bytes) -> bytes:
    """Return a serialized KeyValue as JSON, and cache it if it is short."""
    text = _text(_key_value(), value)
    if len(value) <= _MEMORY_SIZE:
        if len(_memory) >= _MEMORY_ENTRIES:
            _memory.clear()
        _memory[value] = text
    return text


@cache
def _key_value() -> type[Message]:
    return _class(schema.KEY_VALUE)


def _scalar(field: FieldDescriptor, name: bytes) -> Value:
    """Return a function that writes `name` and one value of a field; the `%` of a template is a direct call into C."""
    kind = field.type
    if kind in _WIDE:
        return (name + b'"%d"').__mod__
    if kind in _NARROW:
        return (name + b"%d").__mod__
    if kind == FieldDescriptor.TYPE_BYTES:
        text = binascii.hexlify if field.name in schema.ID_LENGTHS else base64.b64encode
        return lambda value: b'%b"%b"' % (name, text(value))
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return lambda value: name + (orjson.dumps(value) if value - value == 0 else _NOT_FINITE[str(value)])
    return lambda value: name + orjson.dumps(value)


_NOT_FINITE = {"nan": b'"NaN"', "inf": b'"Infinity"', "-inf": b'"-Infinity"'}

_WIDE = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}
"""Types that are strings in JSON, because JavaScript's numbers cannot represent them."""

_NARROW = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_SFIXED32,
    FieldDescriptor.TYPE_ENUM,
}
"""Types that are numbers in JSON."""
