"""Read the official descriptors for both codecs. A signal's messages are imported at their first use."""

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
"""Fields that are hex in JSON, and their size in bytes."""

MAX_DEPTH = 100
"""Maximum nesting of messages that protobuf can parse. A reader that parses everything would refuse a deeper request.
"""


def request(signal: Signal) -> Descriptor:
    """Return the descriptor of a signal's `Export…ServiceRequest`."""
    descriptor: Descriptor = request_class(signal).DESCRIPTOR  # type: ignore[assignment]  # upb has its own class
    return descriptor


def repeated(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of a message's repeated fields."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return frozenset(field.name for field in proto.field if field.label == FieldDescriptorProto.LABEL_REPEATED)
