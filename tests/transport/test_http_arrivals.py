import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.transport import http_arrivals
from otelwp_agent.transport.http_arrivals import Arrivals
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.in_flight import InFlight
from tests.kit.http_site import Site, post


class Sender:
    """A connection on which a body of `missing` bytes arrives."""

    def __init__(self, arrivals, missing):
        self.arrivals, self.missing = arrivals, missing
        self.reading, self.refused, self.open = True, False, True

    def receive(self, size):
        self.missing -= size
        self.arrivals.add(self, self, size)

    def pause_body(self):
        self.reading = False

    def resume_body(self):
        self.reading = True

    def refuse_body(self):
        self.refused = True
        self.arrivals.end(self)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(http_arrivals.time, "monotonic", lambda: now[0])
    return now


async def test_above_the_soft_limit_the_nearest_to_completion_go_on():
    arrivals = Arrivals(InFlight(100, 200))
    far, near = Sender(arrivals, 500), Sender(arrivals, 60)
    near.receive(20)
    far.receive(70)
    assert (far.reading, near.reading) == (True, True)
    far.receive(20)
    assert (far.reading, near.reading) == (False, True)
    near.receive(40)
    arrivals.end(near)
    arrivals.balance()
    assert (far.reading, arrivals.in_flight.used) == (True, 90)


async def test_of_equals_the_oldest_goes_on(clock):
    arrivals = Arrivals(InFlight(10, 100))
    senders = [Sender(arrivals, 80) for _ in range(3)]
    for sender in senders:
        clock[0] += 0.1
        sender.receive(20)
    arrivals.balance()
    assert [sender.reading for sender in senders] == [False, False, False]
    arrivals.end(senders[2])
    arrivals.balance()
    assert [sender.reading for sender in senders[:2]] == [True, False]


async def test_above_the_hard_limit_the_largest_and_slowest_is_refused_at_once(clock):
    arrivals = Arrivals(InFlight(100, 200))
    slow, large, small = (Sender(arrivals, 1000) for _ in range(3))
    slow.receive(80)
    clock[0] += 10
    small.receive(10)
    large.receive(120)
    assert [sender.refused for sender in (slow, large, small)] == [True, False, False]
    assert arrivals.in_flight.used == 130


async def test_where_none_ends_the_heaviest_is_refused_so_that_others_go_on(clock):
    arrivals = Arrivals(InFlight(100, 200))
    stuck, waiting = Sender(arrivals, 1000), Sender(arrivals, 300)
    stuck.receive(90)
    waiting.receive(20)
    assert not stuck.reading
    assert not waiting.reading
    clock[0] += http_arrivals.PATIENCE / 2
    arrivals.balance()
    assert not stuck.refused
    clock[0] += http_arrivals.PATIENCE / 2
    arrivals.balance()
    assert stuck.refused
    arrivals.balance()
    assert waiting.reading
    assert not waiting.refused


async def test_where_bytes_arrive_none_is_refused(clock):
    mib = 2**20
    arrivals = Arrivals(InFlight(10 * mib, 20 * mib))
    large, waiting = Sender(arrivals, 18 * mib), Sender(arrivals, 18 * mib)
    waiting.receive(mib)
    large.receive(10 * mib)
    for _ in range(5):
        assert (large.reading, waiting.reading) == (True, False)
        large.receive(mib)
        clock[0] += http_arrivals.PATIENCE
        arrivals.balance()
    assert not large.refused
    clock[0] += http_arrivals.PATIENCE
    arrivals.balance()
    assert large.refused


async def test_servers_with_one_budget_share_their_arrivals():
    budget = InFlight()
    first, second = Arrivals.of(budget), Arrivals.of(budget)
    assert first is second
    assert Arrivals.of(InFlight()) is not first


STEPS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 60), st.booleans()), max_size=60)


@settings(deadline=None)
@given(STEPS)
def test_every_byte_is_released_once_and_never_more_than_the_hard_limit_is_kept(steps):
    async def scenario():
        arrivals = Arrivals(InFlight(100, 200))
        senders = [Sender(arrivals, 150) for _ in range(8)]
        for number, size, ends in steps:
            sender = senders[number]
            if sender.refused or not sender.open:
                continue
            if ends:
                sender.open = False
                arrivals.end(sender)
            elif sender.missing > size:
                sender.receive(size)
            assert arrivals.in_flight.used <= 200
        for sender in senders:
            arrivals.end(sender)
            arrivals.end(sender)
        assert arrivals.in_flight.used == 0
        arrivals.balance()

    asyncio.run(scenario())


async def test_requests_above_the_hard_limit_are_answered_503_and_nothing_stays_reserved():
    budget = InFlight(10_000, 20_000)
    async with Site(in_flight=budget) as site:
        clients = [await site.connect() for _ in range(2)]
        for client in clients:
            client.send(post(b"x" * 100_000)[:-50_000])
        status, headers, _ = await clients[0].answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "2", "close")
        for client in clients:
            await client.close()
        async with asyncio.timeout(60):
            while site.server.sessions:
                await asyncio.sleep(0)
        assert set(site.refusals) == {"in_flight"}
        assert budget.used == 0


async def test_bodies_that_wait_are_served_when_memory_is_free():
    budget = InFlight(30_000, 150_000)
    async with Site(in_flight=budget) as site:
        clients = [await site.connect() for _ in range(20)]
        for client in clients:
            client.send(post(b"x" * 20_000)[:-15_000])
        while budget.used <= budget.soft:
            await asyncio.sleep(0)
        for client in clients:
            client.send(b"x" * 15_000)
        assert [(await client.answer())[0] for client in clients] == [200] * 20
        for client in clients:
            await client.close()
        assert (site.refusals, budget.used) == ([], 0)


async def test_kept_pipelined_requests_count():
    budget, answers = InFlight(), []

    def later(request):
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    async with Site({"/": Route(later)}, in_flight=budget) as site:
        client = await site.connect()
        client.send(post(path="/") + post(b"x" * 1000, path="/"))
        while not answers:
            await asyncio.sleep(0)
        assert budget.used == len(post(b"x" * 1000, path="/"))
        answers[0].set_result(Response(200))
        await client.answer()
        assert budget.used == 0
        client.send(post(b"y" * 1000, path="/"))
        while not budget.used:
            await asyncio.sleep(0)
        client.reset()
        async with asyncio.timeout(60):
            while budget.used:
                await asyncio.sleep(0)
        answers[1].set_result(Response(200))


async def test_a_connection_is_read_again_once_its_body_has_ended():
    budget = InFlight(100, 80_000)
    async with Site(in_flight=budget, max_request_body_size=100_000) as site:
        client = await site.connect()
        head = b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            client.send(head + b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n")
            assert (await client.answer())[0] == 200
        client.send(post())
        assert (await client.answer())[0] == 200
        await client.close()
        assert [len(request.body) for request in site.requests] == [9000, 9000, 5]
        assert budget.used == 0
