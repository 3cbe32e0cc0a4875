import asyncio
import json

import pytest
import structlog

from otelwp_agent.admin.exchange import ApiAnswer
from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.admin.server import AdminServer
from otelwp_agent.admin.settings import AdminServerSettings

seen = []


async def answer(request):
    seen.append(request)
    try:
        body = await request.read()
    except ProblemError as error:
        return ApiAnswer(error.status, error.body("r"), "application/problem+json", error.headers)
    return ApiAnswer(200, json.dumps([request.method, request.target, body.decode()]).encode())


@pytest.fixture
async def serve():
    servers = []

    async def serve(**settings):
        config = AdminServerSettings(**{"endpoint": "127.0.0.1:0", **settings})
        server = AdminServer(config, answer, name="admin", log=structlog.get_logger())
        await server.start()
        servers.append(server)
        return server

    seen.clear()
    yield serve
    for server in servers:
        await server.shutdown()


async def send(server, data, *, more=b""):
    """Return what the server answers until it closes the connection or an answer is complete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    if more:
        await writer.drain()
        writer.write(more)
    text = await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    return text.decode()


def post(body, *headers):
    lines = ["POST /x?y=1 HTTP/1.1", "Host: localhost", *headers]
    if not headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_requests_arrive_as_they_were_sent(serve):
    server = await serve()
    text = await send(server, post(b"body"))
    assert text.startswith("HTTP/1.1 200 OK")
    assert text.endswith('["POST", "/x?y=1", "body"]')
    assert "aiohttp" not in text
    (request,) = seen
    assert (request.peer, request.headers["host"]) == ("127.0.0.1", "localhost")


async def test_what_is_not_http_is_answered_with_a_problem(serve):
    text = await send(await serve(), b"GARBAGE\r\n\r\n")
    assert text.startswith(("HTTP/1.1 400 ", "HTTP/1.0 400 "))
    assert "application/problem+json" in text
    assert seen == []


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x" * 2000),
        post(b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"", "Content-Length: 9000000000"),
    ],
)
async def test_a_large_body_is_refused(serve, request_):
    text = await send(await serve(max_request_body_size=1024), request_)
    assert text.startswith("HTTP/1.1 413 ")
    assert "1024 bytes" in text


async def test_a_slow_body_is_refused(serve):
    text = await send(await serve(read_timeout="50ms"), post(b"b", "Content-Length: 5"))
    assert text.startswith("HTTP/1.1 408 ")


async def test_a_connection_without_a_request_is_closed(serve):
    server = await serve(idle_timeout="50ms")
    assert await send(server, b"GET / HT") == ""


async def test_more_connections_than_allowed_are_closed(serve):
    server = await serve(max_connections=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(post(b""))
    assert await reader.read(10)
    with pytest.raises((ConnectionError, AssertionError)):
        assert await send(server, post(b""))
    writer.close()


async def test_it_may_stop_twice_and_before_it_has_started(serve):
    server = await serve()
    await server.shutdown()
    await server.shutdown()
    assert (server.port, server.url) == (0, "")
