"""Requests of the HTTP client over TLS."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from otelwp_agent.errors import RetryableError, StartError
from tests.kit.certificates import Authority
from tests.kit.http_peer import HttpPeer, response, url


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def server_context(authority: Authority, name: str = "localhost") -> ssl.SSLContext:
    pair = authority.sign(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    return context


async def test_tls(client_of, authority):
    async with HttpPeer(tls=server_context(authority)) as peer:
        client = await client_of(url(peer, "https"), tls={"ca_file": authority.ca_file})
        for _ in range(2):
            assert (await client.request("POST", "/", b"secret")).status == 200
        assert peer.connections == 1
        await client.aclose()


async def test_an_unknown_authority_is_said_in_words(client_of, authority):
    async with HttpPeer(tls=server_context(authority)) as peer:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the peer's own view of it
        client = await client_of(url(peer, "https"))
        with pytest.raises(RetryableError, match=r"cannot connect to 127.0.0.1:\d+: its certificate is not accepted: "):
            await client.request("POST", "/")


async def test_a_certificate_for_another_name_is_refused_unless_that_is_expected(client_of, authority, tmp_path):
    other = Authority(tmp_path, "other")
    async with HttpPeer(tls=server_context(other, "shop.example")) as peer:
        settings = {"ca_file": other.ca_file, "server_name_override": "shop.example"}
        client = await client_of(url(peer, "https"), tls=settings)
        assert (await client.request("POST", "/")).status == 200
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        client = await client_of(url(peer, "https"), tls={**settings, "server_name_override": "bank.example"})
        with pytest.raises(RetryableError, match="certificate is not accepted"):
            await client.request("POST", "/")


async def test_https_to_a_plain_server_is_said_in_words(client_of):
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response("400 Bad Request"))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        client = await client_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(RetryableError, match="TLS failed: wrong version number"):
            await client.request("POST", "/")


async def test_reloaded_authorities_count_for_the_next_connection(client_of, tmp_path):
    authority, other = Authority(tmp_path, "a"), Authority(tmp_path, "b")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes((tmp_path / "b.pem").read_bytes())
    async with HttpPeer(tls=server_context(authority)) as peer:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        client = await client_of(url(peer, "https"), tls={"ca_file": str(trusted)})
        with pytest.raises(RetryableError):
            await client.request("POST", "/")
        trusted.write_bytes((tmp_path / "a.pem").read_bytes())
        client.reload_tls()
        assert (await client.request("POST", "/")).status == 200
    assert other.ca_file != authority.ca_file


async def test_certificate_files_are_looked_at_by_themselves(client_of, tmp_path):
    authority = Authority(tmp_path, "a")
    Authority(tmp_path, "b")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes((tmp_path / "b.pem").read_bytes())
    async with HttpPeer(tls=server_context(authority)) as peer:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        client = await client_of(url(peer, "https"), tls={"ca_file": str(trusted), "reload_interval": "1ms"})
        trusted.write_bytes((tmp_path / "a.pem").read_bytes() + b"\n")
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await client.request("POST", "/")).status == 200
                    break
                except RetryableError:
                    continue


async def test_a_missing_certificate_fails_the_start(client_of, tmp_path):
    with pytest.raises(StartError, match="exporters/otlp_http"):
        await client_of("https://127.0.0.1:1", tls={"ca_file": str(tmp_path / "none.pem")})
