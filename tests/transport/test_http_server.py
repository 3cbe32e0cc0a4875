import asyncio
import gzip
import random
import threading

import pytest

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.transport import http_server
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.http_heads import HeadCache
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.http_server import INFLATE_OFF_LOOP
from otelwp_agent.transport.in_flight import InFlight
from tests.hostile.bodies import empty_blocks
from tests.kit.http_site import OK, Site, post


async def test_wrong_paths_and_methods_are_told_what_there_is():
    async with Site() as site:
        client = await site.connect()
        client.send(post(path="/v1/trace"))
        status, _, body = await client.answer()
        assert (status, body) == (404, b"nothing is served at this path; valid paths: /v1/traces\n")
        client.send(b"GET /v1/traces HTTP/1.1\r\n\r\n")
        status, headers, body = await client.answer()
        assert (status, headers["allow"], body) == (405, "POST", b"this path accepts POST, not GET\n")
        await client.close()
        assert site.refusals == ["not_found", "method"]


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        ("gzip", gzip.compress(b"fine", mtime=0), 200, None),
        ("br", b"whatever", 400, "unknown_encoding"),
        ("gzip", b"whatever", 400, "malformed"),
        ("gzip", gzip.compress(b"\0" * 1_000_001, mtime=0), 413, "too_large"),
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


async def test_head_requests_get_no_body_and_response_headers_are_added():
    async with Site({"/": Route(lambda _: OK, ("GET", "HEAD"))}, response_headers={"X-Served-By": "me"}) as site:
        client = await site.connect()
        client.send(b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 2" in head
        assert b"X-Served-By: me" in head
        assert (await client.answer())[2] == b"ok"
        await client.close()


async def test_forgotten_heads_are_parsed_anew():
    async with Site() as site:
        site.server.heads = HeadCache(3)
        site.server.plans = site.server.heads.plans
        client = await site.connect()
        for number in range(10):
            client.send(post(extra=f"X-Number: {number}\r\n"))
            await client.answer()
            assert len(site.server.plans) <= 3
        await client.close()
        assert [request.headers["x-number"] for request in site.requests] == [str(number) for number in range(10)]


class Account:
    def __init__(self):
        self.entered = []

    def add(self, error, user_agent=""):
        self.entered.append((error.reason, user_agent))
        return error.items


def full(request=None):
    error = Overloaded("no room", retry_after=2)
    error.items = 5
    raise error


@pytest.mark.parametrize("early", [False, True])
async def test_where_drops_are_meant_overload_is_answered_with_success(early):
    def render(head, items, message):
        return Response(200, f"{items} {message}".encode())

    how = {"admit": full} if early else {}
    handler = (lambda request: OK) if early else full
    account = Account()
    site = Site({"/plain": Route(handler, **how), "/said": Route(handler, render_dropped=render, **how)})
    site.server.drops = account
    async with site:
        client = await site.connect()
        client.send(post(path="/plain", extra="User-Agent: WordPress/6; http://a\r\n") + post(path="/said"))
        status, headers, body = await client.answer()
        assert (status, body, "retry-after" in headers) == (202, b"", False)
        assert (await client.answer())[::2] == (200, b"5 no room")
        client.send(b"POST /plain HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
        assert (await client.answer())[0] == 413, "only the lack of room is forgiven"
        await client.close()
    assert account.entered == [("overloaded", "WordPress/6; http://a"), ("overloaded", "")]
    assert site.refusals == ["too_large"]


async def test_an_overload_found_out_late_is_dropped_as_well():
    async def later():
        full()

    site = Site({"/": Route(lambda request: asyncio.ensure_future(later()))})
    site.server.drops = Account()
    async with site:
        client = await site.connect()
        client.send(post(path="/"))
        assert (await client.answer())[0] == 202
        site.server.drops = None
        client.send(post(path="/"))
        assert (await client.answer())[0] == 429
        await client.close()


async def test_where_drops_are_meant_nobody_is_told_to_come_back():
    site = Site(max_connections=1)
    site.server.drops = Account()
    async with site:
        clients = [await site.connect() for _ in range(2)]
        status, headers, _ = await clients[1].answer()
        assert (status, "retry-after" in headers) == (503, False)
        for client in clients:
            await client.close()


async def test_a_page_of_another_origin_cannot_send_where_the_route_says_so():
    taken = []

    def take(request):
        taken.append(request)
        return OK

    routes = {"/": Route(take, same_origin=True), "/any": Route(take)}
    async with Site(routes, cors={"allowed_origins": ["https://*.shop.example"]}) as site:
        client = await site.connect()
        for path, headers, status in (
            ("/", "", 200),
            ("/", "Origin: http://x\r\n", 200),  # its own: the kit's Host is x
            ("/", "Origin: https://a.shop.example\r\n", 200),
            ("/any", "Origin: https://evil.example\r\n", 200),
            ("/", "Origin: https://evil.example\r\n", 403),
            ("/", "Origin: https://evil.example\r\n", 403),  # from the remembered head
            ("/", "Origin: null\r\n", 403),
            ("/", "Sec-Fetch-Site: cross-site\r\n", 403),
        ):
            client.send(post(path=path, extra=headers))
            answer = await client.answer()
            assert answer[0] == status, (path, headers)
        assert b"cors.allowed_origins" in answer[2]
        assert len(taken) == 4
        assert site.refusals == ["origin"] * 4
        await client.close()


async def test_decompressed_bytes_count_until_the_handler_returns():
    budget, seen = InFlight(), []

    def look(request):
        seen.append(budget.used)
        if len(seen) == 2:
            raise ZeroDivisionError
        return OK

    async with Site({"/": Route(look)}, in_flight=budget) as site:
        client = await site.connect()
        for _ in range(2):
            client.send(post(gzip.compress(b"x" * 50_000, mtime=0), "/", "Content-Encoding: gzip\r\n"))
            await client.answer()
        assert seen == [50_000] * 2
        assert budget.used == 0
        await client.close()


SMALL = gzip.compress(b"fine", mtime=0)


LARGE = gzip.compress(random.Random(1).randbytes(INFLATE_OFF_LOOP + 1), 0, mtime=0)
"""Compressed bodies: one that is decompressed on the loop, and one that is not."""


@pytest.fixture
def inflaters(monkeypatch):
    """The threads in which bodies were decompressed."""
    threads = []

    def watched(*arguments):
        threads.append(threading.current_thread())
        return decompress(*arguments)

    monkeypatch.setattr(http_server, "decompress", watched)
    return threads


@pytest.mark.parametrize(
    ("encoding", "body", "beside"),
    [("gzip", SMALL, False), ("gzip", LARGE, True), ("gzip, gzip", gzip.compress(SMALL, mtime=0), True)],
    ids=["small", "large", "two codings"],
)
async def test_bodies_that_may_inflate_for_long_are_decompressed_beside_the_loop(inflaters, encoding, body, beside):
    handled = []

    def handle(request):
        handled.append((threading.current_thread(), request.body))
        return OK

    async with Site({"/": Route(handle)}) as site:
        client = await site.connect()
        client.send(post(body, "/", f"Content-Encoding: {encoding}\r\n"))
        assert (await client.answer())[0] == 200
        await client.close()
    this, (thread,) = threading.current_thread(), inflaters
    assert (thread is not this) == beside
    assert handled == [(this, gzip.decompress(LARGE) if body is LARGE else b"fine")]


async def test_large_bodies_are_answered_in_order_and_release_their_budget(inflaters):
    budget, seen = InFlight(), []

    def look(request):
        seen.append((len(request.body), budget.used >= len(request.body)))
        if len(seen) == 3:
            raise MalformedError("not what it claims to be")
        return Response(200, b"%d" % len(request.body))

    async with Site({"/": Route(look)}, in_flight=budget, max_request_body_size=300_000) as site:
        client = await site.connect()
        encoded = "Content-Encoding: gzip\r\n"
        bomb = gzip.compress(random.Random(2).randbytes(INFLATE_OFF_LOOP + 1) + bytes(100_000), mtime=0)
        client.send(
            post(LARGE, "/", encoded)
            + post(b"x", "/")
            + post(LARGE, "/", encoded)
            + post(bomb, "/", encoded)
            + post(LARGE[:-9], "/", encoded)
            + post(SMALL, "/", encoded)
        )
        answers = [(await client.answer())[::2] for _ in range(6)]
        assert [status for status, _ in answers] == [200, 200, 400, 413, 400, 200]
        assert [body for status, body in answers if status == 200] == [b"262145", b"1", b"4"]
        assert all(reserved for size, reserved in seen if size > 1)
        assert budget.used == 0
        await client.close()
        assert site.refusals == ["malformed", "too_large", "malformed"]
    this = threading.current_thread()
    assert [thread is this for thread in inflaters] == [False] * 4 + [True]


async def test_a_handler_that_breaks_on_a_large_body_answers_500():
    def broken(request):
        raise ZeroDivisionError

    budget = InFlight()
    async with Site({"/": Route(broken)}, in_flight=budget) as site:
        client = await site.connect()
        client.send(post(LARGE, "/", "Content-Encoding: gzip\r\n"))
        assert (await client.answer())[0] == 500
        assert (site.refusals, budget.used) == (["internal"], 0)
        await client.close()


async def test_a_shutdown_delivers_large_bodies_that_have_arrived(inflaters, monkeypatch):
    release, seen = threading.Event(), []
    watched = http_server.decompress

    def slow(*arguments):
        assert release.wait(60)
        return watched(*arguments)

    monkeypatch.setattr(http_server, "decompress", slow)
    budget = InFlight()
    site = Site(in_flight=budget)
    async with site:
        client = await site.connect()
        client.send(post(LARGE, extra="Content-Encoding: gzip\r\n"))
        while not site.server.sessions or not budget.used or site.server._inflating._threads == 0:
            await asyncio.sleep(0.001)
        stopping = asyncio.create_task(site.server.shutdown(grace=0.01))
        assert await client.closed(), "the time for an answer is up"
        assert not stopping.done()
        release.set()
        await stopping
        seen = [len(request.body) for request in site.requests]
        await client.close()
    assert (seen, budget.used) == ([INFLATE_OFF_LOOP + 1], 0)


async def test_a_large_compressed_body_does_not_block_the_loop(monkeypatch):
    """It is decompressed in a thread, which this test holds until another request has been answered."""
    proceed = threading.Event()

    def hold(*arguments):
        assert proceed.wait(60), "the other request was not answered meanwhile"
        return decompress(*arguments)

    monkeypatch.setattr(http_server, "decompress", hold)
    async with Site() as site:
        client, other = await site.connect(), await site.connect()
        client.send(post(empty_blocks(2 * INFLATE_OFF_LOOP), extra="Content-Encoding: deflate\r\n"))
        other.send(post())
        assert (await other.answer())[0] == 200
        proceed.set()
        assert (await client.answer())[0] == 200
        await client.close()
        await other.close()
