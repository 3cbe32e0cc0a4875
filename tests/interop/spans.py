"""What was sent, read for comparison with what a backend shows."""

import json

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

KINDS = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_UNSPECIFIED: None,
}
"""What backends call the kinds; of an unspecified one they say nothing."""


def spans(body):
    """Yield each span of a request with the attributes of its resource."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span, values(resource.resource.attributes)


def values(attributes):
    """Return attributes as backends show them: scalars as they are, the rest as JSON."""
    found = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        if kind == "array_value":
            value = json.dumps(
                [getattr(each, each.WhichOneof("value")) for each in value.values], separators=(",", ":")
            )
        found[attribute.key] = value
    return found


def failed(span):
    return span.status.code == Status.STATUS_CODE_ERROR
