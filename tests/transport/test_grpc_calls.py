"""Calls of a gRPC server: the rules with a clock of the test's own, and the rules at work in a real server."""

import asyncio
import socket

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.config import blocks
from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.transport import grpc_calls
from otelwp_agent.transport.grpc_calls import Calls, address
from otelwp_agent.transport.grpc_runtime import aio, grpc
from otelwp_agent.transport.in_flight import InFlight
from tests.kit import http2
from tests.kit.grpc_peer import ECHO, call, failure, make

MIB = 2**20


class Peer:
    def __init__(self, peer):
        self._peer = peer

    def peer(self):
        return self._peer


class World:
    """Calls with a clock and a memory of the test's own."""

    def __init__(self, *, soft=100, hard=200, **settings):
        self.now, self.resident = 0.0, 50 * MIB
        self.refused = []
        self.budget = InFlight(soft * MIB, hard * MIB)
        self.calls = Calls(
            blocks.GrpcServer(**settings),
            self.budget,
            lambda call, error: self.refused.append((call, error)),
            resident=lambda: self.resident,
            clock=lambda: self.now,
        )

    def begin(self, count=1, peer="ipv4:127.0.0.1:1"):
        return [self.calls.begin(Peer(peer)) for _ in range(count)]

    def sweep(self, seconds=grpc_calls.LATE, *, grown=0):
        self.now += seconds
        self.resident += grown * MIB
        self.calls.sweep()


async def test_what_late_messages_hold_is_reserved_and_released():
    world = World()
    late = world.begin(4)
    world.sweep(grown=60)
    assert world.budget.used == 60 * MIB
    for each in late:
        world.calls.end(each)
    world.sweep()
    assert (world.budget.used, world.refused) == (0, [])


async def test_memory_that_others_reserve_is_not_counted_twice():
    world = World()
    world.begin(4)
    world.budget.reserve(30 * MIB)
    world.sweep(grown=60)
    assert world.budget.used == 60 * MIB
    world.sweep()
    assert world.budget.used == 60 * MIB


async def test_no_more_is_reserved_than_the_late_messages_can_have():
    world = World(max_recv_msg_size_mib=5)
    world.begin(2)
    world.sweep(grown=60)
    assert world.budget.used == 10 * MIB


async def test_above_the_hard_limit_the_oldest_late_calls_are_refused_and_no_new_ones_begin():
    world = World()
    first, second, third, fourth = world.begin(4)
    world.sweep(grown=60)
    world.calls._max_message = 100 * MIB
    world.sweep(grown=200)
    assert [each for each, _ in world.refused] == [first]
    assert isinstance(world.refused[0][1], Overloaded)
    assert world.refused[0][1].reason == "in_flight"
    with pytest.raises(Overloaded, match="too many bytes of requests are in flight"):
        world.begin()
    assert {second, third, fourth} == set(world.calls._arriving)


async def test_late_messages_keep_the_budget_above_the_soft_limit_for_a_moment_only():
    world = World(soft=50)
    world.begin(4)
    world.sweep(grown=70)
    assert world.refused == []
    world.sweep(grpc_calls.PATIENCE)
    assert len(world.refused) == 2, "half of 70 MiB, if four calls hold equal parts"


async def test_a_call_waits_above_the_soft_limit():
    world = World(soft=50)
    (waiting,) = world.begin()
    world.budget.reserve(60 * MIB)
    task = asyncio.create_task(world.calls.pause(waiting))
    await asyncio.sleep(0)
    world.sweep(0)
    await asyncio.sleep(0)
    assert not task.done()
    world.budget.release(60 * MIB)
    world.sweep(0)
    await task
    world.calls.stop()


async def test_a_message_that_does_not_arrive_in_time_is_refused():
    world = World(read_timeout="5s")
    (early,) = world.begin()
    world.sweep(3)
    world.begin()
    world.sweep(2)
    ((refused, error),) = world.refused
    assert (refused, error.reason, type(error)) == (early, "timeout", RetryableError)
    world.calls.stop()


async def test_without_a_read_timeout_it_may_take_forever():
    world = World(read_timeout="0s")
    world.begin()
    world.sweep(1e9)
    assert world.refused == []


async def test_an_address_has_so_many_calls_at_once_over_all_its_connections():
    world = World(max_concurrent_streams_per_peer=2)
    world.begin(1, "ipv4:192.0.2.1:1000")
    (second,) = world.begin(1, "ipv4:192.0.2.1:2000")
    world.begin(1, "ipv4:192.0.2.2:1000")
    with pytest.raises(Overloaded, match=r"2 calls from 192\.0\.2\.1 are in progress; max_concurrent_streams_per_peer"):
        world.begin(1, "ipv4:192.0.2.1:3000")
    world.calls.end(second)
    world.begin(1, "ipv4:192.0.2.1:3000")


async def test_a_unix_socket_has_no_peers():
    world = World(max_concurrent_streams_per_peer=1, endpoint="unix:///run/x.sock")
    world.begin(3, "unix:")
    assert world.calls.per_peer == {}


async def test_an_ended_address_is_forgotten():
    world = World(max_concurrent_streams_per_peer=2)
    for each in world.begin(2):
        world.calls.end(each)
    assert world.calls.per_peer == {}
    world.calls.stop()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.1:55000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:55000", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::ffff:1%5D:1", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:1", "192.0.2.1"),
        ("unix:", "unix:"),
    ],
)
def test_the_address_of_a_peer(peer, expected):
    assert address(peer) == expected


# A real server


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
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.shutdown(grace=1)
        assert server.in_flight.used == 0


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
        await asyncio.to_thread(http2.drive, [connection], 0.5)
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
        await asyncio.to_thread(http2.drive, connections, 1.5)
        assert any(1 in each.statuses for each in connections), "how many depends on the free memory of this process"
        assert set(server.reasons) == {"in_flight"}
        assert await call(server.port) == b"hello"
    finally:
        for each in connections:
            each.close()


async def test_a_call_that_its_sender_gives_up_is_forgotten(served):
    server = await served()
    connection = http2.Connection(server.port, ECHO, size=10, claim=20)
    await asyncio.to_thread(http2.drive, [connection], 0.05)
    calls = server._listener.calls
    assert len(calls._arriving) == 1
    connection.close()
    async with asyncio.timeout(5):
        while calls._arriving:
            await asyncio.sleep(0.005)
    assert server.reasons == []


async def test_connections_beyond_the_limit_are_closed(served):
    server = await served(max_connections=2)
    channels = [aio.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) for _ in "ab"]
    for channel in channels:
        await channel.unary_unary(ECHO)(b"", timeout=5)
    with socket.create_connection(("127.0.0.1", server.port)) as third:
        third.settimeout(5)
        assert await asyncio.to_thread(third.recv, 100) == b""
    for channel in channels:
        await channel.close()
