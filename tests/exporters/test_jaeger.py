from __future__ import annotations

import time

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.codecs.jaeger import from_proto, from_thrift
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import MalformedError, RetryableError, TooLargeError
from otelwp_agent.exporters.jaeger import FACTORY, POST_SPANS, Config
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost
from tests.kit.http_peer import HttpPeer, response
from tests.kit.jaeger import document
from tests.kit.stages import batch_of


def traces(*services: str, spans: int = 1):
    message = ExportTraceServiceRequest()
    for index, service in enumerate(services):
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        scope = resource.scope_spans.add()
        for number in range(spans):
            scope.spans.add(
                trace_id=bytes([index + 1]) * 16,
                span_id=number.to_bytes(7, "big") + b"\1",
                name="page",
                start_time_unix_nano=10**18,
                end_time_unix_nano=10**18 + 10**6,
            )
    return batch_of(message.SerializeToString(), len(services) * spans)


def services_of(traces):
    return [
        resource["resource"]["attributes"][0]["value"]["stringValue"] for resource in document(traces)["resourceSpans"]
    ]


@pytest.fixture
async def exporter_of():
    """Return a started exporter with these settings; all are shut down in the end."""
    exporters = []

    async def make(**settings: object):
        context = Context(
            ComponentId("jaeger"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost()
        )
        exporter = FACTORY.build(Config(**settings), context)
        exporters.append(exporter)
        await exporter.start()
        return exporter

    yield make
    for exporter in exporters:
        await exporter.shutdown()
        await exporter.shutdown()


class GrpcPeer:
    """Takes one method, and keeps what it got."""

    def __init__(self, method):
        self.method = method
        self.seen = []

    async def __aenter__(self):
        async def serve(message, context):
            self.seen.append((message, dict(context.invocation_metadata())))
            return b""

        service, name = self.method[1:].split("/")
        self.server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(serve)})
        self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(0)


# -- OTLP, as it is


async def test_otlp_over_grpc_is_the_default(exporter_of):
    batch = traces("shop")
    async with GrpcPeer("/opentelemetry.proto.collector.trace.v1.TraceService/Export") as peer:
        exporter = await exporter_of(endpoint=f"127.0.0.1:{peer.port}", headers={"x-shop": "a"})
        assert await exporter.export(batch) == 0
    message, metadata = peer.seen[0]
    assert message == batch.body
    assert metadata["x-shop"] == "a"
    assert type(exporter).__name__ == "OtlpGrpcExporter"


async def test_otlp_over_http(exporter_of):
    batch = traces("shop")
    async with HttpPeer() as peer:
        exporter = await exporter_of(protocol="otlp_http", endpoint=f"127.0.0.1:{peer.port}", compression="none")
        assert await exporter.export(batch) == 0
    assert (peer.seen[0].path, peer.seen[0].body) == ("/v1/traces", batch.body)


# -- Jaeger's own formats


async def test_post_spans_has_every_resource_in_one_request(exporter_of):
    async with GrpcPeer(POST_SPANS) as peer:
        exporter = await exporter_of(protocol="grpc", endpoint=f"127.0.0.1:{peer.port}")
        assert exporter.max_request_bytes < exporter._limit
        await exporter.export(traces("shop", "blog"))
        await exporter.export(batch_of(b"", 0))
    ((message, _),) = peer.seen
    assert services_of(from_proto.decode(message)) == ["shop", "blog"]


async def test_thrift_has_a_request_for_each_resource(exporter_of):
    async with HttpPeer(response("202 Accepted")) as peer:
        exporter = await exporter_of(protocol="thrift_http", endpoint=f"http://127.0.0.1:{peer.port}")
        await exporter.export(traces("shop", "blog"))
    assert [services_of(from_thrift.decode(seen.body)) for seen in peer.seen] == [["shop"], ["blog"]]
    assert {seen.line for seen in peer.seen} == {"POST /api/traces HTTP/1.1"}
    assert {seen.headers["content-type"] for seen in peer.seen} == {"application/x-thrift"}
    assert "content-encoding" not in peer.seen[0].headers


async def test_a_path_of_its_own_is_kept(exporter_of):
    async with HttpPeer() as peer:
        endpoint = f"http://127.0.0.1:{peer.port}/jaeger/api/traces?format=jaeger.thrift"
        await (await exporter_of(protocol="thrift_http", endpoint=endpoint)).export(traces("shop"))
    assert peer.seen[0].path == "/jaeger/api/traces?format=jaeger.thrift"


async def test_a_retry_sends_only_what_was_not_taken(exporter_of):
    answers = [response("202 Accepted"), response("500 Internal Server Error", b"server busy"), response(), response()]

    async def answer(_):
        return answers.pop(0)

    batch = traces("a", "b", "c")
    async with HttpPeer(answer) as peer:
        exporter = await exporter_of(protocol="thrift_http", endpoint=f"http://127.0.0.1:{peer.port}")
        with pytest.raises(RetryableError, match="server busy"):
            await exporter.export(batch)
        assert await exporter.export(batch) == 0
    sent = [services_of(from_thrift.decode(seen.body))[0] for seen in peer.seen]
    assert sent == ["a", "b", "b", "c"]
    assert exporter._unfinished == {}


async def test_what_is_remembered_half_sent_is_bounded(exporter_of):
    calls = 0

    async def answer(_):
        nonlocal calls
        calls += 1
        return response("503 Service Unavailable") if calls % 2 == 0 else response()

    batches = [traces("a", f"b{number}") for number in range(70)]
    async with HttpPeer(answer) as peer:
        exporter = await exporter_of(protocol="thrift_http", endpoint=f"http://127.0.0.1:{peer.port}")
        for batch in batches:
            with pytest.raises(RetryableError):
                await exporter.export(batch)
    assert len(exporter._unfinished) == 64


async def test_a_refusal_keeps_its_meaning(exporter_of):
    async with HttpPeer(response("400 Bad Request", b"Unable to process request body")) as peer:
        exporter = await exporter_of(protocol="thrift_http", endpoint=f"http://127.0.0.1:{peer.port}")
        with pytest.raises(MalformedError):
            await exporter.export(traces("shop"))


@pytest.mark.parametrize("protocol", ["grpc", "thrift_http"])
async def test_what_grew_too_large_is_split_by_the_caller(exporter_of, protocol):
    exporter = await exporter_of(protocol=protocol, endpoint="127.0.0.1:1", max_request_size="1KiB")
    with pytest.raises(TooLargeError, match="the limit is 1024"):
        await exporter.export(traces("shop", spans=100))


@pytest.mark.parametrize("protocol", ["grpc", "thrift_http"])
async def test_what_is_no_otlp_is_malformed(exporter_of, protocol):
    exporter = await exporter_of(protocol=protocol, endpoint="127.0.0.1:1")
    with pytest.raises(MalformedError):
        await exporter.export(batch_of(b"\xff\xff", 1))


@pytest.mark.parametrize("protocol", ["grpc", "thrift_http"])
async def test_nobody_there_is_retryable(exporter_of, protocol):
    exporter = await exporter_of(protocol=protocol, endpoint="127.0.0.1:1", timeout="1s")
    with pytest.raises(RetryableError):
        await exporter.export(traces("shop"))


# -- configuration


@pytest.mark.parametrize(
    ("settings", "endpoint", "insecure"),
    [
        ({}, "localhost:4317", True),
        ({"protocol": "otlp_http"}, "http://localhost:4318", True),
        ({"protocol": "grpc"}, "localhost:14250", True),
        ({"protocol": "thrift_http"}, "http://localhost:14268", True),
        ({"endpoint": "127.0.0.1:4317"}, "127.0.0.1:4317", True),
        ({"endpoint": "jaeger.example:4317"}, "jaeger.example:4317", False),
        ({"endpoint": "jaeger.example:4317", "tls": {"insecure": True}}, "jaeger.example:4317", True),
        ({"protocol": "otlp_http", "endpoint": "jaeger.example:4318"}, "https://jaeger.example:4318", False),
        ({"protocol": "otlp_http", "endpoint": "http://jaeger.example:4318"}, "http://jaeger.example:4318", True),
        ({"endpoint": "unix:///run/jaeger.sock"}, "unix:///run/jaeger.sock", True),
        ({"endpoint": "[::1]:4317"}, "[::1]:4317", True),
    ],
)
def test_where_it_sends_and_whether_in_the_open(settings, endpoint, insecure):
    client = Config(**settings).client_settings()
    assert (client["endpoint"], client["tls"].get("insecure", False)) == (endpoint, insecure)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "thrift_compact"}, "otlp_grpc"),
        ({"protocol": "thrift_http", "compression": "gzip"}, "does not support compression"),
        ({"protocol": "grpc", "compression": "zstd"}, "compression"),
        ({"endpoint": "jaeger.example"}, "has no port"),
        ({"protocol": "otlp_http", "headers": {"content-length": "1"}}, "written by the client itself"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


def test_only_traces():
    assert FACTORY.signals == {Signal.TRACES}
