import asyncio
import socket
import time

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.transport.http_heads import MAX_FIELDS
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.in_flight import InFlight
from tests.kit.http_site import Site, post


async def test_keep_alive_serves_request_after_request():
    async with Site() as site:
        client = await site.connect()
        for number in range(5):
            client.send(post(b"body %d" % number))
            status, headers, body = await client.answer()
            assert (status, body, headers["content-type"]) == (200, b"ok", "text/plain")
            assert headers["date"].endswith("GMT")
        await client.close()
        assert [request.body for request in site.requests] == [b"body %d" % number for number in range(5)]


async def test_a_head_seen_before_means_the_same_as_the_first_time():
    async with Site() as site:
        client = await site.connect()
        for _ in range(3):
            client.send(post(b"again", extra="X-Thing: 1\r\nx-thing: 2\r\nContent-Type: Text/Plain; a=b\r\n"))
            await client.answer()
        await client.close()
        assert len(site.server.plans) == 1
        for request in site.requests:
            assert request.headers["x-thing"] == "1, 2"
            assert (request.method, request.path, request.head.media_type) == ("POST", "/v1/traces", "text/plain")
            assert request.peer == "127.0.0.1"


@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
async def test_bytes_may_come_in_any_pieces(seen_before, size):
    async with Site() as site:
        client = await site.connect()
        if seen_before:
            client.send(post(b"z" * 100))
            await client.answer()
        message = post(b"z" * 100) + post(b"") + post(b"y" * 100)
        for start in range(0, len(message), size):
            client.send(message[start : start + size])
            await client.writer.drain()
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await client.answer())[0] == 200
        await client.close()
        assert [request.body for request in site.requests][-3:] == [b"z" * 100, b"", b"y" * 100]


async def test_pipelined_requests_are_answered_in_order():
    answers = []

    def slow_then_fast(request):
        if request.body == b"slow":
            future = asyncio.get_running_loop().create_future()
            answers.append(future)
            return future
        return Response(200, request.body)

    async with Site({"/": Route(slow_then_fast)}) as site:
        for _ in range(2):  # the second time through the remembered head
            client = await site.connect()
            client.send(post(b"slow", "/") + post(b"fast", "/") + post(b"slow", "/") + post(b"last", "/"))
            await asyncio.sleep(0.05)  # a request that overtakes the first one would be handled by now
            assert len(answers) == 1
            answers.pop().set_result(Response(200, b"done"))
            assert (await client.answer())[2] == b"done"
            assert (await client.answer())[2] == b"fast"
            while not answers:
                await asyncio.sleep(0)
            answers.pop().set_result(Response(200, b"done2"))
            assert (await client.answer())[2] == b"done2"
            assert (await client.answer())[2] == b"last"
            await client.close()


async def test_a_chunked_body_is_put_together():
    async with Site() as site:
        client = await site.connect()
        for _ in range(2):
            client.send(
                b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n"
            )
            assert (await client.answer())[0] == 200
        await client.close()
        assert [request.body for request in site.requests] == [b"Wikipedia"] * 2


async def test_expect_100_continue_is_answered_before_the_body():
    async with Site() as site:
        client = await site.connect()
        for _ in range(2):
            client.send(b"POST /v1/traces HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
            assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            assert (await client.answer())[0] == 200
        client.send(b"POST /v1/traces HTTP/1.1\r\nExpect: miracles\r\nContent-Length: 3\r\n\r\n")
        assert (await client.answer())[0] == 417
        await client.close()


async def test_expect_is_refused_before_the_body_is_sent():
    async with Site(max_request_body_size=10) as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        assert (await client.answer())[0] == 413
        assert await client.closed()
        await client.close()
        assert site.refusals == ["too_large"]


@pytest.mark.parametrize("seen_before", [False, True])
async def test_a_route_that_does_not_admit_refuses_before_it_reads(seen_before):
    full = []

    def admit():
        if full:
            raise Overloaded("full", retry_after=2.5)

    site = Site()
    site.server.routes = {"/v1/traces": Route(site.take, admit=admit)}
    async with site:
        client = await site.connect()
        if seen_before:
            client.send(post())
            await client.answer()
        full.append(True)
        client.send(post())
        status, headers, body = await client.answer()
        assert (status, headers["retry-after"], body) == (429, "3", b"full\n")
        full.clear()
        client.send(post())
        assert (await client.answer())[0] == 200, "the connection goes on"
        await client.close()
        assert site.refusals == ["overloaded"]
        assert len(site.requests) == 1 + seen_before


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_stopped_while_it_is_read(chunked):
    async with Site(max_request_body_size=100_000) as site:
        client = await site.connect()
        if chunked:
            client.send(b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"fffff\r\n" + b"x" * 200_000)
        else:
            client.send(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 50_000)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (413, "close")
        await client.close()
        assert (site.requests, site.refusals) == ([], ["too_large"])


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # gRPC
        b"hello there\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_so_and_closed(data):
    async with Site() as site:
        other = await site.connect()
        client = await site.connect()
        client.send(data)
        assert (await client.answer())[0] == 400
        assert await client.closed()
        other.send(post())
        assert (await other.answer())[0] == 200, "nobody else is disturbed"
        await client.close()
        await other.close()
        assert site.refusals == ["malformed_http"]


async def test_an_endless_head_is_refused():
    async with Site() as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 70_000)
        assert (await client.answer())[0] == 431
        await client.close()


async def test_http_1_0_and_connection_close_end_the_connection():
    async with Site() as site:
        for head in (b"POST /v1/traces HTTP/1.0\r\n", b"POST /v1/traces HTTP/1.1\r\nConnection: close\r\n"):
            for _ in range(2):
                client = await site.connect()
                client.send(head + b"Content-Length: 2\r\n\r\nhi")
                status, headers, _ = await client.answer()
                assert (status, headers["connection"]) == (200, "close")
                assert await client.closed()
                await client.close()


async def test_a_client_that_leaves_right_after_its_last_byte_is_heard():
    async with Site() as site:
        for reset in (False, True):
            sock = socket.create_connection(("127.0.0.1", site.server.port))
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(post(b"last words"))
            await asyncio.sleep(0.05)  # the bytes arrive before the end of the connection
            sock.close()
        async with asyncio.timeout(60):
            while len(site.requests) < 2 or site.server.sessions:
                await asyncio.sleep(0.001)
        assert len(site.requests) == 2
        assert not site.server.sessions


async def test_a_body_that_no_route_reads_is_not_kept():
    budget = InFlight()
    async with Site(in_flight=budget) as site:
        client = await site.connect()
        body = post(b"x" * 1_000_000, "/nowhere")
        client.send(body[:-1])
        for _ in range(20):
            await asyncio.sleep(0.005)
            assert budget.used == 0
        client.send(body[-1:])
        assert (await client.answer())[0] == 404
        client.send(post())
        assert (await client.answer())[0] == 200
        await client.close()


async def test_other_transfer_codings_are_refused():
    async with Site() as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (501, "close")
        await client.close()
        assert site.refusals == ["transfer_coding"]


async def test_repeated_headers_and_trailers_cost_linear_time():
    async with Site() as site:
        client = await site.connect()
        head = b"POST /v1/traces HTTP/1.1\r\n" + b"a:b\r\n" * (MAX_FIELDS - 1)
        began = time.process_time()
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 12_000 + b"\r\n")
        assert (await client.answer())[0] == 200
        assert time.process_time() - began < 0.5
        assert len(site.requests[0].headers["a"]) == (MAX_FIELDS - 1) * 3 - 2
        await client.close()


async def test_an_agent_that_stops_refuses_bodies_that_wait_for_memory():
    budget = InFlight(10, 100_000)
    async with Site(in_flight=budget) as site:
        client = await site.connect()
        client.send(post(b"x" * 200_000)[:-150_000])
        while not budget.used:
            await asyncio.sleep(0)
        began = time.monotonic()
        stopping = asyncio.create_task(site.server.shutdown(grace=60))
        assert (await client.answer())[0] == 503
        await stopping
        assert time.monotonic() - began < 30
        await client.close()
        assert budget.used == 0
