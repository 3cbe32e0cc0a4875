"""Large protobuf bodies are checked in a thread, while others are served."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc.status_pb2 import Status

from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.native import extension
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import LARGE_FULL, LARGE_KEYS, StepwiseChecker
from otelwp_agent.transport import decoding
from tests.kit.otlp import delimited
from tests.receivers.test_otlp import EXPORT, Agent

SMALL = delimited(1, delimited(2, delimited(2, delimited(5, b"checkout"))))
BAD_TEXT = delimited(2, delimited(5, b"\xff"))
"""A span whose name is not UTF-8, which only `full` notices."""
GRPC = {"grpc": {"endpoint": "127.0.0.1:0", "max_recv_msg_size_mib": 20}}
LEVELS = pytest.mark.parametrize(("validation", "size"), [("keys", LARGE_KEYS), ("full", LARGE_FULL)])


def large(size: int, last: bytes = b"") -> tuple[bytes, int]:
    """Return a request of at least `size` bytes and the number of its spans."""
    span = delimited(2, delimited(5, b"GET /shop/basket" * 6))
    count = size // len(span) + 1
    return delimited(1, delimited(2, span * count + last)), count


@pytest.fixture
def runs(monkeypatch):
    """Record the size of each body that is checked in a thread."""
    found = []
    check = decoding.Decoding.check

    def recorded(self, checker, body, deliver):
        found.append(len(body))
        return check(self, checker, body, deliver)

    monkeypatch.setattr(decoding.Decoding, "check", recorded)
    return found


@LEVELS
async def test_a_large_body_is_checked_while_others_are_served(runs, validation, size):
    body, count = large(3 * size)
    async with Agent(validation=validation) as agent:
        answer = asyncio.ensure_future(agent.post("/v1/traces", body))
        while not runs:
            await asyncio.sleep(0)
        assert (await agent.post("/v1/traces", SMALL))[0] == 200
        assert (await answer)[0] == 200
        batches = agent.pipelines[Signal.TRACES].batches
        assert sorted(batch.items for batch in batches) == [1, count]
        assert body in [batch.body for batch in batches]
        assert runs == [len(body)]


@LEVELS
async def test_smaller_bodies_are_checked_on_the_loop(runs, validation, size):
    assert StepwiseChecker(Signal.TRACES, full=validation == "full").large == (size if extension else 500_000)
    body, count = large(min(size, 500_000) // 2)
    async with Agent(validation=validation) as agent:
        assert (await agent.post("/v1/traces", body))[0] == 200
        assert [batch.items for batch in agent.pipelines[Signal.TRACES].batches] == [count]
    assert not runs


@pytest.mark.parametrize("last", [BAD_TEXT, delimited(2, b"\xff")], ids=["inside a span", "a span"])
async def test_a_large_malformed_body_is_refused_and_counted(runs, last):
    body, _ = large(LARGE_KEYS, last)
    for validation in ("keys", "full"):
        async with Agent(validation=validation) as agent:
            status, _, answer = await agent.post("/v1/traces", body)
            refused = not (validation == "keys" and last is BAD_TEXT)
            assert status == (400 if refused else 200)
            if refused:
                assert Status.FromString(answer).message == "the body is not a serialized OTLP export request"
            assert (agent.registry.value("otelwp_receiver_refused_requests", reason="malformed") or 0) == refused
            assert len(agent.pipelines[Signal.TRACES].batches) == (not refused)
    assert len(runs) == 2


@LEVELS
async def test_a_large_body_is_refused_as_the_pipeline_refuses(runs, monkeypatch, validation, size):
    body, _ = large(size)
    async with Agent(validation=validation, max_items_per_request=1000) as agent:
        assert (await agent.post("/v1/traces", body))[0] == 413
        del agent.pipelines[Signal.TRACES]
        assert (await agent.post("/v1/traces", body))[0] == 404
        assert len(runs) == 1
    async with Agent(validation=validation) as agent:
        monkeypatch.setattr(agent.pipelines[Signal.TRACES], "admit", lambda: None)
        agent.pipelines[Signal.TRACES].refusal = Overloaded("full")
        assert (await agent.post("/v1/traces", body))[0] == 429


async def test_a_large_body_without_items_is_a_success(runs):
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", b"\x78\x01" * LARGE_KEYS))[0] == 200
        assert not agent.pipelines[Signal.TRACES].batches
    assert runs


@pytest.mark.skipif(
    extension is None, reason="without the extension module, protobuf also parses the outline in one call"
)
async def test_converted_json_is_checked_in_the_same_thread(runs, monkeypatch):
    body, count = large(LARGE_FULL)
    parsed = []
    kind = request_class(Signal.TRACES)
    monkeypatch.setattr(
        "otelwp_agent.model.projections.parse", lambda parser, piece: parsed.append(len(piece)) or parser(piece)
    )
    async with Agent(validation="full") as agent:
        assert (await agent.post("/v1/traces", encode(Signal.TRACES, body), "application/json"))[0] == 200
        (batch,) = agent.pipelines[Signal.TRACES].batches
    assert batch.items == count
    assert kind.FromString(batch.body)
    assert len(parsed) > 1
    assert max(parsed) < len(body)
    assert not runs


@LEVELS
async def test_large_grpc_messages_follow_the_same_rule(runs, monkeypatch, validation, size):
    body, count = large(2 * size)
    async with Agent(protocols=GRPC, validation=validation) as agent:
        async with grpc.aio.insecure_channel(agent.receiver.endpoints()["grpc"]) as channel:
            export = channel.unary_unary(EXPORT[Signal.TRACES])
            assert await export(SMALL) == b""
            assert await export(body) == b""
            assert runs == [len(body)]
            with pytest.raises(grpc.aio.AioRpcError, match="not a serialized OTLP") as refused:
                await export(body[:-1])
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            monkeypatch.setattr(agent.pipelines[Signal.TRACES], "admit", lambda: None)
            agent.pipelines[Signal.TRACES].refusal = Overloaded("full")
            with pytest.raises(grpc.aio.AioRpcError, match="full"):
                await export(body)
        assert [batch.items for batch in agent.pipelines[Signal.TRACES].batches] == [1, count]
        value = agent.registry.value
        for reason in ("malformed", Overloaded("full").reason):
            assert value("otelwp_receiver_refused_requests", reason=reason, transport="grpc") == 1


async def test_a_shutdown_answers_a_large_message(runs):
    body, count = large(2 * LARGE_KEYS)
    async with Agent(protocols=GRPC) as agent, grpc.aio.insecure_channel(agent.receiver.endpoints()["grpc"]) as channel:
        answer = channel.unary_unary(EXPORT[Signal.TRACES])(body)
        while not runs:
            await asyncio.sleep(0)
        await agent.receiver.shutdown()
        assert await answer == b""
        assert [batch.items for batch in agent.pipelines[Signal.TRACES].batches] == [count]


async def test_large_bodies_that_wait_are_bounded(runs, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_WAITING", -1)
    body, _ = large(LARGE_KEYS)
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", body))[0] == 429
        assert agent.registry.value("otelwp_receiver_refused_requests", reason="decoding") == 1
    assert runs
