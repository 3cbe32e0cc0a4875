"""What both codecs read of the official descriptors. A signal's messages are imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from otelwp_agent.model.messages import request_class

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from otelwp_agent.model.signal import Signal

KEY_VALUE = "opentelemetry.proto.common.v1.KeyValue"
KEY_VALUE_LIST = "opentelemetry.proto.common.v1.KeyValueList"

ID_LENGTHS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
"""The fields that are hex in JSON, and the bytes that each has."""

MAX_DEPTH = 100
"""Levels of messages that protobuf parses: a deeper request would be refused by whoever reads all of it."""


def request(signal: Signal) -> Descriptor:
    """Return the descriptor of a signal's `Export…ServiceRequest`."""
    descriptor: Descriptor = request_class(signal).DESCRIPTOR  # type: ignore[assignment]  # upb's own class is the same
    return descriptor


def repeated(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of a message's repeated fields."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return frozenset(field.name for field in proto.field if field.label == FieldDescriptorProto.LABEL_REPEATED)
