"""What both codecs read of the official descriptors. A signal's messages are imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

KEY_VALUE = "opentelemetry.proto.common.v1.KeyValue"
KEY_VALUE_LIST = "opentelemetry.proto.common.v1.KeyValueList"

ID_LENGTHS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
"""The fields that are hex in JSON, and the bytes that each has."""

MAX_DEPTH = 100
"""Levels of messages that protobuf parses: a deeper request would be refused by whoever reads all of it."""

_REQUESTS = {Signal.TRACES: "Trace", Signal.METRICS: "Metrics", Signal.LOGS: "Logs"}


def request(signal: Signal) -> Descriptor:
    """Return the descriptor of a signal's `Export…ServiceRequest`."""
    name = _REQUESTS[signal]
    folder = name.lower()
    module = import_module(f"opentelemetry.proto.collector.{folder}.v1.{folder}_service_pb2")
    descriptor: Descriptor = module.DESCRIPTOR.message_types_by_name[f"Export{name}ServiceRequest"]
    return descriptor


def repeated(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of a message's repeated fields."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return frozenset(field.name for field in proto.field if field.label == FieldDescriptorProto.LABEL_REPEATED)
