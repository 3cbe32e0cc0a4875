import asyncio
import socket
import stat

import pytest

from otelwp_agent.errors import StartError
from tests.kit.http_site import Client, Site, post


async def test_a_unix_socket_has_its_mode_and_goes_away(tmp_path):
    path = tmp_path / "s.sock"
    async with Site(endpoint=f"unix://{path}", unix_mode="0600") as site:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = Client(*await asyncio.open_unix_connection(path))
        client.send(post())
        assert (await client.answer())[0] == 200
        assert site.requests[0].peer == ""
        await client.close()
    assert not path.exists()


async def test_a_port_in_use_names_the_component_and_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"receivers/test: cannot listen on 127.0.0.1:{port}: .*another process"):
            await Site(endpoint=f"127.0.0.1:{port}").server.start()


async def test_another_component_on_the_same_port_is_named():
    async with Site() as site:
        endpoint = f"127.0.0.1:{site.server.port}"
        first = Site(endpoint=endpoint)
        first.server.name = "receivers/other"
        with pytest.raises(StartError, match="in use"):
            await first.server.start()


async def test_a_successor_takes_over_socket_and_connections():
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    old, new = Site(endpoint=endpoint), Site(endpoint=endpoint)
    async with old:
        client = await old.connect()
        client.send(post(b"to the old"))
        await client.answer()
        client.send(post(b"cut in half")[:-5])
        await asyncio.sleep(0.05)  # the server reads the half request
        async with new:
            await old.server.shutdown()
            client.send(b" half")
            assert (await client.answer())[0] == 200
            client.send(post(b"to the new"))
            assert (await client.answer())[0] == 200
            fresh = await new.connect()
            fresh.send(post(b"to the new, too"))
            assert (await fresh.answer())[0] == 200
            await client.close()
            await fresh.close()
    assert [request.body for request in new.requests] == [b"to the new", b"to the new, too"]


async def test_one_server_listens_on_several_addresses(tmp_path):
    path = tmp_path / "s.sock"
    site = Site(additional_endpoints=["127.0.0.1:0", f"unix://{path}"], unix_mode="0600")
    async with site:
        assert len(site.server.also) == 2
        assert site.server.also[1] == f"unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        second = int(site.server.also[0].rpartition(":")[2])
        assert second not in (0, site.server.port)
        for opened in (
            asyncio.open_connection("127.0.0.1", site.server.port),
            asyncio.open_connection("127.0.0.1", second),
            asyncio.open_unix_connection(path),
        ):
            client = Client(*await opened)
            client.send(post())
            assert (await client.answer())[0] == 200
            await client.close()
    assert not path.exists()
    assert site.server.also == []


async def test_one_address_that_cannot_be_had_closes_the_others(tmp_path):
    path = tmp_path / "s.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = Site(endpoint=f"unix://{path}", additional_endpoints=[f"127.0.0.1:{taken.getsockname()[1]}"])
        with pytest.raises(StartError, match="in use"):
            await site.server.start()
    assert not path.exists()
    assert not site.server.listening


async def test_an_additional_address_that_this_machine_has_not_is_left_out():
    async with Site(additional_endpoints=["192.0.2.1:4318"]) as site:
        assert site.server.listening
        assert site.server.also == []


async def test_a_successor_that_cannot_start_leaves_the_old_one_serving(tmp_path):
    path = tmp_path / "s.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with Site(endpoint=f"unix://{path}") as old:
            port = taken.getsockname()[1]
            new = Site(endpoint=f"unix://{path}", additional_endpoints=[f"127.0.0.1:{port}"])
            with pytest.raises(StartError, match="in use"):
                await new.server.start()
            client = Client(*await asyncio.open_unix_connection(path))
            client.send(post())
            assert (await client.answer())[0] == 200
            await client.close()
            async with Site(endpoint=f"unix://{path}") as newer:
                await old.server.shutdown()
                assert path.exists()
                assert newer.server.listening
    assert not path.exists()
