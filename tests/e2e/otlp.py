"""The real OpenTelemetry SDK as the sender, and what a file exporter wrote, read without any of the agent's code."""

import base64
import json
from types import SimpleNamespace

from google.protobuf import json_format
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

ATTRIBUTES = {
    "string": "wp_options",
    "string.empty": "",
    "string.unicode": 'Bücher 图书 🛒 \u0000 \\ " \n',
    "bool.true": True,
    "bool.false": False,
    "int": 42,
    "int.zero": 0,
    "int.negative": -1,
    "int.largest": 2**63 - 1,
    "int.smallest": -(2**63),
    "int.beyond.double": 2**53 + 1,
    "double": 0.1,
    "double.zero": 0.0,
    "double.negative.zero": -0.0,
    "double.whole": 3.0,
    "double.huge": 1.7976931348623157e308,
    "double.tiny": 5e-324,
    "double.infinite": float("inf"),
    "double.nan": float("nan"),
    "array.strings": ["a", "", "ü"],
    "array.bools": [True, False],
    "array.ints": [1, -(2**63), 0],
    "array.doubles": [0.5, -0.0, 1e300],
    "array.empty": [],
}
"""Every type of value that the SDK takes as an attribute, and the edges of each."""

ANYTHING = {
    **ATTRIBUTES,
    "bytes": b"\x00\xff\xfe",
    "bytes.empty": b"",
    "nothing": None,
    "map": {"inner": {"deep": [1, "two", 3.0, None, b"\x01", {"last": True}]}},
    "map.empty": {},
    "array.mixed": ["a", 1, 2.5, False, None, [[]], {}],
}
"""Every type of value that a log record's body can hold."""

SIGNALS = {
    "traces": SimpleNamespace(
        grpc=GrpcSpans, http=HttpSpans, request=ExportTraceServiceRequest, encode=encode_spans, field="resource_spans"
    ),
    "metrics": SimpleNamespace(
        grpc=GrpcMetrics,
        http=HttpMetrics,
        request=ExportMetricsServiceRequest,
        encode=encode_metrics,
        field="resource_metrics",
    ),
    "logs": SimpleNamespace(
        grpc=GrpcLogs, http=HttpLogs, request=ExportLogsServiceRequest, encode=encode_logs, field="resource_logs"
    ),
}


def make(signal, service):
    """Return what the SDK made, as its exporters take it."""
    resource = Resource.create({"service.name": service, **ATTRIBUTES})
    return {"traces": make_spans, "metrics": make_metrics, "logs": make_logs}[signal](resource)


def make_spans(resource):
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("shop", "1.2.3", "https://opentelemetry.io/schemas/1.36.0", {"scope": "attribute"})
    other = SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")]))
    with tracer.start_as_current_span("GET /{post}/", kind=SpanKind.SERVER, attributes=ATTRIBUTES, links=[Link(other)]):
        for kind in SpanKind:
            with tracer.start_as_current_span(f"kind {kind.name}", kind=kind) as span:
                span.add_event("event", ATTRIBUTES, timestamp=1_700_000_000_000_000_001)
                span.set_attributes(ATTRIBUTES)
    span = tracer.start_span("failed", start_time=1_700_000_000_000_000_000, links=[Link(other, ATTRIBUTES)])
    span.record_exception(ValueError("Ü"))
    span.set_status(Status(StatusCode.ERROR, "nicht gefunden"))
    span.end(1_700_000_000_123_456_789)
    remote = trace.set_span_in_context(trace.NonRecordingSpan(other))
    span = tracer.start_span("with a remote parent and a trace state", context=remote)
    span.set_status(StatusCode.OK)
    span.end()
    provider.get_tracer("another scope").start_span("").end()
    provider.shutdown()
    return memory.get_finished_spans()


def make_metrics(resource):
    reader = InMemoryMetricReader()
    views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], resource, views=views)
    meter = provider.get_meter("shop", "1.2.3", "https://opentelemetry.io/schemas/1.36.0", {"scope": "attribute"})
    meter.create_counter("counter", "1", "Monotonic, whole").add(2**60, ATTRIBUTES)
    meter.create_counter("counter.double").add(0.1, {"a": 1})
    up_down = meter.create_up_down_counter("up_down")
    up_down.add(-5)
    up_down.add(-7, {"another": "point"})
    histogram = meter.create_histogram("histogram", "s", "Explicit buckets")
    exponential = meter.create_histogram("exponential", "s")
    for value in (0.0, 0.001, 1.5, 7, 1e6):
        histogram.record(value, ATTRIBUTES)
        exponential.record(value)
    meter.create_gauge("gauge").set(-0.0)
    meter.create_observable_gauge("observed", [lambda _: [Observation(1, {"a": "b"}), Observation(2.5, {"a": "c"})]])
    data = reader.get_metrics_data()
    provider.shutdown()
    return data


def make_logs(resource):
    memory = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource)
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    logger = provider.get_logger("shop", "1.2.3", "https://opentelemetry.io/schemas/1.36.0", {"scope": "attribute"})
    context = trace.set_span_in_context(
        trace.NonRecordingSpan(SpanContext(7, 9, is_remote=False, trace_flags=TraceFlags(1)))
    )
    for severity in SeverityNumber:
        logger.emit(LogRecord(timestamp=1, severity_number=severity, severity_text=severity.name, body="text"))
    for body in ANYTHING.values():
        logger.emit(LogRecord(timestamp=2**62, observed_timestamp=3, context=context, body=body, attributes=ANYTHING))
    logger.emit(LogRecord(timestamp=4, body=ANYTHING, event_name="shop.event"))
    provider.shutdown()
    return memory.get_finished_logs()


def export(signal, protocol, port, made):
    """Send with the SDK's own exporter; return whether it was a success."""
    if protocol == "grpc":
        exporter = SIGNALS[signal].grpc(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    else:
        exporter = SIGNALS[signal].http(endpoint=f"http://127.0.0.1:{port}/v1/{signal}")
    try:
        return exporter.export(made).name == "SUCCESS"
    finally:
        exporter.shutdown()


def expected(signal, made):
    """Return the items that were sent, each with its resource and scope, as bytes that can be compared."""
    return items(signal, [SIGNALS[signal].encode(made)])


def read(signal, lines):
    """Return the items in lines of OTLP/JSON, each with its resource and scope, as bytes that can be compared."""
    requests = [json_format.ParseDict(_base64_ids(json.loads(line)), SIGNALS[signal].request()) for line in lines]
    return items(signal, requests)


def items(signal, requests):
    found = []
    for request in requests:
        for resource in getattr(request, SIGNALS[signal].field):
            scopes = getattr(resource, SIGNALS[signal].field.replace("resource", "scope"))
            for scope in scopes:
                for item in getattr(scope, {"traces": "spans", "metrics": "metrics", "logs": "log_records"}[signal]):
                    parts = (resource.resource, scope.scope, item)
                    urls = (resource.schema_url, scope.schema_url)
                    found.append((*urls, *[part.SerializeToString(deterministic=True) for part in parts]))
    return sorted(found)


def _base64_ids(value):
    """Turn OTLP/JSON's hex ids into the base64 that protobuf's JSON has."""
    if isinstance(value, list):
        return [_base64_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in ids else _base64_ids(each)
        for key, each in value.items()
    }
