import asyncio
import contextlib
import gzip
import socket
import stat
import time

import pytest
import structlog

from otelwp_agent.config.blocks import Cors
from otelwp_agent.config.blocks import HttpServer as Settings
from otelwp_agent.errors import MalformedError, Overloaded, StartError
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import Request, Response, Route
from otelwp_agent.transport.http_server import HttpServer

LOG = structlog.get_logger()
OK = Response(200, b"ok", "text/plain")


class Site:
    """A server, the requests it got and the refusals it counted."""

    def __init__(self, routes=None, **settings):
        settings.setdefault("endpoint", "127.0.0.1:0")
        self.requests: list[Request] = []
        self.refusals: list[str] = []
        self.server = HttpServer(
            Settings.model_validate(settings),
            routes or {"/v1/traces": Route(self.take)},
            name="receivers/test",
            log=LOG,
            on_refused=self.refusals.append,
        )

    def take(self, request):
        self.requests.append(request)
        return OK

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.shutdown(grace=0.5)

    async def connect(self):
        return Client(*await asyncio.open_connection("127.0.0.1", self.server.port))


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, body

    async def closed(self):
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read() == b""
        return True

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def post(body=b"hello", path="/v1/traces", extra=""):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


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
            await asyncio.sleep(0.05)
            assert len(answers) == 1
            answers.pop().set_result(Response(200, b"done"))
            assert (await client.answer())[2] == b"done"
            assert (await client.answer())[2] == b"fast"
            await asyncio.sleep(0.05)
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


async def test_wrong_paths_and_methods_are_told_what_there_is():
    async with Site() as site:
        client = await site.connect()
        client.send(post(path="/v1/trace"))
        status, _, body = await client.answer()
        assert (status, body) == (404, b"nothing is served at this path; there is: /v1/traces\n")
        client.send(b"GET /v1/traces HTTP/1.1\r\n\r\n")
        status, headers, body = await client.answer()
        assert (status, headers["allow"], body) == (405, "POST", b"this path takes POST, not GET\n")
        await client.close()
        assert site.refusals == ["not_found", "method"]


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        ("gzip", gzip.compress(b"fine"), 200, None),
        ("br", b"whatever", 400, "unknown_encoding"),
        ("gzip", b"whatever", 400, "malformed"),
        ("gzip", gzip.compress(b"\0" * 1_000_001), 413, "too_large"),
    ],
)
async def test_encoded_bodies(encoding, body, status, reason):
    async with Site(max_request_body_size=1_000_000) as site:
        client = await site.connect()
        client.send(post(body, extra=f"Content-Encoding: {encoding}\r\n"))
        assert (await client.answer())[0] == status
        client.send(post())
        assert (await client.answer())[0] == 200, "the next request is not affected"
        await client.close()
        assert site.refusals == ([reason] if reason else [])


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
            await asyncio.sleep(0.05)
            sock.close()
        await asyncio.sleep(0.05)
        assert len(site.requests) == 2
        assert not site.server.connections


async def test_a_handler_that_breaks_answers_500_and_ends_nothing():
    def broken(request):
        raise ZeroDivisionError

    def malformed(request):
        raise MalformedError("not what it claims to be")

    async with Site({"/broken": Route(broken), "/malformed": Route(malformed)}) as site:
        client = await site.connect()
        client.send(post(path="/broken") + post(path="/malformed"))
        assert (await client.answer())[0] == 500
        status, _, body = await client.answer()
        assert (status, body) == (400, b"not what it claims to be\n")
        await client.close()
        assert site.refusals == ["internal", "malformed"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"", None), (b"POST /v1/tr", 408), (b"POST /v1/traces HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", 408)],
)
async def test_slow_senders_are_timed_out(monkeypatch, sent, status):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)
    async with Site(read_header_timeout="100ms", read_timeout="100ms", idle_timeout="100ms") as site:
        client = await site.connect()
        client.send(sent)
        started = time.monotonic()
        if status:
            assert (await client.answer())[0] == status
        assert await client.closed()
        assert 0.05 < time.monotonic() - started < 5
        await client.close()
        assert site.refusals == (["timeout"] if status else [])


async def test_a_trickle_does_not_extend_the_time_for_a_head(monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)
    async with Site(read_header_timeout="200ms") as site:
        client = await site.connect()
        async with asyncio.timeout(5):
            for byte in b"POST /v1/traces HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)
                if site.refusals:
                    break
        assert site.refusals == ["timeout"]
        await client.close()


async def test_more_connections_than_the_limit_are_told_503():
    async with Site(max_connections=2) as site:
        clients = [await site.connect() for _ in range(3)]
        status, headers, _ = await clients[2].answer()
        assert (status, headers["retry-after"]) == (503, "1")
        clients[0].send(post())
        assert (await clients[0].answer())[0] == 200
        for client in clients:
            await client.close()
        assert site.refusals == ["connections"]


async def test_a_unix_socket_has_its_mode_and_goes_away(tmp_path):
    path = tmp_path / "s.sock"
    async with Site(endpoint=f"unix://{path}", unix_mode="0600") as site:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = Client(*await asyncio.open_unix_connection(path))
        client.send(post())
        assert (await client.answer())[0] == 200
        assert site.requests[0].peer == ""
        await client.close()
    assert not path.exists()


async def test_a_port_in_use_names_the_component_and_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"receivers/test: cannot listen on 127.0.0.1:{port}: .*another process"):
            await Site(endpoint=f"127.0.0.1:{port}").server.start()


async def test_another_component_on_the_same_port_is_named():
    async with Site() as site:
        endpoint = f"127.0.0.1:{site.server.port}"
        first = Site(endpoint=endpoint)
        first.server.name = "receivers/other"
        with pytest.raises(StartError, match="in use"):
            await first.server.start()


async def test_a_successor_takes_over_socket_and_connections():
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    old, new = Site(endpoint=endpoint), Site(endpoint=endpoint)
    async with old:
        client = await old.connect()
        client.send(post(b"to the old"))
        await client.answer()
        client.send(post(b"cut in half")[:-5])
        await asyncio.sleep(0.05)
        async with new:
            await old.server.shutdown()
            client.send(b" half")
            assert (await client.answer())[0] == 200
            client.send(post(b"to the new"))
            assert (await client.answer())[0] == 200
            fresh = await new.connect()
            fresh.send(post(b"to the new, too"))
            assert (await fresh.answer())[0] == 200
            await client.close()
            await fresh.close()
    assert [request.body for request in new.requests] == [b"to the new", b"to the new, too"]


async def test_shutdown_answers_what_has_begun_and_closes_the_idle():
    pending = []

    def later(request):
        pending.append(asyncio.get_running_loop().create_future())
        return pending[-1]

    site = Site({"/": Route(later)})
    async with site:
        idle, busy = await site.connect(), await site.connect()
        busy.send(post(path="/"))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(site.server.shutdown(grace=5))
        assert await idle.closed()
        pending[0].set_result(OK)
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        await stopping
        with pytest.raises(OSError, match="Connect"):
            await site.connect()
        await idle.close()
        await busy.close()


async def test_cors():
    cors = Cors(allowed_origins=["https://*.shop.example"], allowed_headers=["X-Api"], max_age=60)
    async with Site(cors=cors.model_dump()) as site:
        client = await site.connect()
        client.send(b"OPTIONS /v1/traces HTTP/1.1\r\nOrigin: https://a.shop.example\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["access-control-allow-origin"]) == (204, "https://a.shop.example")
        assert headers["access-control-max-age"] == "60"
        assert "X-Api" in headers["access-control-allow-headers"]
        for _ in range(2):
            client.send(post(extra="Origin: https://a.shop.example\r\n"))
            assert (await client.answer())[1]["access-control-allow-origin"] == "https://a.shop.example"
        client.send(post(extra="Origin: https://evil.example\r\n"))
        assert "access-control-allow-origin" not in (await client.answer())[1]
        await client.close()


async def test_head_requests_get_no_body_and_response_headers_are_added():
    async with Site({"/": Route(lambda _: OK, ("GET", "HEAD"))}, response_headers={"X-Served-By": "me"}) as site:
        client = await site.connect()
        client.send(b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 2" in head
        assert b"X-Served-By: me" in head
        assert (await client.answer())[2] == b"ok"
        await client.close()


async def test_forgotten_heads_are_parsed_anew(monkeypatch):
    monkeypatch.setattr(http_server, "REMEMBERED_HEADS", 3)
    async with Site() as site:
        client = await site.connect()
        for number in range(10):
            client.send(post(extra=f"X-Number: {number}\r\n"))
            await client.answer()
            assert len(site.server.plans) <= 3
        await client.close()
        assert [request.headers["x-number"] for request in site.requests] == [str(number) for number in range(10)]
