import asyncio
import gzip
import json
import socket
import struct
import threading
import time

import pytest
import uvloop
from structlog.testing import capture_logs

from otelwp_agent.codecs.jaeger import from_json
from otelwp_agent.codecs.jaeger import http as jaeger_http
from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import messages_of
from otelwp_agent.transport import decoding
from otelwp_agent.transport.http_messages import Head, Request
from tests.kit.jaeger import CAPTURES, WORDPRESS, Agent, span, trace

FRONT = (CAPTURES / "001-front.json").read_bytes()
THRIFT = (CAPTURES / "901-decalog-front.thrift").read_bytes()


async def test_the_founding_plugin_lands():
    async with Agent() as agent:
        answer = await agent.post(FRONT, User_Agent=WORDPRESS, Content_Type="application/json", Connection="close")
        assert answer == (202, "")
        (batch,) = agent.pipeline.batches
        assert (batch.items, batch.origin.receiver, batch.origin.transport) == (1, "jaeger_json", "http")
        assert batch.origin.headers["user-agent"] == WORDPRESS
        (found,) = messages_of(Signal.TRACES, batch.body)
        assert found.trace_id.hex() == "1d1aeade7e26e005ffb0bf74dad4dd92"
        assert [(receipt.pending, items) for receipt, items in batch.shares] == [(1, 1)]


@pytest.mark.parametrize(
    "content_type", ["", "application/x-www-form-urlencoded", "text/plain", "application/x-thrift"]
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_json_is_told_by_its_bytes(content_type, method):
    headers = {"Content_Type": content_type} if content_type else {}
    async with Agent() as agent:
        for body in (FRONT, b"\n " + FRONT, b"\xef\xbb\xbf" + FRONT):
            assert (await agent.post(body, method, **headers))[0] == 202
        assert agent.pipeline.items == 3


async def test_gzip_is_told_by_its_header_or_its_bytes():
    async with Agent() as agent:
        assert (await agent.post(gzip.compress(FRONT), Content_Encoding="gzip"))[0] == 202
        assert (await agent.post(gzip.compress(FRONT)))[0] == 202
        assert agent.pipeline.items == 2


async def test_a_bomb_without_a_header_is_stopped():
    async with Agent(endpoint="127.0.0.1:0", max_request_body_size="1MiB") as agent:
        assert (await agent.post(gzip.compress(b"[" + b" " * 2**21 + b"]")))[0] == 413


async def test_thrift_lands_on_the_same_path():
    async with Agent() as agent:
        assert await agent.post(THRIFT, Content_Type="application/x-thrift") == (202, "")
        assert await agent.post(THRIFT, Content_Type="application/json") == (202, "")
        assert agent.pipeline.items == 26


async def test_an_empty_body_is_wrong_and_counted_by_itself():
    async with Agent() as agent:
        status, answer = await agent.post(b"")
        assert status == 400
        assert "the body is empty" in answer
        assert agent.refused("empty") == 1
        assert agent.refused("malformed") == 0


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"a=1&b%5Bc%5D=2", "neither JSON"),
        (b'{"data":', "line 1 column"),
        (b'{"merchant_id":"7b0c"}', "the body: "),
        (b'{"data":[{"spans":[1]}]}', "data[0].spans[0]"),
        (b"[" * 5000, "not JSON"),
        (THRIFT[:100], "Thrift body"),
    ],
)
async def test_what_cannot_be_used_is_answered_with_its_place(body, place):
    async with Agent() as agent:
        status, answer = await agent.post(body)
        assert status == 400
        assert place in answer
        assert agent.refused("malformed") == 1
        assert (await agent.post(FRONT))[0] == 202


async def test_nothing_is_nothing():
    async with Agent() as agent:
        for body in (b"[]", b"{}", b'{"data":[]}', b'{"data":[{"traceID":"a","spans":[]}]}'):
            assert (await agent.post(body))[0] == 202
        assert agent.pipeline.batches == []


async def test_repairs_are_counted_by_kind_and_site_and_logged_once():
    async with Agent() as agent:
        with capture_logs() as logs:
            for _ in range(3):
                await agent.post(FRONT, User_Agent=WORDPRESS)
            await agent.post(trace(span(startTime=1795186135.5)), User_Agent="curl/8")
        assert agent.repairs("trace_id_differs", site="shop.example:8980") == 3
        assert agent.repairs("process_inline", site="shop.example:8980") == 3
        assert agent.repairs("time_in_s", site="shop") == 1
        lines = [line for line in logs if line["event"] == "spans repaired"]
        assert [line["site"] for line in lines] == ["shop.example:8980", "shop"]
        assert lines[0]["kinds"].keys() >= {"trace_id_differs", "process_inline", "tag_without_type"}


async def test_sites_that_anybody_can_make_up_are_bounded():
    async with Agent() as agent:
        for number in range(150):
            await agent.post(FRONT, User_Agent=f"WordPress/6.5; http://site{number}.example")
        assert agent.repairs("process_inline", site="other") == 50
        assert agent.repairs("process_inline") == 150


async def test_other_paths_and_methods():
    async with Agent() as agent:
        assert (await agent.post(FRONT, path="/v1/traces"))[0] == 404
        assert (await agent.post(b"", method="GET"))[0] == 405


async def test_without_a_pipeline_the_sender_is_told():
    async with Agent() as agent:
        agent.receiver.next = {}
        status, answer = await agent.post(FRONT)
        assert status == 404
        assert "service.pipelines" in answer


async def test_overload_refuses_or_drops():
    async with Agent() as agent:
        agent.pipeline.error = Overloaded("full")
        assert (await agent.post(FRONT))[0] == 429
    async with Agent(endpoint="127.0.0.1:0", on_overload="accept_and_drop") as agent:
        agent.pipeline.error = Overloaded("full")
        assert (await agent.post(FRONT, User_Agent=WORDPRESS))[0] == 202
        assert agent.registry.value("otelwp_receiver_dropped_requests", site="shop.example:8980") == 1
        assert not agent.receiver.health().healthy


async def test_listens_on_more_than_one_address(tmp_path):
    path = tmp_path / "jaeger.sock"
    async with Agent(endpoint="127.0.0.1:0", additional_endpoints=[f"unix://{path}"]) as agent:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /api/traces HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(FRONT), FRONT))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 202 ")
        writer.close()
        assert agent.pipeline.items == 1


async def test_a_port_in_use_is_told():
    async with Agent() as agent:
        other = Agent(endpoint=f"127.0.0.1:{agent.port}")
        other.receiver._http.server.name = "receivers/jaeger_json/2"
        with pytest.raises(StartError):
            await other.receiver.start()


async def handed_over(agent, count):
    """Wait until so many senders have to wait; return what they wait for."""
    async with asyncio.timeout(5):
        while len(agent.pipeline.waiting) < count:
            await asyncio.sleep(0)
    return agent.pipeline.waiting


async def test_the_answer_waits_for_the_journal():
    async with Agent() as agent:
        agent.pipeline.waiting = []
        for outcome, status in ((None, 202), (Overloaded("the disk is full"), 429)):
            post = asyncio.ensure_future(agent.post(FRONT))
            told, answer = (await handed_over(agent, 1)).pop()
            assert not post.done()
            if outcome is None:
                told.set_result(answer)
            else:
                told.set_exception(outcome)
            assert (await post)[0] == status


# -- large bodies


def large(spans=1000):
    return json.dumps(trace(*[span(spanID=f"{number + 1:016x}") for number in range(spans)])).encode()


async def taken(agent, items):
    async with asyncio.timeout(5):
        while agent.pipeline.items < items:
            await asyncio.sleep(0)


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
        seen.append(answered.wait(5))
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
            async with asyncio.timeout(5):
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


# -- clients that do not wait


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_closes_after_its_last_byte_is_heard(reset):
    async with Agent() as agent:

        def client():
            for _ in range(50):
                connection = socket.create_connection(("127.0.0.1", agent.port))
                connection.sendall(b"POST /api/traces HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(FRONT) + FRONT)
                if reset:
                    time.sleep(0.002)  # a reset in the same instant takes the bytes with it
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        await asyncio.to_thread(client)
        await taken(agent, 50)


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}])
async def test_a_web_page_of_another_origin_cannot_send(headers):
    """`text/plain` needs no CORS preflight, so only this keeps pages from sending to a receiver on loopback."""
    async with Agent() as agent:
        for _ in range(2):
            status, message = await agent.post(FRONT, Content_Type="text/plain", **headers)
            assert status == 403
            assert "cors.allowed_origins" in message
        assert agent.pipeline.batches == []
    async with Agent(cors={"allowed_origins": ["https://evil.example"]}) as agent:
        answer = await agent.post(FRONT, Content_Type="text/plain", Origin="https://evil.example")
        assert answer[0] == 202


# -- limits


async def test_more_spans_than_a_request_may_hold_are_refused():
    async with Agent(endpoint="127.0.0.1:0", max_items_per_request=20) as agent:
        status, answer = await agent.post(large(21))
        assert (status, "raise max_items_per_request" in answer) == (413, True)
        assert (await agent.post(large(20)))[0] == 202


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
