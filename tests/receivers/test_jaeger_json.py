import asyncio
import gzip
import socket
import struct
import time

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import messages_of
from tests.kit.jaeger import CAPTURES, FRONT, WORDPRESS, Agent, handed_over, large, span, taken, trace

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
