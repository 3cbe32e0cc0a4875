"""The exporter against the real OTLP services of grpcio and opentelemetry-proto."""

import contextlib

import pytest
import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.components import Catalog
from otelwp_agent.errors import RetryableError, TooLargeError
from otelwp_agent.exporters.otlp_grpc import FACTORY, Config
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.grpc_runtime import aio
from otelwp_agent.transport.otlp_grpc_settings import MAX_REQUEST_SIZE

ANSWERS = {
    Signal.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}


class Backend(trace_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer, logs_grpc.LogsServiceServicer):
    """Takes everything, but for `rejects` items of each request."""

    def __init__(self):
        self.requests = []
        self.rejects = 0
        self.message = ""

    async def Export(self, request, _context):  # noqa: N802 - the service's own name
        self.requests.append(request)
        signal = next(signal for signal in Signal if isinstance(request, request_class(signal)))
        kind, field = ANSWERS[signal]
        answer = kind()
        if self.rejects or self.message:
            setattr(answer.partial_success, field, self.rejects)
            answer.partial_success.error_message = self.message
        return answer


@contextlib.asynccontextmanager
async def backend(**options):
    servicer = Backend()
    server = aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    trace_grpc.add_TraceServiceServicer_to_server(servicer, server)
    metrics_grpc.add_MetricsServiceServicer_to_server(servicer, server)
    logs_grpc.add_LogsServiceServicer_to_server(servicer, server)
    servicer.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(0)


def make(endpoint, **settings):
    config = Config(endpoint=endpoint, tls={"insecure": True}, **settings)
    log = structlog.get_logger()
    context = Context(ComponentId("otlp_grpc"), Kind.EXPORTER, Registry(), log, lambda: 0.0, host=None)
    return FACTORY.build(config, context)


@contextlib.asynccontextmanager
async def exporting(endpoint, **settings):
    exporter = make(endpoint, **settings)
    await exporter.start()
    try:
        yield exporter
    finally:
        await exporter.shutdown()


def batch(signal=Signal.TRACES, items=3, body=b""):
    return Batch(signal, body, items, Origin(), [(Receipt(items), items)])


@pytest.mark.parametrize("signal", Signal)
async def test_each_signal_goes_to_its_service_and_partial_success_comes_back(signal):
    async with backend() as other, exporting(other.endpoint) as exporter:
        assert await exporter.export(batch(signal)) == 0
        other.rejects, other.message = 2, "two are too old"
        with structlog.testing.capture_logs() as logs:
            assert await exporter.export(batch(signal)) == 2
            assert await exporter.export(batch(signal)) == 2
        assert [(entry["rejected"], entry["message"]) for entry in logs] == [(2, "two are too old")]
        other.rejects = 99
        assert await exporter.export(batch(signal)) == 3, "no more can be rejected than were sent"
    assert {type(request) for request in other.requests} == {request_class(signal)}


async def test_a_warning_without_rejected_items_is_told_too():
    async with backend() as other, exporting(other.endpoint) as exporter:
        other.message = "this API ends in May"
        with structlog.testing.capture_logs() as logs:
            assert await exporter.export(batch()) == 0
    assert logs[0]["message"] == "this API ends in May"


async def test_the_bytes_arrive_as_they_are():
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="GET /", trace_id=bytes(range(16)))
    async with backend() as other, exporting(other.endpoint) as exporter:
        await exporter.export(batch(items=1, body=request.SerializeToString()))
    assert other.requests == [request]


async def test_the_largest_request_passes_a_peers_default_limit_and_a_larger_one_is_too_large():
    async with backend() as other, exporting(other.endpoint) as exporter:
        assert exporter.max_request_bytes == MAX_REQUEST_SIZE
        largest = ExportTraceServiceRequest()
        largest.resource_spans.add().schema_url = "x" * (MAX_REQUEST_SIZE - 20)
        assert await exporter.export(batch(body=largest.SerializeToString())) == 0
        with pytest.raises(TooLargeError):
            await exporter.export(batch(body=largest.SerializeToString() * 2))
    assert make("127.0.0.1:1", max_request_size="1MiB").max_request_bytes == 2**20


async def test_a_peer_that_is_not_there_may_come_back():
    async with backend() as other:
        endpoint = other.endpoint
    async with exporting(endpoint) as exporter:
        with pytest.raises(RetryableError):
            await exporter.export(batch())


async def test_shutdown_works_before_start_and_twice():
    exporter = make("127.0.0.1:1")
    await exporter.shutdown()
    with pytest.raises(RuntimeError, match="not started"):
        await exporter.export(batch())
    await exporter.start()
    await exporter.shutdown()
    await exporter.shutdown()


def test_its_old_name():
    assert Catalog().get(Kind.EXPORTER, "otlp") is FACTORY
