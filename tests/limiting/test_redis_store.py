import asyncio
import contextlib
import math
import sys
import time

import pytest
import structlog

from otelwp_agent.errors import StartError
from otelwp_agent.limiting.gcra import Rate
from otelwp_agent.limiting.leases import SharedRates
from otelwp_agent.limiting.redis_store import RedisStore
from tests.kit.redis_server import RedisServer, encode

pytest.importorskip("redis")


class Replica:
    """Shared rates with a store; `errors` are the reasons of failed calls."""

    def __init__(self, url, timeout=60.0):
        self.errors = []
        self.store = RedisStore(
            url, "test", timeout, clock=time.monotonic, log=structlog.get_logger(), on_error=self.errors.append
        )
        self.rates = SharedRates("limit", 2, self.store.wake)
        self.store.rates = [self.rates]

    def take(self, rate, key="tenant"):
        return self.rates.take(key, rate, time.monotonic())

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)  # the store works in the background


@contextlib.asynccontextmanager
async def running(url, **options):
    replica = Replica(url, **options)
    replica.store.start()
    try:
        yield replica
    finally:
        await replica.store.stop()


SLOW = Rate(1 / 3600, 100)


async def spend(replicas, count, until):
    """Ask each replica for `count` units until so many were accepted, and five times more; return how many were."""
    accepted = more = 0
    async with asyncio.timeout(60):
        while accepted < until or more < 5:
            more += accepted >= until
            accepted += sum(not replica.take(SLOW) for replica in replicas for _ in range(count))
            await asyncio.sleep(0.03)  # the next lease arrives
    return accepted


async def test_units_are_leased_in_the_background():
    async with RedisServer(time.time) as server, running(server.url) as replica:
        await replica.until(lambda: replica.store.connected)
        assert await spend([replica], 30, until=100) == 100
        assert replica.errors == []


async def test_two_replicas_share_one_limit_and_return_what_they_do_not_use():
    async with RedisServer(time.time) as server:
        async with running(server.url) as first, running(server.url) as second:
            await first.until(lambda: first.store.connected and second.store.connected)
            assert await spend([first, second], 10, until=80) == pytest.approx(100, rel=0.2)
            assert not first.take(SLOW, "other")
            await first.until(lambda: first.rates._leases["other"].tokens)
        (due,) = (due for key, due in server.store.due.items() if key.endswith(":other"))
        assert due - time.time() == pytest.approx(3600, abs=10)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (lambda _: None, "timeout"),
        (lambda _: b"*1\r\n$1\r\n0\r\n", "answer"),
        (lambda _: b"*0\r\n", "answer"),
        (lambda _: encode([math.nan, 0.0, 0.0]), "answer"),
        (lambda _: b"_\r\n", "answer"),
        (lambda _: encode([1.0, -1.0, 0.0]), "answer"),
        (lambda _: encode([1.0, 1e9, 0.0]), "answer"),
        (lambda _: encode([1.0, math.nan, 0.0]), "answer"),
        (lambda _: encode([1.0, 0.0, math.inf]), "answer"),
        (lambda _: b"*3\r\n$1\r\n1\r\n$4\r\nmany\r\n$1\r\n0\r\n", "answer"),
        (lambda _: b"*3\r\n:1\r\n:1\r\n*0\r\n", "answer"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "answer"),
        (lambda _: b"-OOM command not allowed\r\n", "server"),
    ],
)
async def test_a_slow_or_wrong_answer_leaves_the_share_of_the_replica(behaviour, reason):
    timeout = 0.1 if reason == "timeout" else 60.0
    async with RedisServer(time.time) as server, running(server.url, timeout=timeout) as replica:
        await replica.until(lambda: replica.store.connected)
        server.behaviour = behaviour
        began = time.perf_counter()
        accepted = sum(not replica.take(SLOW) for _ in range(500))
        assert time.perf_counter() - began < 30  # bounded, far above what 500 decisions take
        await replica.until(lambda: replica.errors)
        accepted += sum(not replica.take(SLOW) for _ in range(500))
        assert accepted == 50
        assert replica.errors[0] == reason
        assert not replica.store.connected
        assert replica.store.failure.startswith(reason)
        server.behaviour = encode
        await replica.until(lambda: replica.store.connected)
        assert replica.store.failure == ""


async def test_a_server_that_is_restarted_is_found_again():
    server = RedisServer(time.time)
    await server.start(0)
    async with running(server.url) as replica:
        await replica.until(lambda: replica.store.connected)
        await server.stop()
        replica.take(SLOW)
        await replica.until(lambda: not replica.store.connected)
        assert replica.errors[0] == "connection"
        await server.start(server.port)
        await replica.until(lambda: replica.store.connected)
        await server.stop()


async def test_without_a_server_the_share_applies_from_the_start():
    async with running("redis://127.0.0.1:1/0") as replica:
        accepted = sum(not replica.take(SLOW) for _ in range(500))
        await replica.until(lambda: replica.errors)
        assert accepted == 50
        assert set(replica.errors) == {"connection"}


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:port", "127.0.0.1:6379"])
async def test_an_invalid_url_is_an_error_at_the_start(url):
    with pytest.raises(StartError, match=r"redis\.url"):
        Replica(url).store.start()


async def test_a_missing_client_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StartError, match=r"pip install otelwp-agent\[redis\]"):
        Replica("redis://127.0.0.1").store.start()


async def test_a_store_that_was_not_started_can_be_stopped():
    await Replica("redis://127.0.0.1").store.stop()


async def test_the_store_stops_at_every_point_of_a_call():
    async with RedisServer(time.time) as server:
        for steps in range(120):
            replica = Replica(server.url)
            replica.store.start()
            for _ in range(steps):
                await asyncio.sleep(0)  # one step of the call
            async with asyncio.timeout(60):
                await replica.store.stop()


def charged(server):
    """Return the units that the model of the server has charged for the only key, at a rate that is nearly zero."""
    (due,) = server.store.due.values()
    return (due - server.store.clock()) / SLOW.interval


async def test_a_call_that_was_given_up_has_no_effect_when_a_hung_server_executes_it():
    async with RedisServer(time.time) as server, running(server.url, timeout=1.0) as replica:
        await replica.until(lambda: replica.store.connected)
        assert not replica.take(SLOW)
        await replica.until(lambda: server.store.due)
        server.running.clear()
        accepted = 1 + sum(not replica.take(SLOW) for _ in range(5))
        await replica.until(lambda: replica.errors)
        calls = server.calls
        server.running.set()
        await replica.until(lambda: replica.store.connected and replica.rates._leases["tenant"].spent == 0)
        assert server.calls > calls + 1, "the call that was given up was not executed"
        assert charged(server) == pytest.approx(accepted + replica.rates._leases["tenant"].tokens, abs=0.1)
        assert set(replica.errors) == {"timeout"}


@pytest.mark.parametrize("jump", [1e6, -1e6])
async def test_a_clock_of_the_server_that_is_set_is_no_failure(jump):
    offset = 0.0
    async with RedisServer(lambda: time.time() + offset) as server, running(server.url) as replica:
        await replica.until(lambda: replica.store.connected)
        offset = jump
        assert await spend([replica], 30, until=100) == 100
        assert replica.errors == []
