"""Count the messages in a serialized message before objects are created, and check that it parses.

A schema defines what is counted. It has `TYPE` bytes for each message type, starting with the type of the whole
message. For each field number below 32 it contains three bytes: the index of the field's message type plus 1 (0: the
field is not counted; 255: it is counted, but its contents are not), the weight of an occurrence, and flags. Packed
varints have the weight 0: they are described for `cutting`. `native/count.c` and `count` read the same schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Collection

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

MALFORMED, BEYOND_LIMIT = -1, -2
"""Results of `count` other than a number of items."""

FIELDS, ENTRY = 32, 3
TYPE = FIELDS * ENTRY
LEAF = 255
_ITEM, _HOLDER, _ALTERNATIVE, PACKED = 1, 2, 4, 8
_ITEMS = frozenset({"otelwp.projection.ShapeScope.items", "otelwp.projection.PointShapeData.data_points"})
MAX_NESTING = 100
"""Maximum nesting of messages and groups, the same as in the protobuf library."""
_MAX_TAG = 2**32 - 1
SHORT, _LONG = 5, 10
"""Maximum bytes of a tag or length, and of a number."""
_VARINT, _FIXED64, LENGTH, GROUP, _END_GROUP, _FIXED32 = range(6)
_SIZES = {_FIXED64: 8, _FIXED32: 4}


class WireError(Exception):
    """The bytes are not a serialized message."""


def schema(
    kind: type[Message], *, weight: int = 1, weighty: Collection[str] | None = None, leaves: Collection[str] = ()
) -> bytes:
    """Return a schema that counts all messages in a message of type `kind`, and all repeated strings and bytes.

    An element of a field in `weighty` (full names; by default all repeated fields) has the weight `weight`, any other
    1. Messages of the types in `leaves` (full names) are counted, but their contents are not.
    """
    types: list[Descriptor] = [kind.DESCRIPTOR]  # type: ignore[list-item]  # upb's descriptors have the same interface
    data = bytearray()
    for each in types:  # `_child` appends to it
        entries = bytearray(TYPE)
        for field in each.fields:
            if field.number < FIELDS and field.type in _COUNTED and (field.message_type or field.is_repeated):
                child = _child(field, types, leaves)
                heavy = field.is_repeated if weighty is None else field.full_name in weighty
                entry = bytes((child, weight if heavy else 1, _flags(field)))
            elif field.number < FIELDS and field.type in _VARINTS and field.is_repeated:
                entry = bytes((LEAF, 0, PACKED))
            else:
                continue
            entries[field.number * ENTRY : (field.number + 1) * ENTRY] = entry
        data += entries
    return bytes(data)


_COUNTED = {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_VARINTS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
}


def _child(field: FieldDescriptor, types: list[Descriptor], leaves: Collection[str]) -> int:
    message = field.message_type
    if message is None or message.full_name in leaves:
        return LEAF
    if message not in types:
        types.append(message)
    return types.index(message) + 1


def _flags(field: FieldDescriptor) -> int:
    if field.full_name in _ITEMS:
        return _ITEM
    if field.message_type is not None and field.is_repeated and field.message_type.oneofs:
        return _HOLDER
    return _ALTERNATIVE if field.containing_oneof is not None else 0


def count(body: bytes, schema: bytes, limit: int) -> int:
    """Return the number of items in a message, `MALFORMED`, or `BEYOND_LIMIT` if the total weight exceeds `limit`.

    Items are the elements of the fields in `_ITEMS`. Of the alternatives of a `oneof`, only the items of the last one
    count, as in protobuf.
    """
    try:
        return _count(body, schema, limit)
    except (WireError, IndexError):
        return MALFORMED


def _count(body: bytes, schema: bytes, limit: int) -> int:  # noqa: C901 - one loop
    levels: list[tuple[int, int]] = []
    at, end, kind = 0, len(body), 0
    weight = items = before_alternative = alternative = 0
    while True:
        while at == end:
            if not levels:
                return items
            end, kind = levels.pop()
        tag, at = read_varint(body, at, end, SHORT)
        entry = kind * TYPE + (tag >> 3) * ENTRY
        if tag & 7 != LENGTH or tag >> 3 >= FIELDS or not schema[entry]:
            at = skip(body, at, end, tag, len(levels))
            continue
        size, at = read_varint(body, at, end, SHORT)
        if size > end - at:
            return MALFORMED
        child, unit, flags = schema[entry : entry + ENTRY]
        weight += unit
        if weight > limit:
            return BEYOND_LIMIT
        if flags == _ITEM:
            items += 1
        elif flags == _HOLDER:
            alternative, before_alternative = 0, items
        elif flags == _ALTERNATIVE and tag != alternative:
            alternative, items = tag, before_alternative
        if child == LEAF:
            at += size
            continue
        if len(levels) >= MAX_NESTING:
            return MALFORMED
        levels.append((end, kind))
        end, kind = at + size, child - 1


def read_varint(body: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    """Return the varint at `at`, of at most `most` bytes, and the position after it. Raises `WireError`."""
    number = shift = 0
    for at in range(at, min(end, at + most)):  # noqa: B020, PLR1704 - the position is returned
        byte = body[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte
            return number, at + 1
        shift += 7
    raise WireError


def skip(body: bytes, at: int, end: int, tag: int, depth: int) -> int:
    """Return the end of a field whose tag has been read; `depth` is the nesting of its message.

    Raises `WireError` or `IndexError` if the field is malformed.
    """
    kind = tag & 7
    if not 7 < tag <= _MAX_TAG:  # noqa: PLR2004 - field number 0
        raise WireError
    if kind == _VARINT:
        return read_varint(body, at, end, _LONG)[1]
    if kind == LENGTH:
        size, at = read_varint(body, at, end, SHORT)
    elif kind == GROUP:
        return _skip_group(body, at, end, tag, depth)
    elif kind in _SIZES:
        size = _SIZES[kind]
    else:
        raise WireError
    if size > end - at:
        raise WireError
    return at + size


def _skip_group(body: bytes, at: int, end: int, tag: int, depth: int) -> int:
    open_groups = [tag >> 3]
    while open_groups:
        if depth + len(open_groups) > MAX_NESTING:
            raise WireError
        tag, at = read_varint(body, at, end, SHORT)
        if tag & 7 == GROUP and 7 < tag <= _MAX_TAG:  # noqa: PLR2004 - field number 0
            open_groups.append(tag >> 3)
        elif tag & 7 == _END_GROUP:
            if open_groups.pop() != tag >> 3:
                raise WireError
        else:
            at = skip(body, at, end, tag, depth)
    return at
