import asyncio
import gzip
import json
import socket
import time

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker
from otelwp_agent.pipeline.entry import PipelineHead, ReceiverEntry
from otelwp_agent.receivers.otlp import FACTORY, Config
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.http_messages import Head

EXPORT = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


class Pipeline:
    def __init__(self):
        self.batches = []
        self.refusal = None
        self.admitted = 0

    def admit(self):
        self.admitted += 1
        if self.refusal is not None:
            raise self.refusal

    def consume(self, batch, answer=None, rejected=None):
        if self.refusal is not None:
            raise self.refusal
        self.batches.append(batch)


class Agent:
    """A receiver and what it hands over, over real sockets."""

    def __init__(self, **config):
        protocols = config.pop("protocols", {"http": {"endpoint": "127.0.0.1:0"}})
        self.registry = Registry()
        context = Context(
            ComponentId("otlp"), Kind.RECEIVER, self.registry, structlog.get_logger(), time.monotonic, None
        )
        self.receiver = FACTORY.build(Config.model_validate({"protocols": protocols, **config}), context)
        self.pipelines = {signal: Pipeline() for signal in Signal}
        self.receiver.next = self.pipelines

    async def __aenter__(self):
        await self.receiver.start()
        return self

    async def __aexit__(self, *_):
        await self.receiver.shutdown()

    async def post(self, path, body, content_type="application/x-protobuf", **headers):
        host, port = self.receiver.endpoints()["http"].removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        writer.write(f"POST {path} HTTP/1.1\r\n{kind}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:-2])
        answer = await reader.readexactly(int(fields["content-length"]))
        writer.close()
        return int(head[0].split()[1]), fields, answer

    def refused(self, reason, transport="http"):
        return self.registry.value("otelwp_receiver_refused_requests", reason=reason, transport=transport)


def spans(count=1):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(count):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="page")
    return request


def every_signal():
    metrics = ExportMetricsServiceRequest()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points.add(as_int=1)
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    return {Signal.TRACES: spans(), Signal.METRICS: metrics, Signal.LOGS: logs}


async def test_protobuf_is_carried_as_it_came():
    async with Agent() as agent:
        for signal, request in every_signal().items():
            body = request.SerializeToString()
            status, headers, answer = await agent.post(f"/v1/{signal.value}", body, X_Shop="a")
            assert (status, headers["content-type"], answer) == (200, "application/x-protobuf", b"")
            batch = agent.pipelines[signal].batches[0]
            assert (batch.body, batch.items, batch.signal) == (body, 1, signal)
            assert (batch.origin.receiver, batch.origin.transport, batch.origin.headers["x-shop"]) == (
                "otlp",
                "http",
                "a",
            )
            assert [(receipt.pending, items) for receipt, items in batch.shares] == [(1, 1)]


async def test_json_becomes_protobuf_and_is_answered_in_json():
    body = json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "page"}]}]}]}
    ).encode()
    async with Agent() as agent:
        status, headers, answer = await agent.post("/v1/traces", body, "application/json; charset=utf-8")
        assert (status, headers["content-type"], answer) == (200, "application/json", b"{}")
        parsed = ExportTraceServiceRequest.FromString(agent.pipelines[Signal.TRACES].batches[0].body)
        assert parsed.resource_spans[0].scope_spans[0].spans[0].trace_id == bytes.fromhex("ab" * 16)


async def test_an_empty_request_is_fine_and_goes_nowhere():
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", b""))[0] == 200
        assert (await agent.post("/v1/traces", b"{}", "application/json"))[0] == 200
        assert agent.pipelines[Signal.TRACES].batches == []


async def test_malformed_bodies_get_a_status_in_their_own_encoding():
    async with Agent() as agent:
        status, headers, answer = await agent.post("/v1/traces", b"\xff\xff")
        assert (status, headers["content-type"]) == (400, "application/x-protobuf")
        assert Status.FromString(answer).message == "the body is not a serialized OTLP export request"
        status, headers, answer = await agent.post(
            "/v1/traces", b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}', "application/json"
        )
        assert (status, headers["content-type"]) == (400, "application/json")
        assert "resourceSpans[0].scopeSpans[0].spans[0].traceId" in json.loads(answer)["message"]
        assert agent.refused("malformed") == 2


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/grpc"])
async def test_other_content_types_are_told_what_is_taken(content_type):
    async with Agent() as agent:
        for _ in range(2):
            status, headers, answer = await agent.post("/v1/traces", b"x", content_type)
            assert (status, headers["content-type"]) == (415, "text/plain; charset=utf-8")
            assert b"accepted: application/x-protobuf and application/json" in answer
        assert agent.refused("unsupported_media_type") == 2


async def test_overload_is_told_before_anything_is_decoded():
    async with Agent() as agent:
        pipeline = agent.pipelines[Signal.TRACES]
        pipeline.refusal = Overloaded("no room", retry_after=3)
        status, headers, answer = await agent.post("/v1/traces", b"\xff not even protobuf")
        assert (status, headers["retry-after"]) == (429, "3")
        info = RetryInfo()
        assert Status.FromString(answer).details[0].Unpack(info)
        assert info.retry_delay.seconds == 3
        assert agent.refused("overloaded") == 1
        pipeline.refusal = None
        assert (await agent.post("/v1/traces", spans().SerializeToString()))[0] == 200


async def test_gzip_and_limits():
    async with Agent(protocols={"http": {"endpoint": "127.0.0.1:0", "max_request_body_size": "1KiB"}}) as agent:
        body = gzip.compress(spans().SerializeToString())
        assert (await agent.post("/v1/traces", body, Content_Encoding="gzip"))[0] == 200
        status, headers, answer = await agent.post("/v1/traces", gzip.compress(b"\0" * 2000), Content_Encoding="gzip")
        assert (status, headers["content-type"]) == (413, "application/x-protobuf")
        assert "inflates to more than 1024 bytes" in Status.FromString(answer).message
        assert (await agent.post("/v1/traces", b"", Content_Encoding="br"))[0] == 400


async def test_only_full_validation_looks_inside_a_span():
    name_is_no_utf8 = spans().SerializeToString().replace(b"page", b"\xff\xfe\xfd\xfc")
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", name_is_no_utf8))[0] == 200
    async with Agent(validation="full") as agent:
        assert (await agent.post("/v1/traces", name_is_no_utf8))[0] == 400
        assert (await agent.post("/v1/traces", spans().SerializeToString()))[0] == 200


async def test_a_signal_without_a_pipeline_says_where_to_add_it():
    async with Agent() as agent:
        agent.receiver.next = {Signal.TRACES: Pipeline()}
        status, _, answer = await agent.post("/v1/logs", b"")
        assert status == 404
        assert b"service.pipelines" in answer


async def test_grpc():
    protocols = {"grpc": {"endpoint": "127.0.0.1:0"}}
    async with Agent(protocols=protocols) as agent:
        address = agent.receiver.endpoints()["grpc"]
        async with grpc.aio.insecure_channel(address) as channel:
            for signal, request in every_signal().items():
                body = request.SerializeToString()
                assert await channel.unary_unary(EXPORT[signal])(body, metadata=(("x-shop", "a"),)) == b""
                batch = agent.pipelines[signal].batches[0]
                assert (batch.body, batch.items, batch.origin.transport) == (body, 1, "grpc")
                assert batch.origin.headers["x-shop"] == "a"
            export = channel.unary_unary(EXPORT[Signal.TRACES])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await export(b"\xff\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            agent.pipelines[Signal.TRACES].refusal = Overloaded("no room", retry_after=3)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await export(spans().SerializeToString())
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
            info = RetryInfo()
            assert Status.FromString(details).details[0].Unpack(info)
            assert info.retry_delay.seconds == 3
            assert agent.refused("malformed", "grpc") == agent.refused("overloaded", "grpc") == 1


async def test_when_one_protocol_cannot_start_the_other_is_closed_again():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        agent = Agent(protocols={"http": {"endpoint": "127.0.0.1:0"}, "grpc": {"endpoint": taken}})
        with pytest.raises(StartError, match=f"receivers/otlp: cannot listen on {taken}"):
            await agent.receiver.start()
        assert agent.receiver.endpoints() == {}


@pytest.mark.parametrize(
    ("protocols", "words"),
    [
        ({}, "name at least one protocol"),
        ({"http": {"traces_url_path": "/v1/logs"}}, "a different path"),
        ({"htpp": None}, "htpp"),
    ],
)
def test_wrong_configurations(protocols, words):
    with pytest.raises(ValueError, match=words):
        Config.model_validate({"protocols": protocols})


def test_a_protocol_with_nothing_under_it_is_on():
    config = Config.model_validate({"protocols": {"grpc": None, "http": None}})
    assert (str(config.protocols.grpc.endpoint), str(config.protocols.http.endpoint)) == (
        "127.0.0.1:4317",
        "127.0.0.1:4318",
    )


async def test_beside_php_overload_is_a_success_that_says_what_was_lost():
    settings = {"endpoint": "127.0.0.1:0", "on_overload": "accept_and_drop"}
    async with Agent(protocols={"http": settings}) as agent:
        pipeline = agent.pipelines[Signal.TRACES]
        assert agent.receiver.health() is None
        pipeline.refusal = Overloaded("no room", retry_after=3)
        site = {"User_Agent": "WordPress/6.5; https://shop.example"}
        status, headers, answer = await agent.post("/v1/traces", spans(3).SerializeToString(), **site)
        assert (status, "retry-after" in headers) == (200, False)
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert (partial.rejected_spans, partial.error_message) == (0, "no room")
        status, _, answer = await agent.post("/v1/traces", b"{}", "application/json", **site)
        assert (status, json.loads(answer)) == (200, {"partialSuccess": {"errorMessage": "no room"}})
        count = agent.registry.value("otelwp_receiver_dropped_requests", receiver="otlp", site="shop.example")
        assert (count, agent.refused("overloaded")) == (2, 0)
        health = agent.receiver.health()
        assert (health.healthy, health.message) == (False, "2 requests were answered and dropped: no room")
        pipeline.refusal = None
        assert (await agent.post("/v1/traces", b"\xff\xff"))[0] == 400, "what is broken is told as ever"


@pytest.mark.parametrize(
    ("signal", "key"),
    [
        (Signal.TRACES, "rejectedSpans"),
        (Signal.METRICS, "rejectedDataPoints"),
        (Signal.LOGS, "rejectedLogRecords"),
    ],
)
async def test_what_was_counted_before_there_was_no_room_is_told(signal, key):
    settings = {"endpoint": "127.0.0.1:0", "on_overload": "accept_and_drop"}
    async with Agent(protocols={"http": settings}) as agent:
        head = PipelineHead("traces", Ledgers())
        head.first = agent.pipelines[signal]
        agent.pipelines[signal].refusal = Overloaded("the queue is full")
        log = structlog.get_logger()
        entry = ReceiverEntry([head], "otlp", signal, agent.registry, clock=time.monotonic, log=log)
        agent.receiver.next = {signal: entry}
        body = every_signal()[signal].SerializeToString()
        _, _, answer = await agent.post(f"/v1/{signal.value}", body)
        assert rejected(answer) == (1, "the queue is full")
        _, _, answer = await agent.post(f"/v1/{signal.value}", encode(signal, body), "application/json")
        assert json.loads(answer) == {"partialSuccess": {key: "1", "errorMessage": "the queue is full"}}
        assert agent.registry.value("otelwp_receiver_dropped_items", site="unknown") == 2
        assert head.total.accepted == 0


# -- limits


def many(count):
    """Return so many spans, serialized, with names that make some megabytes of JSON of 20 000."""
    request = spans(count)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.name = "GET /shop/basket" * 4
    return request.SerializeToString()


@pytest.mark.parametrize("validation", ["keys", "full"])
@pytest.mark.parametrize("kind", ["protobuf", "json"])
async def test_more_items_than_a_request_may_hold_are_refused(validation, kind):
    async with Agent(max_items_per_request=1000, validation=validation) as agent:
        for count, expected in ((998, 200), (999, 413)):
            body = many(count)
            body = body if kind == "protobuf" else encode(Signal.TRACES, body)
            status, _, answer = await agent.post("/v1/traces", body, f"application/{'x-' * (kind != 'json')}{kind}")
            assert status == expected
            assert (b"raise max_items_per_request" in answer) == (expected == 413)
        assert agent.registry.value("otelwp_receiver_refused_requests", reason="too_large") == 1
        assert sum(batch.items for batch in agent.pipelines[Signal.TRACES].batches) == 998


async def test_more_items_than_a_message_may_hold_are_refused_over_grpc():
    async with Agent(protocols={"grpc": {"endpoint": "127.0.0.1:0"}}, max_items_per_request=1000) as agent:
        async with grpc.aio.insecure_channel(agent.receiver.endpoints()["grpc"]) as channel:
            export = channel.unary_unary(EXPORT[Signal.TRACES])
            await export(many(998))
            with pytest.raises(grpc.aio.AioRpcError, match="raise max_items_per_request") as refused:
                await export(many(999))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_json_body_is_decoded_while_others_are_served():
    body = encode(Signal.TRACES, many(20_000))
    async with Agent() as agent:
        large = asyncio.ensure_future(agent.post("/v1/traces", body, "application/json"))
        small = 0
        while not large.done():
            assert (await agent.post("/v1/traces", many(1)))[0] == 200
            small += 1
        assert (await large)[0] == 200
        assert small > 3
        items = [batch.items for batch in agent.pipelines[Signal.TRACES].batches]
        assert items.index(20_000) > 1
        assert (await agent.post("/v1/traces", body[:-1], "application/json"))[0] == 400
        agent.pipelines[Signal.TRACES].refusal = Overloaded("full")
        assert (await agent.post("/v1/traces", body, "application/json"))[0] == 429


async def test_a_json_body_of_many_small_values_is_decoded_in_a_thread():
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}' % b",".join([b"{}"] * 20_000)
    async with Agent() as agent:
        receiver = agent.receiver
        answer = receiver._read(
            Signal.TRACES,
            body,
            StepwiseChecker(Signal.TRACES),
            lambda body, _items: len(body),
            head=Head("POST", "/v1/traces", {}),
        )
        assert receiver._decoding._threads == 1
        assert await answer > 20_000
