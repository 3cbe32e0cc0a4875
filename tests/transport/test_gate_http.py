"""Authentication and limits of an HTTP server, which its gate decides."""

import asyncio

import pytest
import structlog

from otelwp_agent.config import blocks
from otelwp_agent.errors import (
    Overloaded,
    RetryableError,
    StartError,
    UnauthenticatedError,
)
from otelwp_agent.transport import http_session
from otelwp_agent.transport.http_heads import REFUSED_HEADS
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.http_server import MAX_RENDERED, HttpServer
from tests.kit.gates import Keys, Limiter, gate, shop
from tests.kit.http_site import OK, Site, post

KEY = "X-API-Key: right\r\n"


async def answers(site, *messages):
    client = await site.connect()
    got = []
    for message in messages:
        client.send(message)
        got.append(await client.answer())
    await client.close()
    return got


async def test_the_right_key_is_accepted_and_the_handler_sees_the_client_but_no_secret():
    client = shop()
    keys = Keys(right=client)
    async with Site(gate=gate(keys)) as site:
        got = await answers(site, *[post(b"body", extra=KEY)] * 3)
        assert [status for status, _, _ in got] == [200, 200, 200]
        assert len(keys.asked) == 1
        for request in site.requests:
            assert request.head.client is client
            assert "x-api-key" not in request.headers
            assert request.head.origin("otlp").tenant == "shop"
        assert site.requests[0].head is site.requests[2].head, "a memo of the handler stays"


async def test_a_wrong_key_is_refused_with_401_and_the_connection_stays():
    async with Site(gate=gate(Keys(right=shop()))) as site:
        (status, headers, body), (again, _, _), (last, _, _) = await answers(
            site, post(b"body"), post(b"body", extra="X-API-Key: wrong\r\n"), post(b"body", extra=KEY)
        )
        assert (status, again, last) == (401, 401, 200)
        assert headers["www-authenticate"] == 'ApiKey header="X-API-Key"', "the last of two"
        assert body == b"a valid credential is needed\n"
        assert site.refusals == ["unauthenticated"] * 2
        assert len(site.requests) == 1


async def test_a_client_that_expects_to_be_told_is_refused_before_it_sends_the_body():
    async with Site(gate=gate(Keys(right=shop()))) as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer())[0] == 401
        assert await client.closed()
        await client.close()
        client = await site.connect()
        head = f"POST /v1/traces HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n{KEY}\r\n"
        client.send(head.encode())
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        assert (await client.answer())[0] == 200
        await client.close()


async def test_the_body_of_a_refused_request_is_not_kept():
    async with Site(gate=gate(Keys())) as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
        await asyncio.sleep(0.05)  # the server must read the first half before the second is sent
        assert site.server.arrivals.in_flight.used == 0
        client.send(b"x" * 50_000)
        assert (await client.answer())[0] == 401
        await client.close()


async def test_repeated_heads_with_a_wrong_key_are_parsed_once_and_asked_again_each_time(monkeypatch):
    parsed, parse = [], http_session.parse_head
    monkeypatch.setattr(http_session, "parse_head", lambda raw: parsed.append(raw) or parse(raw))
    keys = Keys()
    async with Site(gate=gate(keys)) as site:
        client = await site.connect()
        client.send(post(b"b", extra=KEY) * 5)
        found = [await client.answer() for _ in range(5)]
        assert [status for status, _, _ in found] == [401] * 5
        assert (len(parsed), len(keys.asked)) == (1, 5)
        keys.clients["right"] = shop()
        client.send(post(b"b", extra=KEY))
        assert (await client.answer())[0] == 200
        assert (len(parsed), site.refusals) == (1, ["unauthenticated"] * 5)
        await client.close()


async def test_a_flood_of_wrong_keys_does_not_make_the_server_forget_the_heads_of_others():
    async with Site(gate=gate(Keys(right=shop()))) as site:
        client = await site.connect()
        client.send(post(b"b", extra=KEY))
        assert (await client.answer())[0] == 200
        (good,) = site.server.plans
        for number in range(3 * REFUSED_HEADS):
            client.send(post(b"b", extra=f"X-API-Key: {number}\r\n"))
            assert (await client.answer())[0] == 401
        assert good in site.server.plans
        assert len(site.server.plans) == 1 + REFUSED_HEADS
        await client.close()


async def test_the_responses_to_wrong_credentials_are_rendered_once_for_each_media_type():
    rendered = []

    def render(head, status, error):
        rendered.append(head.media_type)
        return Response(status, head.media_type.encode())

    routes = {"/v1/traces": Route(lambda _: OK, render_error=render)}
    async with Site(routes, gate=gate(Keys())) as site:
        client = await site.connect()
        for number in range(3 * MAX_RENDERED):
            for _ in range(2):
                client.send(post(b"b", extra=f"Content-Type: text/{number}\r\n"))
                assert (await client.answer())[::2] == (401, b"text/%d" % number)
        await client.close()
        assert rendered == [f"text/{number}" for number in range(3 * MAX_RENDERED)]
        (known,) = site.server._unauthenticated.values()
        assert len(known) <= MAX_RENDERED


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_revoked_key_is_refused_at_the_next_request_of_the_same_head(chunked):
    keys = Keys(right=shop())
    extra = KEY + ("Transfer-Encoding: chunked\r\n" if chunked else "")
    message = (
        f"POST /v1/traces HTTP/1.1\r\n{extra}\r\n4\r\nbody\r\n0\r\n\r\n".encode() if chunked else post(b"b", extra=KEY)
    )
    async with Site(gate=gate(keys)) as site:
        client = await site.connect()
        client.send(message)
        assert (await client.answer())[0] == 200
        del keys.clients["right"]
        keys.version += 1
        client.send(message)
        assert (await client.answer())[0] == 401
        keys.clients["right"] = shop(tenant="other")
        keys.version += 1
        client.send(message)
        assert (await client.answer())[0] == 200
        await client.close()
        assert [request.head.origin("").tenant for request in site.requests] == ["shop", "other"]


async def test_a_client_that_expires_is_refused_although_its_head_is_cached():
    now = [0.0]
    keys = Keys(right=shop(expires_at=60.0))
    async with Site(gate=gate(keys, now=lambda: now[0])) as site:
        client = await site.connect()
        client.send(post(b"b", extra=KEY))
        assert (await client.answer())[0] == 200
        now[0], keys.error = 60.0, UnauthenticatedError("Bearer")
        client.send(post(b"b", extra=KEY))
        assert (await client.answer())[0] == 401
        await client.close()


async def test_statuses_of_other_refusals():
    keys = Keys(right=shop())
    async with Site(gate=gate(keys)) as site:
        ((status, _, body),) = await answers(site, post(b"b", extra=KEY + "X-Customer-ID: other\r\n"))
        assert (status, body.startswith(b"the header x-customer-id contradicts")) == (403, True)
        keys.error = RetryableError("keys are being fetched", retry_after=1.2)
        ((status, headers, _),) = await answers(site, post(b"c", extra="X-API-Key: new\r\n"))
        assert (status, headers["retry-after"]) == (503, "2")
        keys.error = ZeroDivisionError()
        ((status, _, _),) = await answers(site, post(b"d", extra="X-API-Key: newer\r\n"))
        assert status == 500


async def test_paths_that_are_not_served_need_no_credential():
    async with Site(gate=gate(Keys())) as site:
        ((status, _, _),) = await answers(site, post(b"b", path="/nothing"))
        assert status == 404


async def test_a_request_in_progress_is_counted_until_its_answer():
    limiter, answer = Limiter(most=1), asyncio.get_running_loop().create_future()
    async with Site({"/v1/traces": Route(lambda _: answer)}, gate=gate(Keys(right=shop()), limiter)) as site:
        first, second = await site.connect(), await site.connect()
        first.send(post(b"1", extra=KEY))
        while not limiter.began:
            await asyncio.sleep(0)
        second.send(post(b"2", extra=KEY))
        status, headers, body = await second.answer()
        assert (status, headers["retry-after"], body) == (429, "7", b"limit `concurrent` is reached\n")
        answer.set_result(OK)
        assert (await first.answer())[0] == 200
        assert (limiter.in_progress, limiter.ended) == (0, 1)
        await first.close()
        await second.close()
        assert limiter.began == [("shop", "127.0.0.1", "/v1/traces")]


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def _disconnect(client, _site):
    client.reset()


def _malformed(client, _site):
    client.send(b"not a chunk\r\n")


def _timeout(_client, site):
    (session,) = site.server.sessions
    session.time_is_up()


@pytest.mark.parametrize("end", [_disconnect, _malformed, _timeout])
async def test_a_request_whose_body_never_arrives_is_released_once(end):
    limiter = Limiter()
    async with Site(gate=gate(Keys(right=shop()), limiter)) as site:
        client = await site.connect()
        client.send(f"POST /v1/traces HTTP/1.1\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n".encode())
        await until(lambda: limiter.in_progress == 1)
        end(client, site)
        await until(lambda: limiter.ended)
        await client.close()
    assert (limiter.in_progress, limiter.ended) == (0, 1)


async def test_a_request_whose_client_has_disconnected_is_released_when_its_handler_is_done():
    limiter, late = Limiter(), asyncio.get_running_loop().create_future()
    async with Site({"/v1/traces": Route(lambda _: late)}, gate=gate(Keys(right=shop()), limiter)) as site:
        client = await site.connect()
        client.send(post(b"1", extra=KEY))
        await until(lambda: limiter.in_progress == 1)
        client.reset()
        await until(lambda: not len(site.server.sessions))
        assert limiter.in_progress == 1
        late.set_result(OK)
        await until(lambda: limiter.ended)
    assert (limiter.in_progress, limiter.ended) == (0, 1)


async def test_a_request_that_the_pipeline_refuses_is_not_counted():
    def admit():
        raise Overloaded("full", retry_after=1.0)

    limiter = Limiter()
    async with Site({"/v1/traces": Route(lambda _: OK, admit=admit)}, gate=gate(Keys(right=shop()), limiter)) as site:
        (answer,) = await answers(site, post(b"1", extra=KEY))
        assert (answer[0], answer[2]) == (503, b"full\n"), "the tenant is not the cause"
    assert (limiter.began, limiter.in_progress, limiter.ended) == ([], 0, 0)


async def test_a_limit_is_asked_before_the_pipeline():
    asked, limiter = [], Limiter(most=0)
    routes = {"/v1/traces": Route(lambda _: OK, admit=lambda: asked.append(1))}
    async with Site(routes, gate=gate(Keys(right=shop()), limiter)) as site:
        (answer,) = await answers(site, post(b"1", extra=KEY))
        assert (answer[0], asked) == (429, [])


async def test_a_request_whose_handler_has_a_bug_is_released():
    limiter = Limiter()
    async with Site({"/v1/traces": Route(lambda _: 1 / 0)}, gate=gate(Keys(right=shop()), limiter)) as site:
        ((status, _, _),) = await answers(site, post(b"1", extra=KEY))
        assert (status, limiter.in_progress, limiter.ended) == (500, 0, 1)


async def test_a_request_without_a_route_is_not_answered_as_the_admitted_one_before():
    limiter = Limiter()
    async with Site(gate=gate(Keys(right=shop()), limiter)) as site:
        got = await answers(site, post(b"1", extra=KEY), post(b"2", path="/no"), post(b"3", extra=KEY))
        assert [status for status, _, _ in got] == [200, 404, 200]
        assert [request.body for request in site.requests] == [b"1", b"3"]
        assert limiter.ended == 2


async def test_with_a_limiter_each_connection_has_its_own_allowance_for_the_same_head():
    limiter = Limiter()
    async with Site(gate=gate(Keys(right=shop()), limiter)) as site:
        await answers(site, post(b"1", extra=KEY), post(b"2", extra=KEY))
        await answers(site, post(b"3", extra=KEY))
        allowances = [request.head.allowance for request in site.requests]
        assert allowances[0] is allowances[1]
        assert allowances[0] is not allowances[2]
        assert site.requests[0].head.origin("").allowance is allowances[0]


async def test_a_bug_in_a_limiter_is_answered_with_500():
    limiter = Limiter()
    limiter.error = ZeroDivisionError()
    async with Site(gate=gate(None, limiter)) as site:
        ((status, _, _),) = await answers(site, post(b"1"))
        assert (status, limiter.in_progress, site.requests) == (500, 0, [])


async def test_a_server_with_settings_for_a_gate_does_not_start_without_one():
    settings = blocks.HttpServer.model_validate({"endpoint": "127.0.0.1:0", "auth": {"authenticator": "x"}})
    server = HttpServer(
        settings, {"/": Route(lambda _: Response(200))}, name="receivers/acme", log=structlog.get_logger()
    )
    with pytest.raises(StartError, match=r"receivers/acme: `auth` and `middlewares` have no effect: .*context\.gate"):
        await server.start()


async def test_a_repeated_head_of_a_refused_request_is_decided_again_each_time():
    limiter, keys = Limiter(most=0), Keys(right=shop())
    async with Site(gate=gate(keys, limiter)) as site:
        message = post(b"body", extra=KEY)
        refused = await answers(site, *[message] * 3)
        assert [status for status, _, _ in refused] == [429] * 3
        client = await site.connect()
        for most, body, expected in ((0, b"body", 429), (9, b"body", 200), (0, b"body", 429), (9, b"other", 200)):
            limiter.most = most
            client.send(post(body, extra=KEY))
            assert (await client.answer())[0] == expected
        limiter.most = 0
        for part in (
            message,
            message[:30],
            message[30:-2],
            message[-2:],
        ):  # the head arrives in parts after a whole one
            client.send(part)
        assert [(await client.answer())[0] for _ in range(2)] == [429] * 2
        keys.version, keys.clients = 1, {}
        client.send(message)
        assert (await client.answer())[0] == 401
        await client.close()
        assert [request.body for request in site.requests] == [b"body", b"other"]
