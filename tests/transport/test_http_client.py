from __future__ import annotations

import asyncio
import gc
import socket

import pytest
import structlog

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.transport.authentication import ClientAuthenticator
from otelwp_agent.transport.http_client import HttpClient
from tests.kit.http_peer import Close, HttpPeer, response, url


async def test_sends_the_request_and_returns_the_response(client_of):
    async with HttpPeer(response("202 Accepted", b"fine", X_Seen="yes")) as peer:
        client = await client_of(url(peer))
        answer = await client.request("POST", "/v1/traces?a=b", b"\x00body", [("Content-Type", "application/x")])
    assert (answer.status, answer.headers["x-seen"], answer.body) == (202, "yes", b"fine")
    seen = peer.seen[0]
    assert seen.line == "POST /v1/traces?a=b HTTP/1.1"
    assert seen.body == b"\x00body"
    assert seen.headers == {
        "host": f"127.0.0.1:{peer.port}",
        "content-type": "application/x",
        "content-length": "5",
    }


async def test_an_empty_body_has_a_length(client_of):
    async with HttpPeer() as peer:
        await (await client_of(url(peer))).request("POST", "/")
    assert peer.seen[0].headers["content-length"] == "0"


async def test_large_bodies_arrive_whole(client_of):
    body = bytes(range(256)) * 20_000
    async with HttpPeer() as peer:
        await (await client_of(url(peer))).request("POST", "/", body)
    assert peer.seen[0].body == body


async def test_configured_headers_win(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer), headers={"X-Key": "k", "user-AGENT": "mine", "Host": "shop.example"})
        await client.request("POST", "/", b"", [("User-Agent", "ours")])
    headers = peer.seen[0].headers
    assert (headers["x-key"], headers["user-agent"], headers["host"]) == ("k", "mine", "shop.example")


async def test_a_connection_is_used_again(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer))
        for _ in range(3):
            await client.request("POST", "/")
        assert peer.connections == 1


async def test_requests_at_once_have_a_connection_each_and_keep_them(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer))
        for _ in range(2):
            await asyncio.gather(*[client.request("POST", "/") for _ in range(3)])
        assert peer.connections == 3


async def test_no_more_connections_than_allowed(client_of):
    now = most = 0

    async def answer(_):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return response()

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer), max_conns_per_host=2)
        await asyncio.gather(*[client.request("POST", "/") for _ in range(20)])
        assert most == 2
        assert peer.connections == 2


async def test_without_keep_alive_each_request_has_its_connection(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer), disable_keep_alives=True)
        for _ in range(2):
            await client.request("POST", "/")
        assert peer.connections == 2
    assert peer.seen[0].headers["connection"] == "close"


async def test_an_idle_connection_is_closed_in_time(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer), idle_conn_timeout="1ms")
        await client.request("POST", "/")
        async with asyncio.timeout(60):
            await client._empty.wait()
        await client.request("POST", "/")
        assert peer.connections == 2


async def test_a_stale_connection_is_replaced_without_a_word(client_of):
    async def answer(seen):
        if seen.connection == 1 and len(peer.seen) > 1:
            raise Close
        return response()

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer))
        await client.request("POST", "/", b"one")
        assert (await client.request("POST", "/", b"two")).status == 200
    assert [(seen.connection, seen.body) for seen in peer.seen] == [(1, b"one"), (1, b"two"), (2, b"two")]


async def test_a_fresh_connection_that_dies_is_not_replaced(client_of):
    async def answer(_):
        raise Close

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer))
        with pytest.raises(RetryableError, match=r"127.0.0.1:\d+ closed the connection before it answered"):
            await client.request("POST", "/")
        assert peer.connections == 1


async def test_a_used_connection_that_dies_while_answering_is_not_replaced(client_of):
    async def answer(_):
        if len(peer.seen) > 1:
            raise Close(b"HTTP/1.1 200")
        return response()

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer))
        await client.request("POST", "/")
        with pytest.raises(RetryableError, match="in the middle of its answer"):
            await client.request("POST", "/")
        assert peer.connections == 1


async def test_a_server_that_comes_back_is_found_again(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer))
        await client.request("POST", "/")
        port = peer.port
    with pytest.raises(RetryableError, match="cannot connect"):
        await client.request("POST", "/")
    async with HttpPeer(port=port):
        assert (await client.request("POST", "/")).status == 200


async def test_nobody_there_is_said_in_words(client_of):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = await client_of(f"http://127.0.0.1:{port}")
    with pytest.raises(RetryableError) as error:
        await client.request("POST", "/")
    assert str(error.value) == f"cannot connect to 127.0.0.1:{port}: connection refused"
    assert error.value.reason == "connect"


async def test_a_name_without_address_is_said_in_words(client_of):
    client = await client_of("http://nowhere.invalid:1")
    with pytest.raises(RetryableError, match=r"cannot connect to nowhere.invalid:1: its host name does not resolve"):
        await client.request("POST", "/")


async def test_no_answer_ends_at_the_timeout_and_the_connection_with_it(client_of):
    async def answer(_):
        await asyncio.get_running_loop().create_future()

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer), timeout="50ms")
        with pytest.raises(RetryableError, match=r"did not answer within 50ms") as error:
            await client.request("POST", "/")
        assert error.value.reason == "timeout"
        async with asyncio.timeout(60):
            await client._empty.wait()


async def test_waiting_for_a_connection_counts(client_of):
    asked = asyncio.Event()

    async def answer(_):
        asked.set()
        await asyncio.get_running_loop().create_future()

    async with HttpPeer(answer) as peer, asyncio.timeout(60):
        client = await client_of(url(peer), timeout="1s", max_conns_per_host=1)
        first = asyncio.ensure_future(client.request("POST", "/"))
        await asked.wait()
        client._timeout = 0.01
        with pytest.raises(RetryableError, match="did not answer within 10ms"):
            await client.request("POST", "/")
        assert len(peer.seen) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_redirects_are_not_followed(client_of):
    async with HttpPeer(response("307 Temporary Redirect", Location="http://127.0.0.1:1/")) as peer:
        client = await client_of(url(peer))
        assert (await client.request("POST", "/")).headers["location"] == "http://127.0.0.1:1/"


async def test_unix_sockets(client_of, tmp_path):
    path = str(tmp_path / "peer.sock")
    async with HttpPeer(path=path) as peer:
        client = await client_of(f"unix://{path}")
        assert (await client.request("POST", "/v1/traces")).status == 200
    assert peer.seen[0].headers["host"] == "localhost"


async def test_a_missing_unix_socket_is_said_in_words(client_of, tmp_path):
    client = await client_of(f"unix://{tmp_path}/none.sock")
    with pytest.raises(RetryableError, match=r"cannot connect to unix:///.*/none.sock: no such file or directory"):
        await client.request("POST", "/")


async def test_closing_ends_what_is_idle_and_what_is_not(client_of):
    asked = asyncio.Event()

    async def answer(seen):
        if seen.path == "/hang":
            asked.set()
            await asyncio.get_running_loop().create_future()
        return response()

    async with HttpPeer(answer) as peer:
        client = await client_of(url(peer))
        hanging = asyncio.ensure_future(client.request("POST", "/hang"))
        await asked.wait()
        await client.request("POST", "/")
        before = asyncio.all_tasks()
        await client.aclose()
        with pytest.raises(RetryableError):
            await hanging
        assert not client._open
        with pytest.raises(RetryableError, match="is closed"):
            await client.request("POST", "/")
        await client.aclose()
        assert asyncio.all_tasks() <= before


async def test_an_idle_client_runs_nothing(client_of):
    async with HttpPeer() as peer:
        client = await client_of(url(peer))
        await client.request("POST", "/")
        mine = {task for task in asyncio.all_tasks() if "HttpClient" in repr(task.get_coro())}
        assert not mine


async def test_the_body_is_let_go_of_after_the_request(client_of):
    class Body(bytes):
        pass

    async with HttpPeer() as peer:
        client = await client_of(url(peer))
        await client.request("POST", "/", Body(b"x" * 100_000))
        await asyncio.sleep(0)
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is Body]


# --- credentials ---


class Tokens(ClientAuthenticator):
    """Gives one token after another, a new one after each 401."""

    def __init__(self, *tokens):
        self.tokens, self.origins, self.refused = [*tokens], [], []

    def headers(self, origin, given):
        self.origins.append(origin)
        if not self.tokens:
            raise RetryableError("no token yet", reason="no_credential")
        return (("authorization", self.tokens[0]),)

    def rejected(self, headers):
        self.refused.append(headers)
        del self.tokens[0]
        return bool(self.tokens)


def with_tokens(peer, *tokens, **settings):
    authenticator = Tokens(*tokens)
    endpoint = Endpoint(url(peer))
    log, config = structlog.get_logger(), blocks.HttpClient(**settings)
    return HttpClient(config, endpoint, name="test", log=log, authenticator=authenticator), authenticator


async def test_the_credential_takes_precedence_over_all_other_headers():
    async with HttpPeer() as peer:
        client, tokens = with_tokens(peer, "one", headers={"Authorization": "configured", "X-Shop": "a"})
        origin = Origin("otlp", "http", "shop")
        await client.request("POST", "/", b"", [("authorization", "given"), ("x-shop", "b"), ("x-more", "c")], origin)
        await client.aclose()
    assert [(name, peer.seen[0].headers[name]) for name in ("authorization", "x-shop", "x-more")] == [
        ("authorization", "one"),
        ("x-shop", "a"),
        ("x-more", "c"),
    ]
    assert tokens.origins == [origin]


async def test_after_a_401_a_request_is_retried_only_if_there_is_another_credential():
    async with HttpPeer(response("401 Unauthorized")) as peer:
        client, tokens = with_tokens(peer, "one", "two")
        with pytest.raises(RetryableError, match="has refused the credential") as caught:
            await client.request("POST", "/")
        assert caught.value.reason == "http_401"
        assert (await client.request("POST", "/")).status == 401
        assert tokens.refused == [(("authorization", "one"),), (("authorization", "two"),)]
        with pytest.raises(RetryableError, match="no token yet"):
            await client.request("POST", "/")
        await client.aclose()
    assert len(peer.seen) == 2
