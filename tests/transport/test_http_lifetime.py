import asyncio
import time

import pytest

from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import Route
from tests.kit.http_site import OK, Site, post


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
        assert time.monotonic() - started > 0.05
        await client.close()
        assert site.refusals == (["timeout"] if status else [])


async def test_a_trickle_does_not_extend_the_time_for_a_head(monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)
    async with Site(read_header_timeout="200ms") as site:
        client = await site.connect()
        async with asyncio.timeout(60):
            for byte in b"POST /v1/traces HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)  # the sender is slow
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


async def test_shutdown_answers_what_has_begun_and_closes_the_idle():
    pending = []

    def later(request):
        pending.append(asyncio.get_running_loop().create_future())
        return pending[-1]

    site = Site({"/": Route(later)})
    async with site:
        idle, busy = await site.connect(), await site.connect()
        busy.send(post(path="/"))
        while not pending:
            await asyncio.sleep(0)
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


async def test_while_it_stops_new_connections_are_refused_at_once():
    pending = []

    def later(request):
        pending.append(asyncio.get_running_loop().create_future())
        return pending[-1]

    site = Site({"/": Route(later)})
    async with site:
        busy = await site.connect()
        busy.send(post(path="/"))
        while not pending:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(site.server.shutdown(grace=60))
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            await site.connect()
        assert time.monotonic() - started < 30
        pending[0].set_result(OK)
        await busy.answer()
        await stopping
        await busy.close()
