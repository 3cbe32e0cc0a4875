"""Jaeger's JSON at the path of OTLP traces, as the plugin of an enterprise customer posts it."""

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.model.signal import Signal
from tests.receivers.test_otlp import Agent

TRACE = "0af7651916cd43dd8448eb211c80319c"


def a_post(count=1, **more):
    """The body of the plugin: times are floats, tags have no type, the process is inside the span."""
    spans = [
        {
            "traceID": TRACE,
            "spanID": f"{number + 1:016x}",
            "operationName": "wordpress.request",
            "startTime": 1_700_000_000_000_000.5,
            "duration": 1500.25,
            "tags": [{"key": "http.status_code", "value": 200}],
            "process": {"serviceName": "shop", "tags": [{"key": "environment", "value": "production"}]},
        }
        for number in range(count)
    ]
    return json.dumps({"data": [{"traceID": "f" * 32, "spans": spans}], **more}).encode()


def read(batch):
    request = ExportTraceServiceRequest.FromString(batch.body)
    resource = {each.key: each.value.string_value for each in request.resource_spans[0].resource.attributes}
    return resource, [span for scope in request.resource_spans[0].scope_spans for span in scope.spans]


async def test_the_shape_decides_not_the_path_or_the_type():
    async with Agent() as agent:
        status, headers, answer = await agent.post("/v1/traces", a_post(), "application/json")
        assert (status, headers["content-type"], answer) == (200, "application/json", b"{}")
        (batch,) = agent.pipelines[Signal.TRACES].batches
        resource, (span,) = read(batch)
        assert (batch.items, resource["service.name"]) == (1, "shop")
        assert (span.trace_id.hex(), span.name) == (TRACE, "wordpress.request")
        assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_250
        assert agent.registry.value("otelwp_receiver_mended", receiver="otlp") > 0

        assert (await agent.post("/v1/traces", b'{"resourceSpans":[]}', "application/json"))[0] == 200
        assert (await agent.post("/v1/logs", a_post(), "application/json"))[0] == 200  # unknown fields are ignored
        assert [len(pipeline.batches) for pipeline in agent.pipelines.values()] == [1, 0, 0]


async def test_a_large_one_is_decoded_in_a_thread():
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", a_post(4000), "application/json"))[0] == 200
        (batch,) = agent.pipelines[Signal.TRACES].batches
        assert batch.items == len(read(batch)[1]) == 4000


@pytest.mark.parametrize("body", [b'{"data":[{"spans":[{"spanID":7}]}', b'{"data":[3]}'])
async def test_what_cannot_be_used_is_refused_in_json(body):
    async with Agent() as agent:
        status, headers, answer = await agent.post("/v1/traces", body, "application/json")
        assert (status, headers["content-type"]) == (400, "application/json")
        assert json.loads(answer)["message"]
        assert agent.refused("malformed") == 1


async def test_the_limit_of_items_holds():
    async with Agent(max_items_per_request=10) as agent:
        assert (await agent.post("/v1/traces", a_post(11), "application/json"))[0] == 413
        assert (await agent.post("/v1/traces", a_post(10), "application/json"))[0] == 200
