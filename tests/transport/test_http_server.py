import asyncio
import gzip
import time

import pytest

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_heads import HeadCache
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.in_flight import InFlight
from tests.kit.http_site import OK, Site, post


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
        stopping = asyncio.create_task(site.server.shutdown(grace=5))
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            await site.connect()
        assert time.monotonic() - started < 0.5
        pending[0].set_result(OK)
        await busy.answer()
        await stopping
        await busy.close()


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
