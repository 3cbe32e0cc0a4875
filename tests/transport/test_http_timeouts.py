import asyncio
import math

import pytest

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.transport.http_messages import Route
from otelwp_agent.transport.http_timeouts import ConnectionTimeouts
from tests.kit.http_site import OK, Site, post


def timeouts(**settings):
    made = ConnectionTimeouts(blocks.HttpServer(endpoint=Endpoint("127.0.0.1:0"), **settings))
    return made.header, made.body, made.write, made.idle


def test_without_a_maximum_connections_have_no_age():
    assert ConnectionTimeouts(blocks.HttpServer()).age() == math.inf


def test_each_state_has_its_own_timeout_and_zero_is_no_limit():
    own = {"read_header_timeout": "1s", "read_timeout": "2s", "write_timeout": "3s", "idle_timeout": "4s"}
    assert timeouts(**own) == (1, 2, 3, 4)
    assert timeouts(**dict.fromkeys(own, "0s")) == (math.inf,) * 4


def test_the_read_timeout_limits_heads_and_idle_connections_without_a_timeout_of_their_own():
    settings = {"read_header_timeout": "0s", "read_timeout": "2s", "idle_timeout": "0s"}
    assert timeouts(**settings)[::3] == (2, 2)


def test_ages_vary_by_a_tenth():
    timeouts = ConnectionTimeouts(blocks.HttpServer.model_validate({"max_connection_age": "100s"}))
    ages = [timeouts.age() for _ in range(500)]
    assert 90 <= min(ages) < 92
    assert 108 < max(ages) <= 110


@pytest.fixture
def fast(monkeypatch):
    """Let servers check their connections all the time."""
    monkeypatch.setattr("otelwp_agent.transport.http_server.SWEEP", 0.01)


async def until_old(site):
    async with asyncio.timeout(60):
        while not all(session.old for session in site.server.sessions):
            await asyncio.sleep(0.01)  # connections grow old by the clock


async def test_the_next_request_of_an_old_connection_is_answered_with_close(fast):
    async with Site(max_connection_age="50ms") as site:
        client = await site.connect()
        client.send(post())
        status, headers, _ = await client.answer()
        assert (status, headers.get("connection")) == (200, None)
        await until_old(site)
        client.send(post())
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed()
        await client.close()
        assert len(site.requests) == 2
        assert site.refusals == []


async def test_an_old_connection_without_a_request_is_closed_after_the_grace(fast):
    async with Site(max_connection_age="50ms", max_connection_age_grace="50ms") as site:
        client = await site.connect()
        assert await client.closed()
        await client.close()
        assert site.refusals == []


async def test_a_request_in_progress_is_answered_before_an_old_connection_is_closed(fast):
    pending = asyncio.get_running_loop().create_future()
    async with Site(
        {"/v1/traces": Route(lambda _: pending)}, max_connection_age="50ms", max_connection_age_grace=0
    ) as site:
        client = await site.connect()
        client.send(post())
        (session,) = site.server.sessions
        async with asyncio.timeout(60):
            while not (session.old and session.old_at == math.inf):
                await asyncio.sleep(0.01)  # the grace passes by the clock
        pending.set_result(OK)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed()
        await client.close()


async def test_connections_stay_open_without_an_age(fast):
    async with Site() as site:
        client = await site.connect()
        for _ in range(20):
            client.send(post())
            assert (await client.answer())[1].get("connection") is None
            await asyncio.sleep(0.01)  # the server checks its connections
        await client.close()
