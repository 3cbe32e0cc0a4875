import asyncio
import errno
import socket
import ssl

import pytest
import uvloop

from otelwp_agent.transport import http_server, http_tls
from tests.kit.certificates import Authority
from tests.kit.http_site import Client, Site, post


def pytest_generate_tests(metafunc):
    if "loop_factory" in metafunc.fixturenames:
        metafunc.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def tls_site(authority, **settings):
    pair = authority.sign()
    return Site(tls={"cert_file": pair.cert_file, "key_file": pair.key_file}, **settings)


async def connect(site, authority):
    context = ssl.create_default_context(cafile=authority.ca_file)
    return Client(*await asyncio.open_connection("127.0.0.1", site.server.port, ssl=context))


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def run(loop_factory, scenario):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario)


def test_requests_are_served_over_tls(authority, loop_factory):
    async def scenario():
        async with tls_site(authority) as site:
            client = await connect(site, authority)
            for size in (5, 500_000):
                client.send(post(b"x" * size))
                assert (await client.answer())[0] == 200
            assert [request.peer for request in site.requests] == ["127.0.0.1"] * 2
            await client.close()
            await until(lambda: not site.server.sessions)
            assert site.refusals == []

    run(loop_factory, scenario())


def test_stalled_handshakes_count_and_end_with_the_header_timeout(authority, loop_factory, monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP", 0.05)

    async def scenario():
        async with tls_site(authority, max_connections=10, read_header_timeout="300ms") as site:
            address = ("127.0.0.1", site.server.port)
            stalled = [socket.create_connection(address) for _ in range(50)]
            stalled[0].sendall(b"\x16\x03\x01\x02\x00")
            await until(lambda: site.refusals.count("connections") == 40)
            await until(lambda: len(site.server.sessions) == 10)
            await until(lambda: not site.server.sessions)
            assert site.refusals.count("tls_timeout") == 10
            client = await connect(site, authority)
            client.send(post())
            assert (await client.answer())[0] == 200
            await client.close()
            for each in stalled:
                each.close()

    run(loop_factory, scenario())


def test_what_is_not_tls_is_counted_and_closed(authority, loop_factory):
    async def scenario():
        async with tls_site(authority) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
            writer.write(post())
            assert b"200" not in await reader.read()
            writer.close()
            gone = socket.create_connection(("127.0.0.1", site.server.port))
            await until(lambda: site.server.sessions)
            gone.close()
            await until(lambda: not site.server.sessions)
            assert set(site.refusals) == {"tls_handshake"}
            assert site.requests == []

    run(loop_factory, scenario())


def test_shutdown_ends_handshakes_and_a_successor_inherits_them(authority, loop_factory):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as free:
            endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        old, new = tls_site(authority, endpoint=endpoint), tls_site(authority, endpoint=endpoint)
        async with old:
            stalled = socket.create_connection(("127.0.0.1", old.server.port))
            await until(lambda: len(old.server.sessions) == 1)
            async with new:
                await old.server.shutdown()
                assert len(new.server.sessions) == 1
                client = await connect(new, authority)
                client.send(post())
                assert (await client.answer())[0] == 200
                await client.close()
            assert not new.server.sessions
            stalled.close()
        assert len(new.requests) == 1

    run(loop_factory, scenario())


class Exhausted(socket.socket):
    """A listening socket whose first `accept` fails, as it does when too many files are open."""

    failed = False

    def accept(self):
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_accepting_goes_on_after_too_many_files_were_open(authority, loop_factory, monkeypatch):
    monkeypatch.setattr(http_tls, "PAUSE", 0.05)

    async def scenario():
        async with tls_site(authority) as site:
            listening = Exhausted(fileno=socket.create_server(("127.0.0.1", 0)).detach())
            port = listening.getsockname()[1]

            def begin(connection, peer):
                http_tls.Handshake(site.server, connection, peer, http_tls.SecuredSession).begin(
                    site.server._tls.context
                )

            acceptor = http_tls.TlsAcceptor(site.server, listening, begin)
            context = ssl.create_default_context(cafile=authority.ca_file)
            client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
            client.send(post())
            assert (await client.answer())[0] == 200
            assert listening.failed
            await client.close()
            acceptor.close()

    run(loop_factory, scenario())
