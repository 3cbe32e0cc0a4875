import asyncio
from itertools import pairwise

from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_flow import MAX_BACKLOG, REQUESTS_PER_TURN
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.in_flight import InFlight
from tests.kit.http_site import OK, Site, post

GET = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"


class Pages:
    """A route that answers with `size` bytes, and counts."""

    def __init__(self, size):
        self.rendered = 0
        self._page = Response(200, b"x" * size)
        self.routes = {"/page": Route(self.render, ("GET",))}

    def render(self, request):
        self.rendered += 1
        return self._page


async def until_idle(pages):
    """Wait until no page is rendered any more."""
    seen = -1
    while seen != pages.rendered:
        seen = pages.rendered
        await asyncio.sleep(0.05)  # the next page would be rendered by now


async def test_pipelined_requests_stop_while_the_client_does_not_read_and_go_on_when_it_does():
    pages, budget = Pages(100_000), InFlight()
    async with Site(pages.routes, in_flight=budget) as site:
        client = await site.connect()
        client.reader._limit = 1000  # the client's own stream stops reading early, too
        client.send(GET * 6000)
        await until_idle(pages)
        assert 0 < pages.rendered < 300
        assert 0 < budget.used <= MAX_BACKLOG + http_server.READ_BUFFER
        seen = 0
        while seen < 6000:
            await client.reader.readuntil(b"\r\n\r\n")
            await client.reader.readexactly(100_000)
            seen += 1
        assert pages.rendered == 6000
        assert budget.used == 0
        await client.close()


async def test_one_connection_does_not_hold_the_loop():
    pages, other = Pages(10), []
    async with Site({**pages.routes, "/other": Route(lambda _: other.append(pages.rendered) or OK)}) as site:
        many, one = await site.connect(), await site.connect()
        many.send(GET * 6000)
        one.send(post(path="/other"))
        await one.answer()
        assert other[0] < 6000
        for _ in range(6000):
            await many.answer()
        await many.close()
        await one.close()


async def test_a_turn_has_a_bounded_number_of_requests():
    pages = Pages(10)
    async with Site(pages.routes) as site:
        client = await site.connect()
        client.send(GET * (REQUESTS_PER_TURN * 3))
        seen = [0]
        while pages.rendered < REQUESTS_PER_TURN * 3:
            await asyncio.sleep(0)
            seen.append(pages.rendered)
        assert max(after - before for before, after in pairwise(seen)) <= REQUESTS_PER_TURN
        await client.close()


async def test_a_client_that_closes_its_side_gets_all_answers_and_the_connection_ends():
    pages = Pages(10)
    async with Site(pages.routes) as site:
        client = await site.connect()
        client.send(GET * 100)
        client.writer.write_eof()
        for _ in range(100):
            assert (await client.answer())[0] == 200
        assert await client.closed()
        await client.close()


async def test_a_client_that_never_reads_is_disconnected_after_the_write_timeout(monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)
    pages, budget = Pages(1_000_000), InFlight()
    async with Site(pages.routes, in_flight=budget, write_timeout="200ms") as site:
        client = await site.connect()
        client.reader._limit = 1000
        client.send(GET * 100)
        async with asyncio.timeout(60):
            while not site.server.sessions:
                await asyncio.sleep(0.01)
            while site.server.sessions:
                await asyncio.sleep(0.01)
        assert pages.rendered < 100
        assert budget.used == 0
        client.reset()


async def test_blank_lines_do_not_renew_a_deadline(monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)
    async with Site(read_header_timeout="300ms", idle_timeout="300ms") as site:
        client = await site.connect()
        async with asyncio.timeout(60):
            while not client.reader.at_eof():
                client.send(b"\r\n")
                await asyncio.sleep(0.01)  # the bytes arrive in separate reads
                if site.server.sessions:
                    continue
                break
        client.reset()


async def test_an_answer_that_is_awaited_stops_reading():
    pending = []

    def later(request):
        pending.append(asyncio.get_running_loop().create_future())
        return pending[-1]

    budget = InFlight()
    async with Site({"/": Route(later)}, in_flight=budget) as site:
        client = await site.connect()
        client.send(post(path="/"))
        while not pending:
            await asyncio.sleep(0)
        body = b"x" * 10_000_000
        client.send(post(body, path="/"))
        previous = -1
        while previous != budget.used:
            previous = budget.used
            await asyncio.sleep(0.05)  # the next read would have happened by now
        assert MAX_BACKLOG < budget.used <= MAX_BACKLOG + http_server.READ_BUFFER
        pending[0].set_result(OK)
        assert (await client.answer())[0] == 200
        while len(pending) < 2:
            await asyncio.sleep(0.01)
        pending[1].set_result(OK)
        assert (await client.answer())[0] == 200
        await client.close()
        assert budget.used == 0
