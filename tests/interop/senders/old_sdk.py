"""Send spans with the exporters that the OpenTelemetry SDK once had; run by an interpreter that has them.

`old_sdk.py EXPORTER ENDPOINT SERVICE` writes what it sent: a JSON object a span.
"""

import json
import sys
import time

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

ATTRIBUTES = {
    "text": "Bücher 图书 🛒",
    "whole": -42,
    "large": 2**53 + 1,
    "part": 0.25,
    "yes": True,
    "no": False,
}


def exporter_of(name, endpoint):
    """Return an exporter of the SDK."""
    if name == "jaeger-thrift":
        from opentelemetry.exporter.jaeger.thrift import JaegerExporter

        return JaegerExporter(collector_endpoint=f"http://{endpoint}/api/traces?format=jaeger.thrift")
    if name == "jaeger-grpc":
        from opentelemetry.exporter.jaeger.proto.grpc import JaegerExporter

        return JaegerExporter(collector_endpoint=endpoint, insecure=True)
    if name == "zipkin-proto":
        from opentelemetry.exporter.zipkin.proto.http import ZipkinExporter

        return ZipkinExporter(endpoint=f"http://{endpoint}/api/v2/spans")
    from opentelemetry.exporter.zipkin.encoder import Protocol
    from opentelemetry.exporter.zipkin.json import ZipkinExporter

    version = {"zipkin-v1": Protocol.V1, "zipkin-v2": Protocol.V2}[name]
    return ZipkinExporter(
        version=version, endpoint=f"http://{endpoint}/api/{name[-2:]}/spans", max_tag_value_length=1000
    )


class Keeper(SpanExporter):
    """Keeps what it is given."""

    def __init__(self):
        self.spans = []

    def export(self, spans):
        self.spans += spans
        return SpanExportResult.SUCCESS


def make(keeper, service):
    """Make spans of every kind, with parents, attributes, events, links and failures."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service, "host.name": "here"}))
    provider.add_span_processor(SimpleSpanProcessor(keeper))
    tracer = provider.get_tracer("shop", "1.2.3")
    other = SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1))
    with tracer.start_as_current_span("GET /{post}/", kind=SpanKind.SERVER, attributes=ATTRIBUTES):
        for kind in SpanKind:
            with tracer.start_as_current_span(f"kind {kind.name}", kind=kind) as span:
                span.set_attributes(ATTRIBUTES)
                span.add_event("it happened", {"times": 3, "where": "here"}, timestamp=time.time_ns())
        with tracer.start_as_current_span("failed", links=[Link(other)]) as span:
            span.set_status(Status(StatusCode.ERROR, "nicht gefunden"))
        with tracer.start_as_current_span("fine") as span:
            span.set_status(Status(StatusCode.OK))


def show(span):
    """Return a span as JSON."""
    return {
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": span.kind.name,
        "start": span.start_time,
        "end": span.end_time,
        "status": span.status.status_code.name,
        "message": span.status.description or "",
        "attributes": dict(span.attributes),
        "events": [[event.name, event.timestamp, dict(event.attributes)] for event in span.events],
        "links": [[f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}"] for link in span.links],
    }


def main():
    name, endpoint, service = sys.argv[1:]
    keeper = Keeper()
    make(keeper, service)
    exporter = exporter_of(name, endpoint)
    # The SDK makes a tracer provider's resource the service; these exporters ask for it in the spans, or globally.
    trace.set_tracer_provider(TracerProvider(resource=keeper.spans[0].resource))
    result = exporter.export(keeper.spans)
    exporter.shutdown()
    for span in keeper.spans:
        sys.stdout.write(json.dumps(show(span)) + "\n")
    return 0 if result is SpanExportResult.SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())
