import asyncio
import atexit
import gzip
import threading

import aiohttp
import pytest
from opentelemetry._opamp import OpAMPAgent, OpAMPCallbacks, OpAMPClient
from opentelemetry._opamp.proto import opamp_pb2 as published

from otelwp_agent.control.errors import StoreLockedError
from otelwp_agent.control.fleet.agents import get_agent
from otelwp_agent.control.fleet.installations import list_installations
from otelwp_agent.control.operations import keys
from tests.kit.graphs import until
from tests.kit.opamp import SETUP, UID, OpampSite, ask, health, message, reply_of

SHOP = {"service.name": "shop", "service.version": "1.2.3"}


@pytest.fixture
async def site(tmp_path):
    async with OpampSite(tmp_path) as site:
        yield site


async def agents(site):
    """Return the agents in the store."""
    return await site.read(
        lambda connection: [get_agent(connection, each.id) for each in list_installations(connection)]
    )


async def test_the_published_python_client(site):
    """It reports its full state over HTTP, then heartbeats, and is asked for the full state if the server forgot it."""
    connected = threading.Event()

    class Callbacks(OpAMPCallbacks):
        def on_message(self, agent, client, message):
            connected.set()

    client = OpAMPClient(
        endpoint=site.url, headers=site.headers(), agent_identifying_attributes=SHOP, timeout_millis=60_000
    )
    agent = OpAMPAgent(interval=3600, callbacks=Callbacks(), client=client)
    await asyncio.to_thread(agent.start)
    try:
        assert await asyncio.to_thread(connected.wait, 60)
        (found,) = await agents(site)
        assert found.attributes == SHOP
        reply = await asyncio.to_thread(client.send, client.build_heartbeat_message())
        assert reply.flags == 0
    finally:
        await asyncio.to_thread(agent.stop)  # sends that it disconnects
        atexit.unregister(agent.stop)
    (found,) = await agents(site)
    assert found.disconnected
    stranger = OpAMPClient(
        endpoint=site.url, headers=site.headers(), agent_identifying_attributes=SHOP, timeout_millis=60_000
    )
    reply = await asyncio.to_thread(stranger.send, stranger.build_heartbeat_message())
    assert reply.flags == published.ServerToAgentFlags_ReportFullState
    assert site.value("messages", transport="http") == 4


async def test_a_compressed_message(site):
    body = gzip.compress(message(attributes=SHOP).SerializeToString())
    status, _, reply = await site.post(body, **{"Content-Encoding": "gzip"})
    assert (status, reply.instance_uid) == (200, UID)


async def test_a_websocket(site):
    async with site.socket() as socket:
        reply = await ask(socket, message(0, attributes=SHOP, health=health()))
        assert (reply.instance_uid, reply.flags) == (UID, 0)
        assert site.value("connections") == 1
        assert (await ask(socket, message(5))).flags == published.ServerToAgentFlags_ReportFullState
    await until(lambda: site.value("connections") == 0)
    (found,) = await agents(site)
    assert (found.sequence, found.healthy) == (5, True)
    assert site.value("messages", transport="websocket") == 2


async def test_two_connections_with_one_instance_uid(site):
    async with site.socket() as first, site.socket() as second, site.socket("globex") as other:
        await ask(first, message(0, attributes=SHOP))
        await ask(other, message(0, attributes=SHOP))
        assert (await ask(second, message(0, attributes=SHOP))).flags == 0
        assert (await first.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert (await ask(second, message(1))).flags == 0
        assert (await ask(other, message(1))).flags == 0
        await until(lambda: site.value("connections") == 2)
    assert len(await agents(site)) == 2


async def test_an_agent_that_asks_for_an_instance_uid(site):
    _, _, reply = await site.post(message(attributes=SHOP, flags=1))
    assert reply.agent_identification.new_instance_uid not in {b"", UID}
    assert await agents(site) == []


@pytest.mark.parametrize(
    ("by", "status", "reason"), [("", 401, "unauthenticated"), ("ingest", 403, "scope")], ids=["no key", "scope"]
)
async def test_credentials(site, by, status, reason):
    assert (await site.post(message(attributes=SHOP), by=by))[0] == status
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await site.socket(by)
    assert refused.value.status == status
    assert sum(site.value("refused", transport=each) for each in ("http", "websocket")) == 2
    assert await agents(site) == []


async def test_a_key_that_is_revoked_while_a_websocket_is_open(site):
    async with site.socket() as socket:
        await ask(socket, message(0, attributes=SHOP))
        id_ = site.keys["acme"].split("_")[2]
        await site.write(lambda connection: keys.revoke_key(connection, SETUP, id_))
        await site.store._refresher.refresh()
        reply = await ask(socket, message(1))
        assert reply.error_response.type == published.ServerErrorResponseType_BadRequest
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    (found,) = await agents(site)
    assert found.sequence == 0


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"\xff", {}, 400, "malformed"),
        (b"a" * 5000, {}, 413, "too_large"),
        (gzip.compress(b"a" * 5000), {"Content-Encoding": "gzip"}, 413, "too_large"),
        (b"", {"Content-Type": "application/json"}, 400, "media_type"),
        (b"", {"Content-Encoding": "br"}, 400, "unknown_encoding"),
    ],
    ids=["malformed", "large", "large when decompressed", "media type", "encoding"],
)
async def test_invalid_requests(tmp_path, body, headers, status, reason):
    async with OpampSite(tmp_path, max_request_body_size=1024) as site:
        found, _, reply = await site.post(body, **headers)
        assert found in {status, 415}
        assert reply.error_response.type == published.ServerErrorResponseType_BadRequest
        assert reply.error_response.error_message
        assert site.value("refused", transport="http", reason=reason) == 1
        assert await agents(site) == []


async def test_another_path_and_method(site):
    async with site.session.get(site.url) as response:
        assert response.status == 405
    async with site.session.post(site.url.replace("opamp", "other")) as response:
        assert response.status == 404
        assert "/v1/opamp" in await response.text()


async def test_invalid_messages_over_a_websocket(site):
    async with site.socket() as socket:
        await socket.send_str("text")
        assert "binary" in (await reply_of(socket)).error_response.error_message
        for _ in range(8):
            await socket.send_bytes(b"\xff")
            assert (await reply_of(socket)).error_response.type == published.ServerErrorResponseType_BadRequest
        assert (await ask(socket, message(attributes=SHOP))).flags == 0
        await socket.send_bytes(b"")
        await reply_of(socket)
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.POLICY_VIOLATION)
    assert site.value("refused", transport="websocket", reason="malformed") == 10


async def test_agents_that_return_at_once_are_spread(tmp_path):
    """Refused agents are told different times; nothing of their messages is stored."""
    async with OpampSite(tmp_path, max_messages_per_second=5, retry_spread="60s") as site:
        uids = [bytes([number]) * 16 for number in range(40)]
        answers = await asyncio.gather(*(site.post(message(uid=uid, attributes=SHOP)) for uid in uids))
        refused = [(headers, reply) for status, headers, reply in answers if status == 429]
        assert len(answers) - len(refused) == len(await agents(site)) == 5
        waits = {reply.error_response.retry_info.retry_after_nanoseconds for _, reply in refused}
        assert len(waits) > 30
        assert all(1_000_000_000 <= wait <= 60_000_000_000 for wait in waits)
        assert all(1 <= int(headers["Retry-After"]) <= 60 for headers, _ in refused)
        async with site.socket() as socket:
            reply = await ask(socket, message(attributes=SHOP))
            assert reply.error_response.type == published.ServerErrorResponseType_Unavailable
            closed = await socket.receive()
            assert closed.data == aiohttp.WSCloseCode.TRY_AGAIN_LATER
        site.clock.now += 1
        assert (await site.post(message(attributes=SHOP)))[0] == 200


async def test_a_store_that_is_away(site, monkeypatch):
    async def write(function):
        raise StoreLockedError("locked")

    monkeypatch.setattr(site.store.store, "write", write)
    status, headers, reply = await site.post(message(attributes=SHOP))
    assert (status, reply.error_response.type) == (503, published.ServerErrorResponseType_Unavailable)
    assert 1 <= int(headers["Retry-After"]) <= 30
    monkeypatch.undo()
    assert (await site.post(message(attributes=SHOP)))[0] == 200


async def test_a_server_that_stops_closes_its_websockets(site):
    async with site.socket() as socket:
        await ask(socket, message(attributes=SHOP))
        stopping = asyncio.gather(site.server.shutdown())
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
        await stopping
