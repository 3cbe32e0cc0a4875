"""Convert OTLP/JSON to serialized protobuf.

orjson parses the JSON, and each message's table (JSON key → function from value to serialized field) serializes it: in
C if the extension module is available (`compiling`), else in Python, where the results for short attributes are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs.otlp_json import schema
from otelwp_agent.codecs.otlp_json.compiling import Converter, compiled
from otelwp_agent.codecs.otlp_json.memory import remembered
from otelwp_agent.codecs.otlp_json.scalars import WIRE_TYPES, Wrong, scalar, wrong
from otelwp_agent.errors import MalformedError
from otelwp_agent.model import json_slices
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, too_many
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from otelwp_agent.model.signal import Signal

    Field = Callable[[Any, int], bytes]
    Table = dict[str, Field]

_PLACE_PARTS = 16
"""Maximum number of parts of a position in an error message, from the outermost."""


def decode(signal: Signal, data: bytes, max_items: int = DEFAULT_MAX_ITEMS) -> bytes:
    """Convert a request in OTLP/JSON to serialized protobuf; raise `MalformedError` with the position of an error.

    Raises `TooLargeError` if a large document contains too many values for `max_items`. May run in any thread.
    """
    document = _load(data) if len(data) < json_slices.LARGE else json_slices.loads(data, _load, max_items, "all")
    table, converter = _requests.get(signal) or _request(signal)
    try:
        converted = None if converter is None else converter.message(document)
        return _body(table, document, 1) if converted is None else converted
    except Wrong as error:
        message = f"{_place(error.path)}: {error}"
        raise MalformedError(message) from None


def _load(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON: {error}"
        raise MalformedError(message) from None


def _request(signal: Signal) -> tuple[Table, Converter | None]:
    """Build the tables of a signal's messages. Other threads see only complete tables."""
    tables = _tables.copy()
    descriptor = schema.request(signal)
    table = _table(descriptor, tables)
    _tables.update(tables)
    converter = compiled(descriptor, tables)
    if converter is not None:
        _converters.update(dict.fromkeys(converter.messages, converter))
    _requests[signal] = table, converter
    return table, converter


def _place(path: list[str | int]) -> str:
    """Return a path, collected from the innermost part, in the form `resourceSpans[0].scopeSpans[2]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in reversed(path)]
    more = "…" if len(parts) > _PLACE_PARTS else ""
    return "".join(parts[:_PLACE_PARTS]).lstrip(".") + more if parts else "the body"


def _body(table: Table, document: object, depth: int) -> bytes:
    """Return the serialized fields of a message."""
    if type(document) is not dict:
        if document == [] and type(document) is list:
            return b""
        raise wrong(document, "an object")
    if depth > schema.MAX_DEPTH:
        message = f"nested too deeply: {schema.MAX_DEPTH} levels of messages are the most"
        raise Wrong(message)
    fields = []
    key = ""
    try:
        for key, value in document.items():
            if value is not None and key in table:
                fields.append(table[key](value, depth))
    except Wrong as error:
        error.path.append(key)
        raise
    return b"".join(fields)


def _table(descriptor: Descriptor, tables: dict[str, Table]) -> Table:
    """Return the table of a message type, with both spellings of field names; add new tables to `tables`."""
    table = tables.get(descriptor.full_name)
    if table is None:
        # Added before it is complete, because an AnyValue can contain AnyValues.
        table = tables[descriptor.full_name] = {}
        repeated = schema.repeated(descriptor)
        for field in descriptor.fields:
            table[field.name] = table[field.json_name] = _field(field, tables, repeated=field.name in repeated)
    return table


_tables: dict[str, Table] = {}
_converters: dict[str, Converter] = {}
"""For each message type, by its full name, a converter with its table."""
_requests: dict[Signal, tuple[Table, Converter | None]] = {}


def _field(field: FieldDescriptor, tables: dict[str, Table], *, repeated: bool) -> Field:
    tag = varint(field.number << 3 | WIRE_TYPES.get(field.type, 0))
    if field.message_type is not None:
        table = _table(field.message_type, tables)
        if not repeated:
            return _message(tag, table)
        if field.message_type.full_name == schema.KEY_VALUE:
            return _attributes(tag, table, field)
        return _messages(tag, table, field)
    if not repeated:
        return scalar(field, tag)
    if WIRE_TYPES.get(field.type) == WIRE_TYPES[field.TYPE_STRING]:
        return _list(scalar(field, tag))
    return _packed(varint(field.number << 3 | 2), scalar(field, b""))


def _in_chunks(encode: Field, values: object, depth: int, field: FieldDescriptor | None = None) -> bytes:
    """Return the result of `encode` for the lists into which a long array was split.

    The lists of a repeated message `field` are converted in C where possible.
    """
    if type(values) is not json_slices.Sliced:
        raise wrong(values, "a list")
    message, _, name = ("" if field is None else field.full_name).rpartition(".")
    converter = _converters.get(message)
    out: list[bytes] = []
    index = 0
    for chunk in values.chunks():
        if index + len(chunk) > values.most:
            raise too_many(values.most)
        try:
            quick = None if converter is None else converter.list_of(message, name, chunk, depth)
            out.append(encode(chunk, depth) if quick is None else quick)
        except Wrong as error:
            error.path[-1] = index + int(error.path[-1])
            raise
        index += len(chunk)
    return b"".join(out)


def _message(tag: bytes, table: Table) -> Field:
    def encode(value: object, depth: int) -> bytes:
        return prefixed(tag, _body(table, value, depth + 1))

    return encode


def _element(table: Table, value: object, depth: int) -> bytes:
    """Return a serialized element of a list of messages; `null` is an empty one, to keep the other indexes."""
    return b"" if value is None else _body(table, value, depth + 1)


def _messages(tag: bytes, table: Table, field: FieldDescriptor) -> Field:
    def encode(values: object, depth: int) -> bytes:
        if type(values) is not list:
            return _in_chunks(encode, values, depth, field)
        out: list[bytes] = []
        try:
            for value in values:
                body = _element(table, value, depth)
                out += (tag, VARINTS[len(body)] if len(body) < SMALL else varint(len(body)), body)
        except Wrong as error:
            error.path.append(len(out) // 3)
            raise
        return b"".join(out)

    return encode


def _list(element: Field) -> Field:
    """Return the encoder of a repeated scalar; each element becomes a field, or a part of a packed field."""

    def encode(values: object, depth: int) -> bytes:
        if type(values) is not list:
            return _in_chunks(encode, values, depth)
        out: list[bytes] = []
        try:
            for value in values:
                out.append(element(value, depth))  # noqa: PERF401 - the error needs the index
        except Wrong as error:
            error.path.append(len(out))
            raise
        return b"".join(out)

    return encode


def _packed(tag: bytes, element: Field) -> Field:
    elements = _list(element)

    def encode(values: object, depth: int) -> bytes:
        body = elements(values, depth)
        return prefixed(tag, body) if body else b""

    return encode


def _attributes(tag: bytes, table: Table, field: FieldDescriptor) -> Field:
    def encode(values: object, depth: int) -> bytes:
        if type(values) is not list:
            return _in_chunks(encode, values, depth, field)
        out: list[bytes] = []
        try:
            for value in values:
                out += (tag, remembered(value) or prefixed(b"", _element(table, value, depth)))
        except Wrong as error:
            error.path.append(len(out) // 2)
            raise
        return b"".join(out)

    return encode
