"""Messages of calls: their limits in memory and time, on a real server."""

import asyncio
import socket

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.transport.grpc_runtime import aio, grpc
from otelwp_agent.transport.http_arrivals import Arrivals
from otelwp_agent.transport.in_flight import InFlight
from tests.kit import http2
from tests.kit.grpc_peer import ECHO, call, failure, make

MIB = 2**20


def retry_delay(error):
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    return info.retry_delay.seconds


@pytest.fixture
async def served():
    """Start a server with settings; it is stopped at the end."""
    servers = []

    async def start(handler=lambda message, _: message, *, budget=None, **settings):
        server = make(handler, **settings)
        server.reasons = []
        server.on_refused = server.reasons.append
        if budget is not None:
            server.in_flight = budget
            server.arrivals = Arrivals.of(budget)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.shutdown(grace=1)
        async with asyncio.timeout(60):
            while server.in_flight.used:
                await asyncio.sleep(0.005)  # until the transports report the closed connections


async def test_a_message_counts_until_its_handler_has_returned(served):
    budget, seen, outcome = InFlight(), [], asyncio.get_running_loop().create_future()
    server = await served(lambda *_: seen.append(budget.used) or outcome, budget=budget)
    pending = asyncio.ensure_future(call(server.port, bytes(1000)))
    while not seen:
        await asyncio.sleep(0.001)
    assert seen == [1000]
    outcome.set_result(b"")
    await pending
    assert budget.used == 0


async def test_above_the_hard_limit_a_call_is_refused_before_its_message_is_read(served):
    budget, seen = InFlight(soft=10, hard=20), []
    server = await served(lambda *_: seen.append(1) or b"", budget=budget)
    budget.reserve(21)
    error = await failure(server.port, bytes(10))
    assert (error.code(), retry_delay(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
    assert (seen, server.reasons) == ([], ["in_flight"])
    budget.release(21)
    assert await call(server.port) == b""


async def test_more_calls_of_one_address_than_allowed_are_refused(served):
    outcome = asyncio.get_running_loop().create_future()
    began = asyncio.Event()
    server = await served(lambda *_: began.set() or outcome, max_concurrent_streams_per_peer=1)
    pending = asyncio.ensure_future(call(server.port))
    await began.wait()
    error = await failure(server.port)
    assert (error.code(), retry_delay(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
    assert server.reasons == ["streams_per_peer"]
    outcome.set_result(b"")
    await pending


async def test_an_unfinished_message_is_refused_and_the_server_goes_on(served):
    server = await served(read_timeout="100ms")
    connection = http2.Connection(server.port, ECHO, size=1000, claim=2000)
    try:
        await asyncio.to_thread(http2.drive, [connection], 60, lambda: 1 in connection.statuses)
        kind, payload = connection.statuses[1]
        assert (kind, b"did not arrive within read_timeout" in payload) == (http2.HEADERS, True)
        assert server.reasons == ["timeout"]
        assert await call(server.port) == b"hello"
    finally:
        connection.close()


async def test_unfinished_messages_do_not_pass_the_hard_limit(served):
    budget = InFlight(soft=20 * MIB, hard=40 * MIB)
    server = await served(budget=budget)
    connections = [http2.Connection(server.port, ECHO, size=9 * MIB, claim=10 * MIB) for _ in range(12)]
    try:
        used = []

        def refused():
            used.append(budget.used)
            return any(1 in each.statuses for each in connections)

        await asyncio.to_thread(http2.drive, connections, 60, refused)
        assert refused()
        assert max(used) <= budget.hard
        assert set(server.reasons) == {"in_flight"}
        assert await call(server.port) == b"hello"
    finally:
        for each in connections:
            each.close()


async def test_a_call_that_its_sender_gives_up_is_forgotten(served):
    server = await served()
    connection = http2.Connection(server.port, ECHO, size=10, claim=20)
    await asyncio.to_thread(http2.drive, [connection], 60, lambda: server.in_flight.used == 15)
    assert server.in_flight.used == 15
    connection.close()
    async with asyncio.timeout(60):
        while server.in_flight.used or server.sessions:
            await asyncio.sleep(0.005)
    assert server.reasons == []


async def test_connections_beyond_the_limit_are_closed(served):
    server = await served(max_connections=2)
    channels = [aio.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) for _ in "ab"]
    for channel in channels:
        await channel.unary_unary(ECHO)(b"", timeout=60)
    with socket.create_connection(("127.0.0.1", server.port)) as third:
        third.settimeout(60)
        assert await asyncio.to_thread(third.recv, 100) == b""
    for channel in channels:
        await channel.close()
