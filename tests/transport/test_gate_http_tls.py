"""Certificates of clients, which the gate of an HTTP server decides about."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from otelwp_agent.transport.http_messages import Route
from tests.kit.certificates import Authority
from tests.kit.gates import Names, gate, shop
from tests.kit.http_site import OK, Client, Site, post


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_the_certificate_of_a_client_decides(tmp_path):
    authority = Authority(tmp_path)
    own, shop_pair, other = authority.sign(), authority.sign("shop", file="shop"), authority.sign("other", file="other")
    names = Names(shop=shop())
    tls = {"cert_file": own.cert_file, "key_file": own.key_file, "client_ca_file": authority.ca_file}
    async with Site(gate=gate(names), tls=tls) as site:

        async def status(pair):
            context = ssl.create_default_context(cafile=authority.ca_file)
            context.load_cert_chain(pair.cert_file, pair.key_file)
            streams = await asyncio.open_connection("localhost", site.server.port, ssl=context)
            client = Client(*streams)
            client.send(post(b"b"))
            client.send(post(b"b"))
            found = [(await client.answer())[0] for _ in range(2)]
            await client.close()
            return found

        assert await status(shop_pair) == [200, 200]
        assert await status(other) == [401, 401], "the same head on another connection"
        assert await status(shop_pair) == [200, 200]
    assert [certificate.common_name for _, certificate in names.asked] == ["shop", "other", "other", "shop"]
    assert "localhost" in names.asked[0][1].alternative_names


async def test_connections_end_when_the_authorities_of_clients_change(tmp_path):
    """The certificate of an open connection may be of an authority that was removed."""
    (tmp_path / "other").mkdir()
    authority, after = Authority(tmp_path), Authority(tmp_path / "other")
    own, pair, trusted = authority.sign(), authority.sign("shop", file="shop"), tmp_path / "trusted.pem"
    trusted.write_bytes(Path(authority.ca_file).read_bytes())
    tls = {"cert_file": own.cert_file, "key_file": own.key_file, "client_ca_file": str(trusted)}
    late = asyncio.get_running_loop().create_future()
    answers = iter([OK, OK, late])
    async with Site({"/v1/traces": Route(lambda _: next(answers))}, tls=tls) as site:
        context = ssl.create_default_context(cafile=authority.ca_file)
        context.load_cert_chain(pair.cert_file, pair.key_file)

        async def connect():
            return Client(*await asyncio.open_connection("localhost", site.server.port, ssl=context))

        idle, busy = await connect(), await connect()
        for client in (idle, busy):
            client.send(post(b"b"))
            assert (await client.answer())[0] == 200
        site.server.reload_tls()
        busy.send(post(b"b"))
        await until(lambda: busy_requests(site))
        trusted.write_bytes(Path(after.ca_file).read_bytes())
        site.server.reload_tls()
        assert await idle.closed()
        late.set_result(OK)
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await busy.closed()


@pytest.mark.parametrize("removed", [False, True])
async def test_a_handshake_in_progress_is_not_disturbed_unless_its_authority_is_removed(tmp_path, removed):
    (tmp_path / "other").mkdir()
    kept, gone = Authority(tmp_path), Authority(tmp_path / "other")
    own, trusted = kept.sign(), tmp_path / "trusted.pem"
    pair = (gone if removed else kept).sign("shop", file="shop")
    trusted.write_bytes(Path(kept.ca_file).read_bytes() + Path(gone.ca_file).read_bytes())
    tls = {"cert_file": own.cert_file, "key_file": own.key_file, "client_ca_file": str(trusted)}
    async with Site(tls=tls) as site:
        context = ssl.create_default_context(cafile=kept.ca_file)
        context.load_cert_chain(pair.cert_file, pair.key_file)
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(received, sent, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("localhost", site.server.port)

        def shake_hands():
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            writer.write(sent.read())

        shake_hands()
        received.write(await reader.read(65536))  # The server has chosen its authorities.
        trusted.write_bytes(Path(kept.ca_file).read_bytes())
        site.server.reload_tls()
        shake_hands()
        if not removed:
            client.write(post(b"b"))
            writer.write(sent.read())
            await until(lambda: site.requests)
        else:
            assert await ended(client, reader, received)
            with contextlib.suppress(ssl.SSLError):
                client.unwrap()
            writer.write(sent.read())
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert len(site.requests) == (0 if removed else 1)


async def ended(client, reader, received):
    """Wait until the server says that it closes the connection."""
    async with asyncio.timeout(60):
        while data := await reader.read(65536):
            received.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                if not client.read():
                    return True
    return True


def busy_requests(site):
    return [session for session in site.server.sessions if session.blocked]
