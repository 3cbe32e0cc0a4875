"""TLS of a gRPC server, checked with the client of grpcio."""

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
import structlog

from otelwp_agent.errors import StartError
from otelwp_agent.transport.grpc_runtime import grpc
from tests.kit.certificates import Authority
from tests.kit.grpc_peer import call, failure, make, serving


def client_credentials(authority, pair=None):
    key = Path(pair.key_file).read_bytes() if pair else None
    chain = Path(pair.cert_file).read_bytes() if pair else None
    return grpc.ssl_channel_credentials(Path(authority.ca_file).read_bytes(), key, chain)


def tls_of(pair, **settings):
    return {"cert_file": pair.cert_file, "key_file": pair.key_file, **settings}


async def test_tls(tmp_path, capfd):
    authority = Authority(tmp_path)
    async with serving(tls=tls_of(authority.sign())) as server:
        assert await call(server.port, credentials=client_credentials(authority)) == b"hello"
        assert (await failure(server.port, timeout=1)).code() is grpc.StatusCode.UNAVAILABLE
        stranger = Authority(tmp_path, "stranger")
        caught = await failure(server.port, credentials=client_credentials(stranger))
        assert caught.code() is grpc.StatusCode.UNAVAILABLE
    assert capfd.readouterr().err == ""


async def test_mutual_tls_refuses_who_has_no_certificate_or_a_strangers(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server_pair, client_pair = authority.sign(), authority.sign("client")
    async with serving(tls=tls_of(server_pair, client_ca_file=authority.ca_file)) as server:
        assert await call(server.port, credentials=client_credentials(authority, client_pair)) == b"hello"
        for pair in (None, stranger.sign("wrong")):
            caught = await failure(server.port, credentials=client_credentials(authority, pair))
            assert caught.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("how", ["reload_tls", "replacement", "reload_interval"])
async def test_a_new_certificate_is_used_after_a_reload(tmp_path, how):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    tls = tls_of(old.sign(file="server"), reload_interval="20ms" if how == "reload_interval" else "0s")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    async with serving(tls=tls, endpoint=endpoint) as server:
        assert await call(server.port, credentials=client_credentials(old)) == b"hello"
        with structlog.testing.capture_logs() as logs:
            new.sign(file="server")
            if how == "reload_tls":
                server.reload_tls()
            elif how == "replacement":
                await make(tls=tls, endpoint=endpoint).start()
            async with asyncio.timeout(60):
                while how == "reload_interval" and "certificate reloaded" not in str(logs):
                    await asyncio.sleep(0.01)
        assert await call(server.port, credentials=client_credentials(new)) == b"hello"
        assert (await failure(server.port, credentials=client_credentials(old))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_bad_certificate_at_a_reload_leaves_the_old_one(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign()
    async with serving(tls=tls_of(pair, reload_interval="20ms")) as server:
        with structlog.testing.capture_logs() as logs:
            Path(pair.cert_file).write_text("rubbish")
            with pytest.raises(StartError, match=r"receivers/test: tls: cert_file .*\.pem contains no PEM certificate"):
                server.reload_tls()
            os.utime(pair.cert_file, (1, 1))
            async with asyncio.timeout(60):
                while not logs:
                    await asyncio.sleep(0.01)
        assert logs[0]["event"] == "certificate not reloaded; the old one stays"
        assert await call(server.port, credentials=client_credentials(authority)) == b"hello"


@pytest.mark.parametrize(
    ("settings", "version"), [({"min_version": "1.3"}, "TLSv1_2"), ({"max_version": "1.2"}, "TLSv1_3")]
)
async def test_a_version_of_tls_that_is_not_allowed_is_refused(tmp_path, settings, version):
    authority = Authority(tmp_path)
    async with serving(tls=tls_of(authority.sign(), **settings)) as server:
        context = ssl.create_default_context(cafile=authority.ca_file)
        context.set_alpn_protocols(["h2"])
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with pytest.raises(OSError):  # noqa: PT011 - an alert of TLS, or a reset connection if that was faster
            await asyncio.open_connection("localhost", server.port, ssl=context, server_hostname="localhost")
        assert await call(server.port, credentials=client_credentials(authority)) == b"hello"


async def test_alpn_chooses_http_2(tmp_path):
    authority = Authority(tmp_path)
    async with serving(tls=tls_of(authority.sign())) as server:
        context = ssl.create_default_context(cafile=authority.ca_file)
        context.set_alpn_protocols(["http/1.1", "h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()
