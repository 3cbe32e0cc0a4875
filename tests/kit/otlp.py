"""OTLP requests for property tests, drawn from the official descriptors, and what two of them are compared by.

A request is built as wire bytes, not as a message, so that it can hold what a message cannot: unknown fields, fields
that opentelemetry-proto has retired, fields in any order, one field twice, lists packed and unpacked.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import strategies as st

from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

SPINE = {
    "resource_spans", "resource_metrics", "resource_logs",
    "scope_spans", "scope_metrics", "scope_logs",
    "spans", "metrics", "log_records", "data_points",
}  # fmt: skip
"""The fields on the way down to the items."""

ID_LENGTHS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
RECURSIVE = {"AnyValue", "ArrayValue", "KeyValueList", "KeyValue"}

UNKNOWN_NUMBERS = (99, 1000, 1001, 2047, 536870911)
"""1000 was `instrumentation_library_spans` and its siblings, in OTLP before 0.16."""

TEXTS = ("", "a", "service.name", "GET /wp-admin/", 'quo"te\\', "ключ", "汉字", "\x00\x1f\x7f", "\U0001f600", "x" * 200)
DOUBLES = (0.0, -0.0, 1.5, -1e300, 5e-324, 0.1, float("nan"), float("inf"), float("-inf"), 2.0**53, 1e16)

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_FIXED64: (0, (1 << 64) - 1),
}
_FIXED = {
    FieldDescriptor.TYPE_DOUBLE: "<d",
    FieldDescriptor.TYPE_SFIXED64: "<q",
    FieldDescriptor.TYPE_FIXED64: "<Q",
    FieldDescriptor.TYPE_FIXED32: "<I",
}


def varint(number: int) -> bytes:
    """Return `number` as a varint, negative ones as 64-bit two's complement."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def tag(number: int, wire_type: int) -> bytes:
    """Return what stands before a field."""
    return varint(number << 3 | wire_type)


def delimited(number: int, body: bytes) -> bytes:
    """Return a length-delimited field."""
    return tag(number, 2) + varint(len(body)) + body


class Maker:
    """Draws requests from a `random.Random`."""

    def __init__(self, draw: random.Random, *, breadth: int = 3, unknown: bool = True, repeats: bool = False) -> None:
        """Draw lists of at most `breadth`; with `unknown` fields; with singular fields that stand there twice."""
        self.draw = draw
        self.breadth = breadth
        self.unknown = unknown
        self.repeats = repeats

    def request(self, signal: Signal) -> bytes:
        """Return a request in wire form."""
        return self.message(request_class(signal).DESCRIPTOR, 0)

    def message(self, descriptor: Descriptor, depth: int) -> bytes:
        """Return a message in wire form, with some of its fields."""
        repeated = _repeated(descriptor)
        parts = []
        for field in self._fields(descriptor):
            likely = 0.9 if field.name in SPINE or field.name in ("key", "value") else 0.25
            if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
                likely = 1
            if self.draw.random() >= likely:
                continue
            times = 1
            if field.name in repeated:
                times = self.draw.randint(0, self.breadth)
            elif self.repeats and self.draw.random() < 0.2:
                times = 2
            parts += self._field(field, times, depth, packed=field.name in repeated)
        if self.unknown and self.draw.random() < 0.3:
            parts.append(self._unknown_field())
        self.draw.shuffle(parts)
        return b"".join(parts)

    def _fields(self, descriptor: Descriptor) -> list[FieldDescriptor]:
        """Return the fields that may stand there: of each oneof one, or (with `repeats`) any."""
        chosen = {
            oneof.full_name: self.draw.choice([None, *oneof.fields])
            for oneof in descriptor.oneofs
            if len(oneof.fields) > 1
        }
        return [
            field
            for field in descriptor.fields
            if field.containing_oneof is None
            or field.containing_oneof.full_name not in chosen
            or chosen[field.containing_oneof.full_name] is field
            or (self.repeats and self.draw.random() < 0.1)
        ]

    def _field(self, field: FieldDescriptor, times: int, depth: int, *, packed: bool) -> list[bytes]:
        if field.message_type is not None:
            deeper = depth + (field.message_type.name in RECURSIVE)
            if deeper > 5:
                return []
            return [delimited(field.number, self.message(field.message_type, deeper)) for _ in range(times)]
        if field.type == FieldDescriptor.TYPE_STRING:
            return [delimited(field.number, self.draw.choice(TEXTS).encode()) for _ in range(times)]
        if field.type == FieldDescriptor.TYPE_BYTES:
            size = ID_LENGTHS.get(field.name)
            sizes = range(20) if size is None else (size,)
            return [delimited(field.number, self.draw.randbytes(self.draw.choice(sizes))) for _ in range(times)]
        values = [self._number(field) for _ in range(times)]
        if packed and self.draw.random() < 0.7:
            return [delimited(field.number, b"".join(values))]
        wire_type = {"<d": 1, "<q": 1, "<Q": 1, "<I": 5}.get(_FIXED.get(field.type, ""), 0)
        return [tag(field.number, wire_type) + value for value in values]

    def _number(self, field: FieldDescriptor) -> bytes:
        draw = self.draw
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return struct.pack("<d", draw.choice([*DOUBLES, draw.random()]))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return varint(draw.randint(0, 1))
        if field.type == FieldDescriptor.TYPE_ENUM:
            return varint(draw.choice([0, 1, 2, 3, 99, -1]))
        low, high = _INTEGERS[field.type]
        number = draw.choice([0, 1, 200, low, high, draw.randint(low, high)])
        if field.type in _FIXED:
            return struct.pack(_FIXED[field.type], number)
        if field.type == FieldDescriptor.TYPE_SINT32:
            number = (number << 1) ^ (number >> 31)
        return varint(number)

    def _unknown_field(self) -> bytes:
        number = self.draw.choice(UNKNOWN_NUMBERS)
        body = self.draw.randbytes(self.draw.randint(0, 12))
        return self.draw.choice([
            tag(number, 0) + varint(self.draw.getrandbits(64)),
            tag(number, 1) + self.draw.randbytes(8),
            delimited(number, body),
            tag(number, 5) + self.draw.randbytes(4),
            tag(number, 3) + delimited(7, body) + tag(number, 4),
        ])  # fmt: skip


def _repeated(descriptor: Descriptor) -> set[str]:
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return {field.name for field in proto.field if field.label == field.LABEL_REPEATED}


def requests(signal: Signal, **options: bool) -> st.SearchStrategy[bytes]:
    """Return a strategy of requests of one signal, in wire form, the simplest first; `options` are the Maker's."""
    return st.builds(
        lambda seed, breadth: Maker(random.Random(seed), breadth=breadth, **options).request(signal),
        st.integers(0, 1 << 32),
        st.integers(1, 3),
    )


def signals_and_requests(**options: bool) -> st.SearchStrategy[tuple[Signal, bytes]]:
    """Return a strategy of (signal, a request of it)."""
    return st.sampled_from(Signal).flatmap(lambda signal: st.tuples(st.just(signal), requests(signal, **options)))


def full(signal: Signal, body: bytes) -> Message:
    """Return a request with everything in it parsed."""
    return request_class(signal).FromString(body)


def meaning(signal: Signal, body: bytes) -> bytes:
    """Return what `body` means, to compare: its full parse, serialized. (Messages with a NaN are equal to none.)"""
    return full(signal, body).SerializeToString(deterministic=True)
