import asyncio
import contextlib
import os
import ssl
import stat
from pathlib import Path

import pytest

from otelwp_agent.config import blocks
from otelwp_agent.errors import StartError
from otelwp_agent.transport.tls import ClientTls, ServerTls, beyond_grpc
from tests.kit.certificates import Authority


def files(pair, **more):
    return {"cert_file": pair.cert_file, "key_file": pair.key_file, **more}


def server_tls(pair, **more):
    return ServerTls(blocks.TlsServer(**files(pair, **more)), name="receivers/test")


def client_tls(**settings):
    return ClientTls(blocks.TlsClient(**settings), name="exporters/test")


@contextlib.asynccontextmanager
async def serving(tls):
    async def greet(reader, writer):
        with contextlib.suppress(OSError):
            writer.write(await reader.readexactly(2))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def connect(port, tls, server_name="localhost"):
    """Shake hands, exchange two bytes (TLS 1.3 refuses a client after its own handshake), and return the TLS object."""
    name = tls.server_name or server_name
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls.context, server_hostname=name)
    try:
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        return writer.get_extra_info("ssl_object")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def refused(port, tls, **options):
    with pytest.raises((OSError, asyncio.IncompleteReadError)) as caught:
        await connect(port, tls, **options)
    return caught.value


async def test_handshake_with_alpn(tmp_path):
    authority = Authority(tmp_path)
    async with serving(server_tls(authority.sign())) as port:
        connection = await connect(port, client_tls(ca_file=authority.ca_file))
    assert connection.selected_alpn_protocol() == "http/1.1"
    assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("server", "client", "version"),
    [
        ({}, {"max_version": "1.2"}, "TLSv1.2"),
        ({"max_version": "1.2"}, {}, "TLSv1.2"),
        ({"min_version": "1.3"}, {}, "TLSv1.3"),
        ({"min_version": "1.3"}, {"max_version": "1.2"}, None),
    ],
)
async def test_versions(tmp_path, server, client, version):
    authority = Authority(tmp_path)
    tls = client_tls(ca_file=authority.ca_file, **client)
    async with serving(server_tls(authority.sign(), **server)) as port:
        if version is None:
            await refused(port, tls)
        else:
            assert (await connect(port, tls)).version() == version


async def test_nothing_older_than_1_2(tmp_path):
    assert server_tls(Authority(tmp_path).sign()).context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert client_tls().context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_client_trusts_the_named_authority_alone_and_checks_the_name(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    async with serving(server_tls(authority.sign("shop.example"))) as port:
        assert isinstance(await refused(port, client_tls(ca_file=stranger.ca_file)), ssl.SSLCertVerificationError)
        assert isinstance(await refused(port, client_tls()), ssl.SSLCertVerificationError)
        ours = {"ca_file": authority.ca_file}
        assert isinstance(await refused(port, client_tls(**ours), server_name="other"), ssl.SSLCertVerificationError)
        await connect(port, client_tls(**ours, server_name_override="shop.example"), server_name="other")
        await connect(port, client_tls(**ours, include_system_ca_certs_pool=True))
        await connect(port, client_tls(insecure_skip_verify=True), server_name="other")


async def test_certificates_may_stand_in_the_configuration_itself(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign()
    inline = {"cert_pem": Path(pair.cert_file).read_text(), "key_pem": Path(pair.key_file).read_text()}
    tls = ServerTls(blocks.TlsServer(**inline))
    async with serving(tls) as port:
        await connect(port, client_tls(ca_pem=Path(authority.ca_file).read_text()))
    assert not tls.changed()
    assert "PRIVATE KEY" not in repr(tls.pem)


async def test_mutual_tls(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    ours, theirs = authority.sign("client"), stranger.sign("wrong")
    async with serving(server_tls(authority.sign(), client_ca_file=authority.ca_file)) as port:
        await connect(port, client_tls(ca_file=authority.ca_file, **files(ours)))
        await refused(port, client_tls(ca_file=authority.ca_file))
        await refused(port, client_tls(ca_file=authority.ca_file, **files(theirs)))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_a_reload_reaches_the_context_that_was_given_away(tmp_path, version):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    tls = server_tls(old.sign(file="server"))
    async with serving(tls) as port:
        await connect(port, client_tls(ca_file=old.ca_file, max_version=version))
        new.sign(file="server")
        assert tls.changed()
        tls.reload()
        assert not tls.changed()
        await connect(port, client_tls(ca_file=new.ca_file, max_version=version))
        await refused(port, client_tls(ca_file=old.ca_file, max_version=version))


async def test_an_authority_that_is_taken_away_is_trusted_no_more(tmp_path):
    authority, former = Authority(tmp_path), Authority(tmp_path, "former")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(authority.ca_file).read_bytes() + Path(former.ca_file).read_bytes())
    tls = server_tls(authority.sign(), client_ca_file=str(trusted))
    ours = client_tls(ca_file=authority.ca_file, **files(authority.sign("ours")))
    theirs = client_tls(ca_file=authority.ca_file, **files(former.sign("theirs")))
    async with serving(tls) as port:
        await connect(port, ours)
        await connect(port, theirs)
        trusted.write_bytes(Path(authority.ca_file).read_bytes())
        tls.reload()
        await connect(port, ours)
        await refused(port, theirs)


async def test_a_bad_file_at_a_reload_keeps_the_old(tmp_path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.sign(file="server")
    tls = server_tls(pair)
    client = client_tls(ca_file=authority.ca_file)
    async with serving(tls) as port:
        key = Path(pair.key_file).read_bytes()
        other.sign(file="server")
        Path(pair.key_file).write_bytes(key)
        with pytest.raises(StartError, match=r"key_file .* does not match the certificate in cert_file"):
            tls.reload()
        assert not tls.changed(), "what was refused is not looked at again until it changes"
        await connect(port, client)
        os.unlink(pair.key_file)  # noqa: PTH108
        assert tls.changed()


async def test_a_clients_reload_is_in_its_next_context(tmp_path):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(old.ca_file).read_bytes())
    client = client_tls(ca_file=str(trusted))
    async with serving(server_tls(new.sign())) as port:
        await refused(port, client)
        trusted.write_bytes(Path(new.ca_file).read_bytes())
        assert client.changed()
        client.reload()
        await connect(port, client)


def _swap_key(folder, authority, pair):
    return {"key_file": authority.sign("another").key_file}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, *_: {"cert_file": f"{f}/none.pem"}, r"cert_file .*none\.pem does not exist"),
        (lambda f, *_: {"key_file": str(f)}, r"key_file .* is a directory"),
        (lambda _f, _a, pair: {"cert_file": pair.key_file}, r"cert_file .* contains no PEM certificate"),
        (lambda _f, _a, pair: {"key_file": pair.cert_file}, r"key_file .* contains no PEM private key"),
        (_swap_key, r"key_file .*another\.key does not match the certificate in cert_file .*localhost\.pem"),
        (lambda f, *_: {"client_ca_file": f"{f}/none.pem"}, r"client_ca_file .* does not exist"),
        (lambda _f, _a, pair: {"client_ca_file": pair.key_file}, r"client_ca_file .* contains no PEM certificate"),
    ],
)
def test_errors_name_the_file_and_what_is_wrong(tmp_path, spoil, message):
    authority = Authority(tmp_path)
    pair = authority.sign()
    settings = files(pair) | spoil(tmp_path, authority, pair)
    with pytest.raises(StartError, match=f"^receivers/test: tls: {message}"):
        ServerTls(blocks.TlsServer(**settings), name="receivers/test")


@pytest.mark.parametrize("what", ["cert_file", "key_file", "client_ca_file"])
def test_damaged_files_are_refused(tmp_path, what):
    authority = Authority(tmp_path)
    settings = files(authority.sign(), client_ca_file=authority.ca_file)
    text = Path(settings[what]).read_text().splitlines()
    Path(settings[what]).write_text("\n".join([text[0], "AAAA" + text[1][4:], *text[2:]]))
    with pytest.raises(StartError, match=what):
        ServerTls(blocks.TlsServer(**settings))


def test_an_encrypted_key_is_refused(tmp_path):
    pair = Authority(tmp_path).sign()
    Path(pair.key_file).write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(StartError, match=r"key_file .* is encrypted with a passphrase; give the key unencrypted"):
        server_tls(pair)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    pair = Authority(tmp_path).sign()
    Path(pair.key_file).chmod(0)
    with pytest.raises(StartError, match=r"key_file .* cannot be read: permission denied to user id"):
        server_tls(pair)


def test_nothing_is_left_on_disk_where_there_are_no_files_in_memory(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    modes = []
    load = ssl.SSLContext.load_cert_chain

    def watch(self, path):
        modes.append(stat.S_IMODE(os.stat(path).st_mode))  # noqa: PTH116
        return load(self, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    server_tls(Authority(tmp_path).sign())
    assert modes
    assert set(modes) == {0o600}
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, None),
        ({"max_version": "1.3"}, None),
        ({"min_version": "1.3"}, "min_version"),
        ({"max_version": "1.2"}, "max_version"),
        ({"insecure_skip_verify": True}, "ca_file"),
    ],
)
def test_what_grpc_cannot_honour(settings, word):
    problem = beyond_grpc(blocks.TlsClient(**settings))
    assert (problem is None) == (word is None)
    assert word is None or word in problem
