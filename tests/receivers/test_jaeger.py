import asyncio

import grpc
import pytest
from pydantic import ValidationError

from otelwp_agent.codecs.jaeger import http as jaeger_http
from otelwp_agent.codecs.jaeger import to_proto, to_thrift
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.jaeger import POST_SPANS, Config
from otelwp_agent.testing import messages_of
from otelwp_agent.transport import decoding
from tests.kit.jaeger import CAPTURES, Agent

JSON = (CAPTURES / "001-front.json").read_bytes()
THRIFT = (CAPTURES / "901-decalog-front.thrift").read_bytes()
OTLP = (CAPTURES.parent / "auto-wordpress-login.pb").read_bytes()


def http():
    return Agent("jaeger", protocols={"thrift_http": {"endpoint": "127.0.0.1:0"}})


def rpc():
    return Agent("jaeger", protocols={"grpc": {"endpoint": "127.0.0.1:0"}})


async def call(agent, message, **options):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{agent.port}") as channel:
        return await channel.unary_unary(POST_SPANS, None, None)(message, timeout=60, **options)


@pytest.mark.parametrize("content_type", ["application/x-thrift", "application/vnd.apache.thrift.binary", "text/plain"])
async def test_thrift_and_json_on_one_path(content_type):
    async with http() as agent:
        assert await agent.post(THRIFT, Content_Type=content_type) == (202, "")
        assert await agent.post(JSON, Content_Type=content_type) == (202, "")
        assert [batch.items for batch in agent.pipeline.batches] == [13, 1]
        assert agent.pipeline.batches[0].origin.receiver == "jaeger"


async def test_wrong_thrift_is_refused_and_others_go_on():
    async with http() as agent:
        status, answer = await agent.post(THRIFT[:-5], Content_Type="application/x-thrift")
        assert status == 400
        assert "Thrift" in answer
        assert agent.refused("malformed") == 1
        assert (await agent.post(THRIFT))[0] == 202


async def test_a_large_thrift_body_lands():
    bodies = to_thrift.encode(OTLP * 20)
    assert len(bodies[0]) > jaeger_http.THRIFT_AT_ONCE
    async with http() as agent:
        await agent.post(bodies[0])
        async with asyncio.timeout(60):
            while not agent.pipeline.batches:
                await asyncio.sleep(0)
        assert agent.pipeline.items == 36  # what repeats a span is left out
        assert agent.repairs("repeated_span") == 36 * 19


async def test_post_spans():
    async with rpc() as agent:
        assert await call(agent, to_proto.encode(OTLP), metadata=(("x-shop", "a"),)) == b""
        (batch,) = agent.pipeline.batches
        assert (batch.items, batch.origin.transport, batch.origin.headers["x-shop"]) == (36, "grpc", "a")
        assert {span.name for span in messages_of(Signal.TRACES, batch.body)} >= {"mysqli_real_connect"}
        assert await call(agent, b"") == b""
        assert len(agent.pipeline.batches) == 1


async def test_the_answer_waits_for_the_journal():
    async with rpc() as agent:
        agent.pipeline.waiting = []
        answer = asyncio.ensure_future(call(agent, to_proto.encode(OTLP)))
        async with asyncio.timeout(60):
            while not agent.pipeline.waiting:
                await asyncio.sleep(0.001)
        ((told, empty),) = agent.pipeline.waiting
        assert not answer.done()
        told.set_result(empty)
        assert await answer == b""


async def test_what_grpc_refuses():
    async with rpc() as agent:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(agent, b"\xff\xff")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert agent.refused("malformed") == 1
        agent.pipeline.error = Overloaded("full")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(agent, to_proto.encode(OTLP))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        agent.receiver.next = {}
        with pytest.raises(grpc.aio.AioRpcError, match="no pipeline accepts traces"):
            await call(agent, to_proto.encode(OTLP))


async def test_both_protocols():
    endpoint = {"endpoint": "127.0.0.1:0"}
    async with Agent("jaeger", protocols={"grpc": endpoint, "thrift_http": endpoint}) as agent:
        assert agent.receiver.endpoints().keys() == {"grpc", "thrift_http"}
    assert agent.receiver.endpoints() == {}


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        ({}, "name at least one protocol"),
        ({"thrift_compact": {"endpoint": "0.0.0.0:6831"}}, "thrift_compact"),
        ({"thrift_binary": None}, "thrift_binary"),
    ],
)
def test_protocols_that_are_refused(protocols, message):
    with pytest.raises(ValidationError, match=message):
        Config(protocols=protocols)


def test_the_ports_are_jaegers_own():
    protocols = Config(protocols={"grpc": None, "thrift_http": None}).protocols
    assert (protocols.grpc.endpoint, protocols.thrift_http.endpoint) == ("127.0.0.1:14250", "127.0.0.1:14268")


# -- limits


def bounded(most, **protocols):
    return Agent("jaeger", protocols=protocols, max_items_per_request=most)


async def test_more_spans_than_a_request_may_hold_are_refused():
    (thrift,) = to_thrift.encode(OTLP)
    async with bounded(35, thrift_http={"endpoint": "127.0.0.1:0"}) as agent:
        status, answer = await agent.post(thrift)
        assert (status, "raise max_items_per_request" in answer) == (413, True)
    async with bounded(36, thrift_http={"endpoint": "127.0.0.1:0"}) as agent:
        assert await agent.post(thrift) == (202, "")


async def test_more_spans_than_a_message_may_hold_are_refused_over_grpc():
    async with bounded(1000, grpc={"endpoint": "127.0.0.1:0"}) as agent:
        with pytest.raises(grpc.aio.AioRpcError, match="raise max_items_per_request"):
            await call(agent, b"\x0a\xd2\x0f" + b"\x0a\0" * 1001)
        assert agent.registry.value("otelwp_receiver_refused_requests", transport="grpc", reason="too_large") == 1
        await call(agent, to_proto.encode(OTLP))


async def test_a_large_message_is_decoded_in_a_thread_and_answered_when_it_was_forwarded():
    message = to_proto.encode(OTLP * 40)
    assert len(message) > decoding.OFF_LOOP
    async with rpc() as agent:
        assert await call(agent, message) == b""
        assert agent.pipeline.items == 36
        agent.pipeline.errors = [Overloaded("full")]
        with pytest.raises(grpc.aio.AioRpcError, match="full"):
            await call(agent, message)
        assert agent.registry.value("otelwp_receiver_refused_requests", transport="grpc", reason="overloaded") == 1
