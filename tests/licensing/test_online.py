"""The client of the licence server, against real servers that answer well, badly or not at all."""

import asyncio
import contextlib
import json

import pytest
import structlog

from otelwp_agent.licensing import online
from otelwp_agent.licensing.online import MAX_ANSWER, REASONS, LicenseServerClient, RefreshError, renew
from tests.kit.agent import free_port
from tests.licensing.issuer import ISSUER

TEXT = ISSUER.issue()


def answer(body, status="200 OK", *headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", *headers])
    return head.encode() + b"\r\n\r\n" + raw


@contextlib.asynccontextmanager
async def serving(reply, *, pause=0.0):
    """Answer each connection with the bytes `reply`; yield a client and the requests."""
    requests, tasks = [], []

    async def handle(reader, writer):
        tasks.append(asyncio.current_task())
        size = 1 if pause else 4096  # with a pause, it sends byte after byte
        try:
            requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            for at in range(0, len(reply), size):
                writer.write(reply[at : at + size])
                await writer.drain()
                await asyncio.sleep(pause)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url, requests
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def ask(url, nonce="n-1"):
    return await LicenseServerClient(url, None, structlog.get_logger()).ask(TEXT, nonce)


async def test_it_sends_the_licence_and_returns_the_signed_text():
    async with serving(answer({"valid": True, "features": [], "license": "a.b.c"})) as (url, requests):
        assert await ask(f"{url}/licences") == "a.b.c"
    assert requests[0].startswith("GET /licences/validate?nonce=n-1 HTTP/1.1\r\n")
    assert f"X-License-Key: {TEXT}\r\n" in requests[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"<html>"), "malformed"),
        (answer(b"[]"), "malformed"),
        (answer(b""), "malformed"),
        (answer({"valid": False}), "unsigned"),
        (answer({"valid": True, "features": ["everything"]}), "unsigned"),
        (answer({"valid": True, "license": 5}), "unsigned"),
        (answer(b" " * (MAX_ANSWER + 1)), "too_large"),
        (answer(b"", "302 Found", "Location: https://elsewhere.example/?token=secret"), "redirect"),
        (answer({"valid": False}, "403 Forbidden"), "status"),
        (answer(b"", "503 Service Unavailable"), "status"),
        (b"not HTTP at all\r\n\r\n", "unreachable"),
        (b"", "unreachable"),
    ],
)
async def test_other_answers_are_outages(reply, reason):
    async with serving(reply) as (url, _):
        with pytest.raises(RefreshError) as caught:
            await ask(url)
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)
    assert TEXT not in str(caught.value)


async def test_a_server_that_answers_slowly_is_given_up(monkeypatch):
    monkeypatch.setattr(online, "TIMEOUT", 0.2)
    async with serving(answer({"valid": True, "license": "a.b.c"}), pause=0.05) as (url, _):
        with pytest.raises(RefreshError) as caught:
            await ask(url)
    assert caught.value.reason == "timeout"


async def test_a_server_that_does_not_listen_is_unreachable():
    with pytest.raises(RefreshError) as caught:
        await ask(f"http://127.0.0.1:{free_port()}")
    assert caught.value.reason == "unreachable"


async def test_authorities_that_cannot_be_read_are_an_outage_not_an_end(tmp_path):
    client = LicenseServerClient("https://license.example", str(tmp_path / "none.pem"), structlog.get_logger())
    with pytest.raises(RefreshError) as caught:
        await client.ask(TEXT, "n-1")
    assert caught.value.reason == "unreachable"


async def test_only_signed_terms_for_the_licence_and_the_request_are_accepted():
    async def renewed(**terms):
        async def reply(text, nonce):
            return ISSUER.issue(**{"nonce": nonce} | terms)

        return await renew(reply, TEXT, ISSUER.terms(), ISSUER.keys, "n-2")

    text, terms = await renewed(tier="enterprise")
    assert (terms.tier, terms.nonce) == ("enterprise", "n-2")
    assert text == ISSUER.issue(nonce="n-2", tier="enterprise")
    for changed, reason in (({"jti": "other"}, "other_license"), ({"nonce": "n-1"}, "replayed")):
        with pytest.raises(RefreshError) as caught:
            await renewed(**changed)
        assert caught.value.reason == reason
        assert reason in REASONS
