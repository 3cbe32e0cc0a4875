"""Large bodies, which are answered first and decoded in a thread."""

import asyncio
import gzip
import socket
import threading

import pytest
import uvloop
from structlog.testing import capture_logs

from otelwp_agent.codecs.jaeger import from_json
from otelwp_agent.codecs.jaeger import http as jaeger_http
from otelwp_agent.errors import Overloaded
from otelwp_agent.transport import decoding
from otelwp_agent.transport.http_messages import Head, Request
from tests.kit.jaeger import FRONT, WORDPRESS, Agent, handed_over, large, taken


async def test_a_large_body_is_answered_first_and_judged_after():
    body = large()
    assert len(body) > jaeger_http.AT_ONCE
    async with Agent() as agent:
        assert (await agent.post(body))[0] == 202
        await taken(agent, 1000)
        assert agent.pipeline.batches[0].items == 1000


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_the_answer_to_a_large_body_is_on_its_way_before_it_is_decoded(monkeypatch, loop):
    """A client in another thread reads the answer while the loop is busy decoding."""
    answered, seen = threading.Event(), []
    front = from_json.decode(FRONT, 0)

    def decoding(_body, _now, _max_items):
        seen.append(answered.wait(60))
        yield
        return front

    monkeypatch.setattr(from_json, "decoding", decoding)

    def client(port):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            body = large()
            connection.sendall(b"POST /api/traces HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert connection.recv(100).startswith(b"HTTP/1.1 202 ")
            answered.set()

    async def main():
        async with Agent() as agent:
            await asyncio.to_thread(client, agent.port)
            await taken(agent, 1)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert seen == [True]


async def test_a_large_wrong_body_is_counted_and_logged_once_for_a_sender():
    async with Agent() as agent:
        with capture_logs() as logs:
            for _ in range(3):
                assert (await agent.post(large()[:-1], User_Agent=WORDPRESS))[0] == 202
                assert (await agent.post(FRONT))[0] == 202
        assert agent.refused("malformed") == 3
        lines = [line for line in logs if line["event"] == "request refused after it was accepted"]
        assert [(line["site"], line["log_level"]) for line in lines] == [("shop.example:8980", "error")]


async def test_a_large_body_that_finds_no_room_is_counted_as_lost():
    async with Agent() as agent:
        agent.pipeline.errors = [Overloaded("full")]
        with capture_logs() as logs:
            await agent.post(large())
            await agent.post(FRONT)
            await taken(agent, 1)
        assert agent.refused("overloaded") == 1
        assert "requests dropped after they were accepted" in [line["event"] for line in logs]
    async with Agent(endpoint="127.0.0.1:0", on_overload="accept_and_drop") as agent:
        agent.pipeline.errors = [Overloaded("full")]
        await agent.post(large(), User_Agent=WORDPRESS)
        await agent.post(FRONT)
        assert agent.registry.value("otelwp_receiver_dropped_requests", site="shop.example:8980") == 1


async def test_a_large_body_that_cannot_be_kept_is_counted_as_lost():
    async with Agent() as agent:
        agent.pipeline.waiting = []
        with capture_logs() as logs:
            assert (await agent.post(large()))[0] == 202
            ((told, _),) = await handed_over(agent, 1)
            told.set_exception(Overloaded("the disk is full"))
            async with asyncio.timeout(60):
                while not agent.refused("overloaded"):
                    await asyncio.sleep(0)
        assert agent.refused("overloaded") == 1
        assert "requests dropped after they were accepted" in [line["event"] for line in logs]


@pytest.mark.parametrize("error", [None, Overloaded("the disk is full"), "malformed"])
async def test_where_a_journal_stands_the_answer_to_a_large_body_waits_for_it(error):
    async with Agent() as agent:
        agent.pipeline.answers_late = True
        agent.pipeline.waiting = []
        if error == "malformed":
            status, answer = await agent.post(large()[:-1])
            assert (status, "JSON" in answer) == (400, True)
            return
        answer = asyncio.ensure_future(agent.post(large()))
        ((told, yes),) = await handed_over(agent, 1)
        await asyncio.sleep(0.01)  # an answer that does not wait would be there by now
        assert not answer.done()
        if error is None:
            told.set_result(yes)
            assert await answer == (202, "")
        else:
            told.set_exception(error)
            assert (await answer)[0] == 429
            assert agent.refused("overloaded") == 1


async def test_what_was_answered_is_handed_on_at_shutdown():
    agent = Agent()
    await agent.receiver.start()
    await agent.post(large(5000))
    await agent.receiver.shutdown()
    assert agent.pipeline.items == 5000


async def test_bodies_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_WAITING", 0)
    async with Agent() as agent:
        agent.receiver._http._decoding._waiting_bytes = 1
        status, _ = await agent.post(FRONT)
        assert status == 429
        assert agent.refused("decoding") == 1
        agent.receiver._http._decoding._waiting_bytes = 0
        assert (await agent.post(FRONT))[0] == 202


async def test_others_are_answered_while_a_large_body_is_decoded():
    async with Agent() as agent:
        await agent.post(large(10_000))
        assert (await agent.post(FRONT))[0] == 202
        assert agent.pipeline.batches[0].items == 1
        await taken(agent, 10_001)


async def test_a_large_body_is_forwarded_at_shutdown_though_a_thread_decodes_it():
    agent = Agent()
    await agent.receiver.start()
    body = large(5000)
    assert len(body) > decoding.OFF_LOOP
    assert (await agent.post(body))[0] == 202
    await agent.receiver.shutdown()
    assert agent.pipeline.items == 5000


async def test_a_body_that_inflates_twice_is_read_once():
    body = gzip.compress(gzip.compress(large(10)))
    async with Agent() as agent:
        assert (await agent.post(body, Content_Encoding="gzip"))[0] == 400
        assert (await agent.post(body, Content_Encoding="gzip, gzip"))[0] == 202
        assert (await agent.post(gzip.compress(large(10))))[0] == 202


async def test_a_body_of_many_small_values_is_decoded_in_a_thread():
    parts = b",".join([b"{}"] * decoding.MAX_COMMAS)
    body = b'{"data":[{"spans":[{"spanID":"1","logs":[%b]}]}]}' % parts
    async with Agent() as agent:
        answer = agent.receiver._http.handle(Request(Head("POST", "/api/traces", {}), body))
        assert answer.status == 202
        assert agent.receiver._http._decoding._threads == 1
        await taken(agent, 1)
